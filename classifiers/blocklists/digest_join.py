"""Which digests are in a sorted list, for lists of tens of millions and batches of thousands.

Owns the lookup and the plain form that it is held against. Leaves sorting to `entries`, and what a match means to
the matcher.

- Exact for any list and any query: buckets and first eight bytes only narrow down where whole rows are compared.
- The list is read where it lies, mapped file or not, and never copied; the starts take at most half a byte a row.
- Terminates after log2(rows) steps whatever the list holds; rows that share eight bytes are left to the plain form.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import Rows

Starts: TypeAlias = NDArray[np.uint32]
Found: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.int64]]

_KEY_BYTES, _KEY_BITS = 8, 64
_ROWS_A_BUCKET = 16  # and at least half of that; 16 rows of an MD5 are four cache lines
_ROWS_AT_ONCE = 1 << 20


def bucket_starts(rows: Rows) -> Starts:
    """Return where each bucket begins: the rows that share their first k bits, on average 8 to 16 of them.

    Args:
        rows: uint8 N x width, sorted as bytes, width at least 8, fewer than 2^32.

    Returns:
        2^k + 1 offsets, the last of them N.

    Raises:
        ValueError: the rows are not contiguous bytes, or too narrow.
    """
    _check(rows)
    bits = (len(rows) // _ROWS_A_BUCKET).bit_length()
    counts = np.zeros(1 << bits, np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        buckets = _buckets(_keys(rows[start : start + _ROWS_AT_ONCE]), bits)
        counts += np.bincount(buckets, minlength=len(counts))
    starts = np.zeros(len(counts) + 1, np.uint32)
    starts[1:] = counts.cumsum()
    return starts


def find_digests(rows: Rows, starts: Starts, queries: Rows) -> Found:
    """Say which digests are listed, and in which row.

    Args:
        rows: uint8 N x width, sorted as bytes, no two alike, width at least 8.
        starts: of these rows, from `bucket_starts`.
        queries: uint8 Q x width, in any order.

    Returns:
        bool Q: listed or not. int64 Q: the row that holds it, 0 where it is not listed.

    Raises:
        ValueError: widths differ, the rows are not contiguous bytes, or the starts are of another number of rows.
    """
    queries = np.ascontiguousarray(queries)
    _check(rows, queries)
    bits = max(len(starts) - 1, 1).bit_length() - 1
    if len(starts) != (1 << bits) + 1 or starts[0] != 0 or starts[-1] != len(rows):
        raise ValueError(f"starts: expected those of {len(rows)} rows; make them with bucket_starts")
    listed, places = np.zeros(len(queries), np.bool_), np.zeros(len(queries), np.int64)
    if not len(rows):
        return listed, places
    keys = _keys(queries)
    order = np.argsort(keys)  # neighbours in the batch are then neighbours in the list, which the caches like
    keys = keys[order]
    buckets = _buckets(keys, bits)
    low = _first_not_below(rows, keys, starts[buckets].astype(np.int64), starts[buckets + 1].astype(np.int64))
    candidates = np.flatnonzero(_keys(rows.take(low, axis=0, mode="clip")) == keys)
    low, order = low[candidates], order[candidates]
    equal = (rows[low] == queries[order]).all(axis=1)
    listed[order[equal]], places[order[equal]] = True, low[equal]
    tied = order[~equal]
    listed[tied], places[tied] = find_digests_plainly(rows, queries[tied])
    return listed, places


def make_sieve(rows: Rows) -> NDArray[np.uint8]:
    """Return 8 to 16 bits for each row, set where one has these leading bits: most queries then meet none."""
    keys = _keys(rows) >> np.uint64(_KEY_BITS - _sieve_bits(len(rows)))
    places = (keys >> np.uint64(3)).astype(np.int64)
    first = np.flatnonzero(np.diff(places, prepend=-1))
    sieve = np.zeros(1 << (_sieve_bits(len(rows)) - 3), np.uint8)
    sieve[places[first]] = np.bitwise_or.reduceat(np.uint8(1) << (keys & np.uint64(7)).astype(np.uint8), first)
    return sieve


def held_back(sieve: NDArray[np.uint8], queries: Rows) -> NDArray[np.int64]:
    """Return which queries (uint8 Q x width, contiguous) may be listed: all that are, and one in ten others."""
    keys = _keys(queries) >> np.uint64(_KEY_BITS - 3 - (len(sieve).bit_length() - 1))
    bits = sieve[(keys >> np.uint64(3)).astype(np.int64)] >> (keys & np.uint64(7)).astype(np.uint8)
    return np.flatnonzero(bits & np.uint8(1))


def find_digests_plainly(rows: Rows, queries: Rows) -> Found:
    """Return what `find_digests` does, by one binary search of the whole list: the obvious form."""
    queries = np.ascontiguousarray(queries)
    _check(rows, queries)
    if not len(rows):
        return np.zeros(len(queries), np.bool_), np.zeros(len(queries), np.int64)
    haystack, needles = (values.view(f"V{rows.shape[1]}")[:, 0] for values in (rows, queries))
    places = np.minimum(np.searchsorted(haystack, needles), len(haystack) - 1)
    listed = haystack[places] == needles
    return listed, np.where(listed, places, 0)


def _first_not_below(
    rows: Rows, keys: NDArray[np.uint64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the first row of each range whose key is not below the wanted one, the end of the range if none is."""
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        is_below = (_keys(rows.take(middle, axis=0, mode="clip")) < keys) & (low < high)
        low = np.where(is_below, middle + 1, low)
        high = np.where(is_below, high, middle)
    return low


def _keys(rows: Rows) -> NDArray[np.uint64]:
    """Return the first eight bytes of each row as numbers that sort as the bytes do."""
    return rows[:, :_KEY_BYTES].view(">u8")[:, 0].astype(np.uint64)


def _sieve_bits(rows: int) -> int:
    return min(max(rows.bit_length() + 3, 6), 32)


def _buckets(keys: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    # In two steps, since a shift by all 64 bits is not defined.
    return ((keys >> np.uint64(1)) >> np.uint64(_KEY_BITS - 1 - bits)).astype(np.int64)


def _check(rows: Rows, *others: Rows) -> None:
    for values in (rows, *others):
        is_bytes = values.ndim == 2 and values.dtype == np.uint8 and values.flags.c_contiguous
        if not is_bytes or values.shape[1] != rows.shape[1] or values.shape[1] < _KEY_BYTES:
            raise ValueError(
                f"expected contiguous uint8 N x {rows.shape[1:]}, at least {_KEY_BYTES} wide, "
                f"found {values.dtype} {values.shape}"
            )
