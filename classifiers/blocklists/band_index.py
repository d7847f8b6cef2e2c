"""The fast search for codes: exact, by the bands in which two near codes must nearly agree.

Cut two codes into bands: if they differ in few bits, some band differs in very few. So codes are held in buckets by
the value of each band, and a query looks into the buckets of the values near its own: multi-index hashing (Norouzi,
Punjani, Fleet: "Fast exact search in Hamming space with multi-index hashing", 2014).

Owns the layout of the index and the two ways to search: `search_index` over an index of all bands, for many small
questions, and `join_codes`, which sorts one band at a time, for millions of queries at once.

- Both give what `scan_codes` gives, for any codes, queries and radius; where looking into so many buckets would
  cost more than comparing with all codes, that is what they do.
- An index is arrays in memory that somebody else owns, the same for every process that maps it; nothing writes
  to it once it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists import band_kernels
from classifiers.blocklists.algorithms import BYTES_64, CODE_BYTES, Rows
from classifiers.blocklists.band_kernels import KEYS, Plan, Words
from classifiers.blocklists.code_scan import words_of
from classifiers.blocklists.hits import CodeHits, join_hits

_Word = TypeVar("_Word", np.uint32, np.uint64)

_HITS_AT_FIRST = 1 << 14
_QUERIES_AT_ONCE = 1 << 15  # of a thread
_PROBE_COST = 16  # what a look into a bucket costs, in codes compared
_SORT_COST = 32  # and bringing a code into the order of a band


def band_masks(width: int) -> Words:
    """Return which bits each band takes, uint64 bands x words, for codes of `width` bytes.

    Seen as rows of 16 bits, a code gives a band one bit of every column, from rows that lie as far apart as they
    can: bits that are neighbours agree more often than chance has it, and would crowd the codes into few buckets.
    """
    bands = width // 2
    masks = np.zeros((bands, width // 8), np.uint64)
    for band in range(bands):
        for column in range(16):
            row = (band + bands // 4 * column) % bands
            masks[band, row // 4] |= np.uint64(1) << np.uint64(row % 4 * 16 + column)
    return masks


_MASKS = {width: band_masks(width) for width in (CODE_BYTES, BYTES_64)}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class BandIndex:
    """Where the codes with each value of each band are: 16 bands of 16 bits for PDQ, 4 for codes of 64 bits.

    offsets: uint32 bands x 65537, where the bucket of each value begins. records: uint64 bands x 2 x N, in the
    order of the buckets: first words with the row of the code in the low half, the rest and the second words 96
    other bits of the code (all 64 of a short one). Each kind by itself, so that one instruction takes several.
    """

    offsets: NDArray[np.uint32]
    records: NDArray[np.uint64]


def index_shapes(count: int, width: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Return the shapes of the offsets (uint32) and records (uint64) of an index.

    Args:
        count: how many codes.
        width: bytes of a code, 32 or 8.

    Raises:
        ValueError: there is no index for such codes.
    """
    if width not in _MASKS or not 0 <= count < 1 << 32:
        raise ValueError(
            f"index: expected fewer than 2**32 codes of {list(_MASKS)} bytes, found {count} of {width}"
        )
    bands = len(_MASKS[width])
    return (bands, KEYS + 1), (bands, 2, count)


def build_index(
    codes: Rows, offsets: NDArray[np.uint32], records: NDArray[np.uint64], *, threads: int = 1
) -> BandIndex:
    """Fill the arrays of an index.

    Args:
        codes: uint8 N x width, 32 or 8, in any order.
        offsets: uint32, to be filled; of the shape that `index_shapes` gives, as are the records.
        records: uint64, to be filled.
        threads: how many bands to sort at a time.

    Raises:
        ValueError: the shapes disagree.
    """
    index = BandIndex(offsets, records)
    _check(index, codes)
    words, _ = words_of(codes, codes[:0], 0)
    masks = _MASKS[codes.shape[1]]

    def sort(band: int) -> None:
        band_kernels.sort_band(words, masks, band, offsets[band], records[band])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(sort, range(len(masks))))
    return index


def search_index(index: BandIndex, codes: Rows, queries: Rows, radius: int) -> CodeHits:
    """Return every pair that differs in at most `radius` bits, as `scan_codes` does, on one thread.

    Args:
        index: of these very codes.
        codes: uint8 N x width, 32 or 8.
        queries: uint8 Q x width; any number, the more at once the faster each.
        radius: in bits; a distance equal to it is within.

    Raises:
        ValueError: the shapes disagree or the radius is negative.
    """
    _check(index, codes)
    words, asked = words_of(codes, queries, radius)
    plan = _plan(codes.shape[1], radius)
    if _is_scan_cheaper(len(words), plan):
        return _scan(words, asked, radius, slice(None))
    order = np.empty((len(plan.masks), len(asked)), np.uint64)
    band_kernels.name_keys(asked, plan.masks, 0, order)
    order.sort(axis=1)  # neighbours in this order look into the same buckets, which stay in the cache
    offsets, records = _read_only(index.offsets), _read_only(index.records)
    return _grown(
        lambda pairs, bits: band_kernels.probe(plan, 0, offsets, records, words, asked, order, pairs, bits)
    )


def join_codes(codes: Rows, queries: Rows, radius: int, *, threads: int = 1) -> CodeHits:
    """Return what `scan_codes` does, for millions of queries, without an index.

    Takes 16 bytes a code and 8 a query beyond the arguments and the hits, or the other way round where there are
    more queries than codes: distance is symmetric, and looks into buckets cost more than what lies in them.

    Args:
        codes: uint8 N x width, 32 or 8, in any order.
        queries: uint8 Q x width.
        radius: in bits; a distance equal to it is within.
        threads: how many parts of the queries to search at a time.

    Raises:
        ValueError: the shapes disagree or the radius is negative.
    """
    index_shapes(len(codes), codes.shape[-1])
    words, asked = words_of(codes, queries, radius)
    if len(asked) > len(words):
        hits = _join(asked, words, radius, threads)
        return join_hits([CodeHits(hits.entry, hits.query, hits.distance)])
    return _join(words, asked, radius, threads)


def _join(words: Words, asked: Words, radius: int, threads: int) -> CodeHits:
    plan = _plan(words.shape[1] * 8, radius)
    parts = [slice(at, at + _QUERIES_AT_ONCE) for at in range(0, len(asked), _QUERIES_AT_ONCE)]
    with ThreadPoolExecutor(threads) as pool:
        if not parts or _is_scan_cheaper(len(words), plan, len(asked)):
            return join_hits(list(pool.map(lambda part: _scan(words, asked, radius, part), parts)))
        hits: list[CodeHits] = []
        for search in _bands(words, asked, plan):
            hits += [found for found in pool.map(search, parts) if len(found)]
    return join_hits(hits)


def _bands(words: Words, asked: Words, plan: Plan) -> Iterator[Callable[[slice], CodeHits]]:
    """Yield one search a band, to be done with before the next: they share their arrays."""
    offsets, records = np.empty((1, KEYS + 1), np.uint32), np.empty((1, 2, len(words)), np.uint64)
    order = np.empty((1, len(asked)), np.uint64)
    fixed = _read_only(offsets), _read_only(records)
    for band in np.flatnonzero(plan.probes).tolist():
        band_kernels.sort_band(words, plan.masks, band, offsets[0], records[0])
        band_kernels.name_keys(asked, plan.masks, band, order)
        order.sort(axis=1)

        def search(part: slice, band: int = band) -> CodeHits:
            some = order[:, part]
            return _grown(
                lambda pairs, bits: band_kernels.probe(plan, band, *fixed, words, asked, some, pairs, bits)
            )

        yield search


def _check(index: BandIndex, codes: Rows) -> None:
    expected = index_shapes(*codes.shape)
    found = index.offsets.shape, index.records.shape
    if found != expected or index.offsets.dtype != np.uint32 or index.records.dtype != np.uint64:
        raise ValueError(f"index of codes {codes.shape}: expected uint32 and uint64 of {expected}, found {found}")


@cache
def _plan(width: int, radius: int) -> Plan:
    """Say how many flips each band needs.

    If band b differs in more than flips[b] bits for every b, a pair differs in at least the sum of (flips[b] + 1),
    which is radius + 1: so every pair within the radius shows in some band.
    """
    masks = _MASKS[width]
    bands = len(masks)
    flips = (radius + bands - np.arange(bands)) // bands - 1
    bits = np.bitwise_count(np.arange(KEYS, dtype=np.uint64))
    patterns = np.argsort(bits, kind="stable").astype(np.uint64)
    probes = np.cumsum(np.bincount(bits))
    return Plan(masks, flips, np.where(flips < 0, 0, probes[np.minimum(flips, 16)]), patterns, radius)


def _is_scan_cheaper(count: int, plan: Plan, sharing: int | None = None) -> bool:
    """Compare what a query would meet in its buckets, and its looks into them, with all codes.

    `sharing`: how many queries the bands are sorted for, where there is no index.
    """
    sorting = count * np.count_nonzero(plan.probes) * _SORT_COST / sharing if sharing else 0
    return int(plan.probes.sum()) * (_PROBE_COST + count / KEYS) + sorting >= count


def _scan(words: Words, asked: Words, radius: int, part: slice) -> CodeHits:
    hits = _grown(lambda pairs, bits: band_kernels.scan(words, asked[part], radius, pairs, bits))
    return CodeHits(hits.query + (part.start or 0), hits.entry, hits.distance)


def _grown(run: Callable[[NDArray[np.uint32], NDArray[np.int16]], int]) -> CodeHits:
    """Run a kernel with room for few hits and, where there are more, again with room for just as many."""
    room = _HITS_AT_FIRST
    while True:
        pairs, bits = np.empty((room, 2), np.uint32), np.empty(room, np.int16)
        count = run(pairs, bits)
        if count <= room:
            query, entry = pairs[:count].T.astype(np.int64)
            return join_hits([CodeHits(query, entry, bits[:count])])
        room = count


def _read_only(array: NDArray[_Word]) -> NDArray[_Word]:
    """Return a view that cannot be written: numba compiles for each kind apart, so all callers show the same."""
    view = array.view()
    view.flags.writeable = False
    return view
