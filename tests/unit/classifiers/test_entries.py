"""An import summed up: sorted rows, categories as bits, a fate for every record, and what no list may hold."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.blocklists.algorithms import CODE_WIDTHS, WIDTHS, ListError
from classifiers.blocklists.checks import (
    EQUAL_BITS,
    LOW_WEIGHT,
    OF_NO_BYTES,
    QUALITY_ZERO,
    WRONG_WIDTH,
    unusable,
)
from classifiers.blocklists.entries import (
    MAX_CATEGORIES,
    NO_CATEGORY,
    PLACES_SHOWN,
    Batch,
    Entries,
    Note,
    collect,
    sort_rows,
)

RANDOM = np.random.default_rng(3)


def rows_of(values, width=16):
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, width)


# Few letters in few places, so that values repeat, share eight bytes and more, and hold zero bytes at either end.
@st.composite
def values_with_ties(draw):
    width = draw(st.sampled_from([8, 9, 16, 20, 32]))
    heads = draw(st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=3))
    tails = draw(st.lists(st.binary(min_size=width - 8, max_size=width - 8), min_size=1, max_size=4))
    value = st.builds(lambda head, tail: head + tail, st.sampled_from(heads), st.sampled_from(tails))
    found = draw(st.lists(value | st.binary(min_size=width, max_size=width), max_size=40))
    return width, found, draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(found), max_size=len(found)))


def assert_sorted_like_a_set(width, values, masks):
    union = {}
    for value, mask in zip(values, masks, strict=True):
        union[value] = union.get(value, 0) | mask
    before = rows_of(values, width).copy()
    found, mask = sort_rows(before, np.array(masks, np.uint64))
    assert [row.tobytes() for row in found] == sorted(set(values))
    assert mask.tolist() == [union[value] for value in sorted(union)]
    assert (found.dtype, mask.dtype) == (np.uint8, np.uint64)
    np.testing.assert_array_equal(before, rows_of(values, width))


@settings(max_examples=300, deadline=None)
@given(values_with_ties())
def test_rows_come_out_as_a_sorted_set_with_the_masks_of_equal_ones_united(case):
    assert_sorted_like_a_set(*case)


@pytest.mark.parametrize("width", [8, 16, 20, 32])
@pytest.mark.parametrize("shared", [0, 7, 8])
def test_thousands_of_rows_that_share_their_first_bytes_are_sorted_by_all_of_them(width, shared):
    values = RANDOM.integers(0, 3, (3000, width)).astype(np.uint8)
    values[:2000, :shared] = 1
    values = [row.tobytes() for row in np.concatenate([values, values[::-1][:500]])]
    assert_sorted_like_a_set(width, values, RANDOM.integers(0, 2**63, len(values)).tolist())


@pytest.mark.parametrize("first", [0x00, 0x7F, 0x80, 0xFF])
def test_the_first_bytes_sort_as_bytes_and_not_as_signed_or_little_endian_numbers(first):
    values = [bytes([first, *tail]) + bytes(14) for tail in ([0], [1], [0x80], [0xFF])]
    values += [bytes([first ^ 0x80]) + bytes(15), bytes(15) + b"\x01"]
    assert_sorted_like_a_set(16, values, list(range(len(values))))


def entries(algorithm, values, records, category=NO_CATEGORY):
    return Entries(algorithm, rows_of(values, len(values[0])), np.array(records, np.int64), category)


def batch(*blocks, notes=(), records=None, file="a.csv"):
    found = {int(number) for block in blocks for number in block.records} | {note.record for note in notes}
    return Batch(file, np.array(sorted(found) if records is None else records, np.int64), blocks, tuple(notes))


MD5 = [hashlib.md5(bytes([n])).digest() for n in range(20)]


def test_the_sum_does_not_depend_on_the_order_of_the_input():
    parts = [
        batch(entries("md5", MD5[0:4], [1, 2, 3, 4], "B"), entries("md5", MD5[2:6], [5, 6, 7, 8], "A")),
        batch(entries("md5", MD5[4:8], [1, 2, 3, 4], "0"), file="b.csv"),
        batch(entries("sha1", [bytes(range(20))], [1], "B"), file="c.csv"),
    ]
    sums = [collect(order) for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]])]
    for found in sums:
        assert found.categories == ("0", "A", "B")
        assert [row.tobytes() for row in found.rows["md5"]] == sorted(MD5[:8])
        bits = {row.tobytes(): int(mask) for row, mask in zip(found.rows["md5"], found.masks["md5"], strict=True)}
        assert [bits[value] for value in MD5[:8]] == [4, 4, 6, 6, 3, 3, 1, 1]
        assert (found.records, found.taken, found.duplicates) == (13, 13, 4)
        assert list(found.rows) == ["md5", "sha1"]


def test_records_are_those_taken_and_those_with_another_fate():
    bad, good = bytes(16), MD5[0]
    found = collect(
        [
            batch(
                entries("md5", [good, bad, bad], [1, 1, 2]),
                entries("sha1", [bytes(range(20))], [3]),
                notes=[
                    Note("skipped", "a video", 3),
                    Note("skipped", "a video", 4),
                    Note("withdrawn", "taken back", 5),
                    Note("skipped", "a video", 5),
                ],
            )
        ]
    )
    assert (found.records, found.taken) == (5, 2)
    assert found.fates == {"rejected": 1, "skipped": 1, "withdrawn": 1}
    assert found.records == found.taken + sum(found.fates.values())
    assert found.reasons == {f"rejected: {EQUAL_BITS}": 2, "skipped: a video": 3, "withdrawn: taken back": 1}
    assert found.places["skipped: a video"] == ("a.csv:3", "a.csv:4", "a.csv:5")


def test_only_the_first_places_of_a_reason_are_kept():
    notes = [Note("skipped", "a video", number) for number in range(1, 50)]
    found = collect([batch(notes=notes)])
    assert found.places["skipped: a video"] == tuple(f"a.csv:{number}" for number in range(1, PLACES_SHOWN + 1))
    assert found.reasons == {"skipped: a video": 49}
    assert (found.rows, found.categories) == ({}, ())


def test_nothing_is_the_sum_of_nothing():
    found = collect([])
    assert (found.rows, found.records, found.taken, found.fates, found.duplicates) == ({}, 0, 0, {}, 0)


def test_a_record_without_a_fate_is_a_mistake_of_the_importer():
    with pytest.raises(AssertionError, match=r"a\.csv: record \[2\] has no entry and no note"):
        collect([batch(entries("md5", MD5[:1], [1]), records=[1, 2])])
    with pytest.raises(AssertionError):
        collect([batch(entries("md5", MD5[:2], [1, 2]), records=[1])])


def test_there_are_as_many_categories_as_a_mask_has_bits():
    most = [batch(entries("md5", [MD5[0]], [n + 1], f"secret {n:02d}")) for n in range(MAX_CATEGORIES)]
    found = collect(most)
    assert found.masks["md5"].tolist() == [2**64 - 1]
    assert found.categories == tuple(f"secret {n:02d}" for n in range(MAX_CATEGORIES))
    with pytest.raises(ListError, match="at most 64 categories") as caught:
        collect([*most, batch(entries("md5", [MD5[1]], [1], "secret 64"))])
    assert "secret" not in str(caught.value)


def test_a_category_of_rejected_values_alone_is_none():
    found = collect([batch(entries("md5", [bytes(16)], [1], "empty"), entries("md5", [MD5[0]], [2], "full"))])
    assert (found.categories, found.fates) == (("full",), {"rejected": 1})


@pytest.mark.parametrize("algorithm", sorted(WIDTHS))
def test_values_of_equal_bits_or_another_width_are_unusable(algorithm):
    width = WIDTHS[algorithm]
    values = np.stack([np.full(width, 0, np.uint8), np.tile(np.uint8([0x5A, 0xC3]), width // 2)])
    values = np.concatenate([values, np.full((1, width), 255, np.uint8)])
    assert {reason: rows.tolist() for reason, rows in unusable(algorithm, values).items()} == {EQUAL_BITS: [0, 2]}
    wrong = unusable(algorithm, np.zeros((3, width + 1), np.uint8))
    assert {reason: rows.tolist() for reason, rows in wrong.items()} == {WRONG_WIDTH: [0, 1, 2]}
    assert unusable(algorithm, np.zeros((0, width + 1), np.uint8)) == {}
    assert unusable(algorithm, np.zeros((0, width), np.uint8)) == {}


@pytest.mark.parametrize("algorithm", sorted(WIDTHS.keys() - CODE_WIDTHS.keys()))
def test_the_digest_of_no_bytes_would_match_every_empty_file(algorithm):
    name = {"url_md5": "md5", "md5": "md5", "sha1": "sha1"}.get(algorithm, "sha256")
    digests = [hashlib.new(name, data).digest()[: WIDTHS[algorithm]] for data in (b"a", b"")]
    values = rows_of(digests, WIDTHS[algorithm])
    assert {reason: rows.tolist() for reason, rows in unusable(algorithm, values).items()} == {OF_NO_BYTES: [1]}


@pytest.mark.parametrize("algorithm", sorted(CODE_WIDTHS))
def test_a_code_has_a_quarter_to_three_quarters_of_its_bits_set(algorithm):
    bits = 8 * CODE_WIDTHS[algorithm]
    weights = [1, bits // 4 - 1, bits // 4, bits // 2, bits - bits // 4, bits - bits // 4 + 1, bits - 1]
    codes = np.zeros((len(weights), bits), np.uint8)
    for row, weight in enumerate(weights):
        codes[row, np.random.default_rng(row).choice(bits, weight, replace=False)] = 1
    found = unusable(algorithm, np.packbits(codes, axis=1))
    assert {reason: rows.tolist() for reason, rows in found.items()} == {LOW_WEIGHT: [0, 1, 5, 6]}


def test_the_staircase_of_a_picture_without_detail_is_unusable_as_pdq_alone():
    steps = bytes.fromhex("0001 0003 000f 001f 003f 007f 00ff 01ff 03ff 07ff 0fff 1fff 3fff 7fff ffff 0000")
    near = bytes([*steps[:-1], 0b10])
    found = unusable("pdq", rows_of([steps, near], 32))
    assert {reason: rows.tolist() for reason, rows in found.items()} == {QUALITY_ZERO: [0]}
    assert unusable("sha256", rows_of([steps, near], 32)) == {}


def test_an_algorithm_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match="found an unknown algorithm") as caught:
        unusable("photodna", np.zeros((1, 144), np.uint8))
    assert "photodna" not in str(caught.value)


def test_no_repr_shows_an_entry():
    block = entries("md5", MD5[:2], [1, 2], "secret")
    shown = (
        repr(block) + repr(batch(block)) + repr(collect([batch(block)])) + repr(replace(block, category="secret"))
    )
    assert "secret" not in shown
    assert not any(value.hex() in shown or str(list(value))[1:-1] in shown for value in MD5)
