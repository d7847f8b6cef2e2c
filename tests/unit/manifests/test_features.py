"""Features: columns in memory and a table on disk are the same thing, and withholding leaves an identity."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_features import PDQ, Row, key_of, make_features

from manifests import schema
from manifests.features import decode_features, encode_features, faulted_samples, replace_samples, withhold
from manifests.records import FaultKind

SCORES = ("a@1", "b@2")
LAW = settings(max_examples=80, deadline=None)
FAULTS = st.sampled_from([None, None, None, FaultKind.TRUNCATED, FaultKind.NO_SCORE])


@st.composite
def row_lists(draw, *, withheld: bool = True, least: int = 0) -> list[Row]:
    rows: list[Row] = []
    for index in range(draw(st.integers(least, 7))):
        if withheld and draw(st.integers(0, 5)) == 0:
            rows.append(Row(index, withheld=True))
            continue
        sample_fault = draw(FAULTS)
        for _ in range(draw(st.integers(1, 3))):
            rows.append(
                Row(
                    index,
                    content=draw(st.none() | st.binary(max_size=3)),
                    member=draw(st.none() | st.text(max_size=4)),
                    sample_fault=sample_fault,
                    fault=draw(FAULTS),
                    code=draw(st.none() | st.binary(min_size=32, max_size=32)),
                    usable=draw(st.booleans()),
                    scores={name: draw(st.floats(0, 1, width=32) | st.just(float("nan"))) for name in SCORES},
                )
            )
    return rows


def encoded(rows: list[Row], dims: int = 4) -> pa.Table:
    return encode_features(make_features(rows, scores=SCORES, dims=dims))


@LAW
@given(row_lists(), st.sampled_from([0, 4]))
def test_encoding_and_decoding_give_back_the_same(rows, dims):
    made = make_features(rows, scores=SCORES, dims=dims)
    table = encode_features(made)
    back = decode_features(schema.decode(schema.encode(table), source="memory"))
    assert back.columns == made.columns
    assert back.table.to_pydict() == made.table.to_pydict()
    np.testing.assert_array_equal(back.digested, made.digested)
    for name, values in made.digests.items():
        np.testing.assert_array_equal(back.digests[name][made.digested], values[made.digested])
    one, two = made.hashes[PDQ], back.hashes[PDQ]
    np.testing.assert_array_equal(one.hashable, two.hashable)
    for field in ("codes", "quality", "usable"):
        known = one.hashable
        np.testing.assert_array_equal(getattr(one, field)[known], getattr(two, field)[known])
    np.testing.assert_array_equal(back.embedded, made.embedded)
    np.testing.assert_array_equal(back.embedding, made.embedding)
    for name, values in made.scores.items():
        np.testing.assert_array_equal(back.scores[name], values)
    assert encode_features(back).equals(table)
    assert schema.encode(encode_features(back)) == schema.encode(table)


@LAW
@given(row_lists(), st.data())
def test_withholding_splits_the_rows_and_leaves_identities(rows, data):
    table = encoded(rows)
    shown = sorted({row.index for row in rows if not row.withheld})
    hidden = data.draw(st.sets(st.sampled_from(shown))) if shown else set()
    clear, sealed = withhold(table, np.array(sorted(hidden), np.int32))
    assert list(decode_features(clear).identities()) == list(decode_features(table).identities())
    inside = pa.array([row.index in hidden for row in rows], pa.bool_())
    assert sealed.equals(table.filter(inside))
    rest = clear.filter(pa.array([index not in hidden for index in clear["index"].to_pylist()], pa.bool_()))
    assert rest.equals(table.filter(pa.compute.invert(inside)))
    blank = [row for row in clear.to_pylist() if row["index"] in hidden]
    assert len(blank) == len(hidden)
    for row in blank:
        left = {name: value for name, value in row.items() if value is not None}
        assert left == {"shard": "s", "index": row["index"], "key": key_of(row["index"]), "withheld": True}
    assert clear.schema.equals(table.schema)


@LAW
@given(row_lists(withheld=False, least=1), st.data())
def test_replacing_samples_takes_their_rows_and_no_other(rows, data):
    indices = sorted({row.index for row in rows})
    some = data.draw(st.sets(st.sampled_from(indices)))
    fresh_rows = [
        Row(index, content=b"fresh", code=bytes(32), scores=dict.fromkeys(SCORES, 0.5)) for index in indices
    ]
    stored, fresh = (make_features(each, scores=SCORES) for each in (rows, fresh_rows))
    mixed = encode_features(replace_samples(stored, fresh, np.array(sorted(some), np.int32)))
    assert mixed["index"].to_pylist() == sorted(mixed["index"].to_pylist())
    for source, wanted in ((encode_features(stored), set(indices) - some), (encode_features(fresh), some)):
        mine, theirs = (
            table.filter(pa.array([index in wanted for index in table["index"].to_pylist()], pa.bool_()))
            for table in (mixed, source)
        )
        assert mine.equals(theirs)


@LAW
@given(row_lists())
def test_the_faulted_samples_are_those_with_a_fault_and_withheld_ones_show_none(rows):
    expected: dict[int, str] = {}
    for row in rows:
        if not row.withheld and (row.sample_fault or row.fault):
            expected.setdefault(row.index, row.sample_fault or row.fault)
    assert faulted_samples(encoded(rows)) == expected


def test_nothing_that_could_not_be_said_is_a_number_on_disk():
    rows = [Row(0, content=None, code=None), Row(1, scores={"a@1": 0.25})]
    silent, spoken = encoded(rows).to_pylist()
    unknown = {"md5", "sha1", "sha256", PDQ, f"{PDQ}.quality", f"{PDQ}.usable", "embedding"}
    assert {name for name in unknown if silent[name] is not None} == set()
    assert (silent["score.a@1"], silent["score.b@2"], spoken["score.a@1"]) == (None, None, 0.25)
    assert {name for name in unknown if spoken[name] is None} == set()


@pytest.mark.parametrize("withheld", [[], [0], [0, 1, 2]])
def test_a_shard_may_be_empty_or_withheld_whole(withheld):
    table = encoded([Row(index) for index in withheld])
    clear, sealed = withhold(table, np.array(withheld, np.int32))
    assert (clear.num_rows, sealed.num_rows) == (len(withheld), len(withheld))
    back = decode_features(schema.decode(schema.encode(clear), source="memory"))
    assert back.withheld().tolist() == [True] * len(withheld)
    assert not back.digested.any()
    assert not back.embedded.any()


def test_the_bytes_of_a_table_do_not_depend_on_how_it_was_put_together():
    rows = [Row(index, scores={"a@1": index / 8}) for index in range(6)]
    whole = encoded(rows)
    pieces = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 1), whole.slice(3)])
    assert schema.encode(pieces.combine_chunks()) == schema.encode(whole)
