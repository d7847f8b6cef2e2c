from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.blocklists import digest_join
from classifiers.blocklists.digest_join import bucket_starts, find_digests, find_digests_plainly

WIDTHS = [16, 20, 32]


def random_rows(count, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


def as_list(rows):
    return np.unique(rows, axis=0)


def by_dictionary(rows, queries):
    places = {row.tobytes(): place for place, row in enumerate(rows)}
    found = [places.get(row.tobytes()) for row in queries]
    return [place is not None for place in found], [place or 0 for place in found]


def assert_found_as_in_a_dictionary(rows, queries):
    expected = by_dictionary(rows, queries)
    for listed, places in (
        find_digests(rows, bucket_starts(rows), queries),
        find_digests_plainly(rows, queries),
    ):
        assert (listed.dtype, places.dtype) == (np.bool_, np.int64)
        assert (listed.tolist(), places.tolist()) == expected


def neighbours(rows):
    """Rows of the list, and each of them with one bit changed."""
    changed = np.repeat(rows, rows.shape[1] * 8, axis=0)
    bits = np.tile(np.packbits(np.eye(rows.shape[1] * 8, dtype=np.uint8), axis=1), (len(rows), 1))
    return np.concatenate((rows, changed ^ bits))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 5000, 70000])
def test_what_is_listed_is_found_in_its_row_and_one_bit_off_is_not(width, count):
    rows = as_list(random_rows(count, width))
    chosen = rows[[0, -1, count // 2, count // 3]]
    assert_found_as_in_a_dictionary(rows, np.concatenate((neighbours(chosen), random_rows(500, width, seed=1))))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_is_found_in_a_batch_of_any_order(width):
    rows = as_list(random_rows(3000, width))
    order = np.random.default_rng(2).permutation(len(rows))
    listed, places = find_digests(rows, bucket_starts(rows), rows[order])
    assert listed.all()
    np.testing.assert_array_equal(places, order)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shared", [1, 7, 8, 9, 15])
def test_rows_that_share_their_first_bytes_are_told_apart(width, shared):
    rows = random_rows(2000, width)
    rows[:, :shared] = rows[0, :shared]
    rows = as_list(rows)
    others = random_rows(500, width, seed=3)
    others[:, :shared] = rows[0, :shared]
    assert_found_as_in_a_dictionary(rows, np.concatenate((neighbours(rows[[0, 70, -1]]), others, rows)))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_least_and_the_greatest_digest_can_be_listed_or_not(width):
    ends = np.stack([np.full(width, value, np.uint8) for value in (0, 255)])
    for rows in (ends, ends[:1], ends[1:], as_list(random_rows(100, width))):
        assert_found_as_in_a_dictionary(rows, neighbours(ends))


@pytest.mark.parametrize("width", WIDTHS)
def test_an_empty_list_lists_nothing_and_an_empty_batch_finds_nothing(width):
    assert_found_as_in_a_dictionary(random_rows(0, width), random_rows(5, width))
    assert_found_as_in_a_dictionary(as_list(random_rows(50, width)), random_rows(0, width))
    assert_found_as_in_a_dictionary(random_rows(0, width), random_rows(0, width))


@st.composite
def lists_and_queries(draw):
    """Rows of few values, so that they share beginnings of any length."""
    width = draw(st.sampled_from(WIDTHS))
    seed, values, shared = draw(st.integers(0, 2**32)), draw(st.integers(2, 256)), draw(st.integers(0, width - 1))
    random = np.random.default_rng(seed)
    rows = random.integers(0, values, (draw(st.integers(0, 300)), width), dtype=np.uint8)
    rows[:, :shared] = random.integers(0, 2, (len(rows), 1)) * 255
    rows = as_list(rows)
    parts = [random.integers(0, values, (draw(st.integers(0, 40)), width), dtype=np.uint8)]
    if len(rows):
        parts += [rows[random.integers(0, len(rows), 40)], rows[[0, -1]], neighbours(rows[[0, -1]])]
    queries = np.concatenate(parts)
    return rows, queries[random.permutation(len(queries))]


@given(lists_and_queries())
def test_the_lookup_agrees_with_a_dictionary(case):
    assert_found_as_in_a_dictionary(*case)


def test_the_starts_hold_all_rows_of_their_bucket(monkeypatch):
    monkeypatch.setattr(digest_join, "_ROWS_AT_ONCE", 1000)
    rows = as_list(random_rows(40000, 16))
    starts = bucket_starts(rows)
    bits = (len(starts) - 1).bit_length() - 1
    first = np.ascontiguousarray(rows[:, :4]).view(">u4")[:, 0] >> (32 - bits)
    assert (starts[0], starts[-1], len(starts)) == (0, len(rows), 2**bits + 1)
    np.testing.assert_array_equal(first, np.repeat(np.arange(2**bits), np.diff(starts)))


@pytest.mark.parametrize("count", [2**18 - 1, 2**18])
def test_neither_the_starts_nor_a_lookup_take_memory_as_the_list_does(count):
    rows = random_rows(count, 16)
    rows = rows[np.argsort(rows.view(">u8")[:, 0])]  # no two share eight bytes, given this seed
    starts = bucket_starts(rows)
    assert starts.nbytes < rows.nbytes / 30
    tracemalloc.start()
    find_digests(rows, starts, rows[::1000])
    find_digests_plainly(rows, rows[::1000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.nbytes / 20


def test_a_list_in_a_file_that_cannot_be_written_to_is_searched_where_it_lies(tmp_path):
    np.save(tmp_path / "rows.npy", as_list(random_rows(1000, 20)))
    assert_found_as_in_a_dictionary(np.load(tmp_path / "rows.npy", mmap_mode="r"), neighbours(random_rows(3, 20)))


def test_queries_need_not_lie_together():
    rows = as_list(random_rows(1000, 16))
    assert_found_as_in_a_dictionary(rows, np.concatenate((rows, rows), axis=1)[::-7, :16])


def test_starts_of_other_rows_are_refused():
    rows = as_list(random_rows(1000, 16))
    for starts in (bucket_starts(rows[:-1]), bucket_starts(rows)[:-1], bucket_starts(rows)[:0]):
        with pytest.raises(ValueError, match="starts: expected those of 1000 rows"):
            find_digests(rows, starts, rows)


@pytest.mark.parametrize(
    "rows",
    [random_rows(9, 16)[:, 0], random_rows(9, 20), random_rows(9, 32)[:, :16], random_rows(9, 16).view(np.int8)],
)
def test_rows_of_another_width_or_that_a_search_would_have_to_copy_are_refused(rows):
    queries, starts = random_rows(2, 16), bucket_starts(as_list(random_rows(9, 16)))
    with pytest.raises(ValueError, match="expected contiguous uint8"):
        find_digests(rows, starts, queries)
    with pytest.raises(ValueError, match="expected contiguous uint8"):
        find_digests_plainly(rows, queries)


def test_rows_of_fewer_than_eight_bytes_have_no_buckets():
    with pytest.raises(ValueError, match="at least 8 wide"):
        bucket_starts(random_rows(9, 7))
