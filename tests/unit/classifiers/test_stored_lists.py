"""The file of a stored list: what is written comes back, and what was changed is refused."""

from __future__ import annotations

import contextlib
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from classifiers.blocklists.algorithms import WIDTHS, ListError
from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.entries import sort_rows
from classifiers.blocklists.stored import EFFECTS, StoredList, decode_list, encode_list, set_digest, strictest

EFFECT_OF_ALL = {"A1": "case", "B": "remove", "0": "ignore"}


def make(rows: dict[str, np.ndarray], *, categories=("A1",), effects=None, canaries=(), masks=None) -> StoredList:
    """A list of `rows`, sorted here; every entry in the first category unless masks are given."""
    made = {name: sort_rows(values, np.ones(len(values), np.uint64)) for name, values in rows.items()}
    return StoredList(
        {name: values for name, (values, _) in made.items()},
        masks or {name: mask for name, (_, mask) in made.items()},
        tuple(categories),
        effects or dict.fromkeys(categories, "case"),
        tuple(canaries),
    )


def random_list(seed: int = 3, count: int = 40) -> StoredList:
    random = np.random.default_rng(seed)
    rows = {name: random.integers(0, 256, (count, width), np.uint8) for name, width in WIDTHS.items()}
    return make(rows, canaries=[Canary(random.bytes(100), "pdq", random.bytes(32), 31)])


@st.composite
def stored_lists(draw: st.DrawFn) -> StoredList:
    count = draw(st.integers(1, 64))
    categories = tuple(f"category {number}" for number in range(count))
    effects = {name: draw(st.sampled_from(EFFECTS)) for name in categories} | {categories[0]: "remove"}
    rows, masks = {}, {}
    for name in draw(st.sets(st.sampled_from(sorted(WIDTHS)), min_size=1, max_size=3)):
        size = draw(st.integers(1, 30))
        values = draw(hnp.arrays(np.uint8, (size, WIDTHS[name]), elements=st.integers(0, 3)))
        mask = draw(hnp.arrays(np.uint64, size, elements=st.integers(0, 2**count - 1))) | np.uint64(1)
        rows[name], masks[name] = sort_rows(values, mask)
    canary = st.builds(
        Canary, st.binary(max_size=70), st.just("md5"), st.binary(min_size=16, max_size=16), st.just(0)
    )
    return StoredList(rows, masks, categories, effects, tuple(draw(st.lists(canary, max_size=3))))


@settings(max_examples=100, deadline=None)
@given(stored_lists())
def test_what_is_written_comes_back(stored: StoredList) -> None:
    data = encode_list(stored)
    found = decode_list(data)
    assert (found.categories, dict(found.effects)) == (stored.categories, dict(stored.effects))
    assert found.canaries == stored.canaries
    assert set(found.rows) == set(stored.rows)
    for name, rows in stored.rows.items():
        assert (found.rows[name] == rows).all()
        assert (found.masks[name] == stored.masks[name]).all()
        assert not found.rows[name].flags.writeable
        assert not found.masks[name].flags.writeable
    assert encode_list(found) == data


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_near_duplicates_survive(count: int) -> None:
    """Codes that differ from a stored one in as many bits, in any byte of it."""
    random = np.random.default_rng(count)
    base = random.integers(0, 256, (50, 32), np.uint8)
    near = np.unpackbits(base, axis=1)
    for row in near:
        row[random.choice(256, count, replace=False)] ^= 1
    rows = {"pdq": np.concatenate([base, np.packbits(near, axis=1)])}
    found = decode_list(encode_list(make(rows)))
    assert {bytes(row) for row in found.rows["pdq"]} == {bytes(row) for row in rows["pdq"]}


def test_no_mutation_is_taken_for_another_list() -> None:
    random = np.random.default_rng(11)
    data = encode_list(random_list())
    for _ in range(300):
        changed = bytearray(data)
        kind, place = random.integers(0, 4), int(random.integers(0, len(data)))
        if kind == 0:
            changed[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = random.bytes(int(random.integers(1, 70)))
        else:
            del changed[place : place + int(random.integers(1, 70))]
        with contextlib.suppress(ListError):
            assert encode_list(decode_list(bytes(changed))) == data


def test_a_file_with_a_right_digest_over_wrong_bytes_is_a_list_error_or_a_sound_list() -> None:
    random = np.random.default_rng(12)
    data = encode_list(random_list(count=3))
    end = 26 + struct.unpack(">Q", data[18:26])[0]
    sound = 0
    for _ in range(600):
        changed = bytearray(data[:-32])
        changed[int(random.integers(18, end + 64))] = int(random.integers(0, 256))
        try:
            found = decode_list(bytes(changed) + hashlib.sha256(changed).digest())
        except ListError:
            continue
        assert decode_list(encode_list(found)).canaries == found.canaries
        sound += 1
    assert sound < 600


def test_masks_take_as_few_bytes_as_the_categories_need() -> None:
    rows = {"md5": np.random.default_rng(1).integers(0, 256, (6400, 16), np.uint8)}
    sizes = [len(encode_list(make(rows, categories=[str(n) for n in range(count)]))) for count in (8, 16, 32, 64)]
    assert [round((size - sizes[0]) / 6400) for size in sizes] == [0, 1, 3, 7]


def test_the_set_digest_is_of_names_counts_and_sorted_entries() -> None:
    stored = random_list()
    expected = hashlib.sha256()
    for name in sorted(WIDTHS):
        entries = sorted(bytes(row) for row in stored.rows[name])
        expected.update(name.encode() + b"\0" + struct.pack(">Q", len(entries)) + b"".join(entries))
    assert set_digest(stored.rows) == expected.hexdigest()
    assert set_digest(stored.rows | {"md5": stored.rows["md5"][:0]}) != expected.hexdigest()


def test_an_entry_in_several_categories_has_the_strictest_effect() -> None:
    masks = np.array([0b001, 0b010, 0b100, 0b110, 0b111, 0b101], np.uint64)
    found = strictest(masks, ("A1", "B", "0"), EFFECT_OF_ALL)
    assert [EFFECTS[place] for place in found] == ["case", "remove", "ignore", "remove", "case", "case"]


ROWS = {"md5": np.arange(64, dtype=np.uint8).reshape(4, 16)}
ONES = {"md5": np.ones(4, np.uint64)}


@pytest.mark.parametrize(
    "broken",
    [
        StoredList({}, {}, ("A1",), {"A1": "case"}, ()),
        StoredList(ROWS, {}, ("A1",), {"A1": "case"}, ()),
        StoredList(ROWS, ONES, ("A1",), {}, ()),
        StoredList(ROWS, ONES, ("A1", "A1"), {"A1": "case"}, ()),
        StoredList(ROWS, ONES, ("A1",), {"A1": "ignore"}, ()),
        StoredList(ROWS, {"md5": ONES["md5"] * np.uint64(2)}, ("A1",), {"A1": "case"}, ()),
        StoredList({"md5": ROWS["md5"][::-1]}, ONES, ("A1",), {"A1": "case"}, ()),
        StoredList({"md5": ROWS["md5"][[0, 1, 1, 2]]}, ONES, ("A1",), {"A1": "case"}, ()),
        StoredList({"sha1": ROWS["md5"]}, {"sha1": ONES["md5"]}, ("A1",), {"A1": "case"}, ()),
        StoredList(ROWS, ONES, ("A1",), {"A1": "case"}, (Canary(b"", "md5", b"short", 0),)),
        StoredList(ROWS, ONES, tuple(map(str, range(65))), dict.fromkeys(map(str, range(65)), "case"), ()),
    ],
    ids=range(11),
)
def test_a_list_that_breaks_a_rule_is_not_written(broken: StoredList) -> None:
    with pytest.raises(ListError):
        encode_list(broken)


def test_rows_that_share_their_first_bytes_must_be_sorted_too() -> None:
    rows = np.zeros((2, 16), np.uint8)
    rows[:, 15] = (2, 1)
    masks = {"md5": np.ones(2, np.uint64)}
    with pytest.raises(ListError, match="sorted"):
        encode_list(StoredList({"md5": rows}, masks, ("A1",), {"A1": "case"}, ()))
    encode_list(StoredList({"md5": rows[::-1]}, masks, ("A1",), {"A1": "case"}, ()))


def test_no_repr_and_no_error_holds_an_entry() -> None:
    stored = random_list()
    shown = repr(stored) + repr(stored.canaries)
    assert not any(bytes(row).hex() in shown for rows in stored.rows.values() for row in rows)
    assert "pdq=40" in shown
