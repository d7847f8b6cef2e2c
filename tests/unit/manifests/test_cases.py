from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import cases


def records(rows: int) -> pa.Table:
    return pa.table({"index": pa.array(range(rows), pa.int32()), "key": [f"k{n}" for n in range(rows)]})


def test_what_is_sealed_comes_back_with_the_key_and_only_with_it():
    secret, public = cases.new_identity()
    other, _ = cases.new_identity()
    data, _ = cases.seal(records(3), samples=100, recipients=[public])
    assert cases.open_sealed(data, identity=f"# a comment\n{secret}\n", source="x").equals(records(3))
    with pytest.raises(cases.SealError, match="cannot be opened"):
        cases.open_sealed(data, identity=other, source="x")
    with pytest.raises(cases.SealError, match="cannot be opened"):
        cases.open_sealed(data, identity="no key at all", source="x")


def test_every_recipient_can_open():
    keys = [cases.new_identity() for _ in range(2)]
    data, _ = cases.seal(records(1), samples=1, recipients=[public for _, public in keys])
    for secret, _ in keys:
        assert cases.open_sealed(data, identity=secret, source="x").num_rows == 1


def test_a_changed_file_is_refused():
    secret, public = cases.new_identity()
    data, _ = cases.seal(records(1), samples=1, recipients=[public])
    changed = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(cases.SealError):
        cases.open_sealed(changed, identity=secret, source="x")


def test_size_does_not_tell_whether_there_are_records():
    _, public = cases.new_identity()
    _, empty = cases.seal(records(0), samples=1000, recipients=[public])
    _, some = cases.seal(records(50), samples=1000, recipients=[public])
    assert empty == some


@given(st.integers(0, 20_000), st.integers(0, 50_000_000))
def test_the_padded_size_holds_the_payload_and_at_most_doubles_past_the_floor(samples, payload):
    size = cases.padded_size(samples, payload)
    assert size >= payload
    assert size == cases.padded_size(samples, 0) or size < 2 * (payload + 64)


@pytest.mark.parametrize("text", ["", "age1", "AGE-SECRET-KEY-1", "ssh-ed25519 AAAA"])
def test_a_recipient_that_is_no_age_key_is_named_by_its_position(text):
    _, public = cases.new_identity()
    with pytest.raises(cases.SealError, match=r"recipients\[1\]"):
        cases.check_recipients([public, text])


def test_sealing_to_nobody_is_refused():
    with pytest.raises(cases.SealError, match="no recipient"):
        cases.seal(records(0), samples=1, recipients=[])
