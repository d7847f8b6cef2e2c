"""Matching rows of digests and codes with one list: which entries each row hits. Exact by construction.

Owns what "listed" means and which search answers. Leaves the searches to `digest_join`, `code_scan`, `band_index`
and `torch_search`, and what a hit leads to, to the policy.

- A distance is reported only within the radius of its list; equal to the radius is within.
- Every search gives the same hits; which one is used depends on what is at hand and how much there is to do.
- Canaries are hit like any entry; whoever asks tells them by their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import Rows
from classifiers.blocklists.code_scan import scan_codes
from classifiers.blocklists.digest_join import find_digests, held_back
from classifiers.blocklists.hits import CodeHits
from classifiers.blocklists.lists import HashList, ListColumn

# Below this many codes comparing with all of them is as fast as an index, and needs no compiled code.
INDEX_FROM_CODES = 4096

# A search of the codes in a column, within a radius.
CodeSearch: TypeAlias = Callable[[ListColumn, Rows, int], CodeHits]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EntryHits:
    """Rows that hit entries, ascending by row and then by place.

    row: int64 H. number: int32 H, as in `ListColumn.numbers`. is_canary: bool H. distance: int16 H, 0 for digests.
    """

    row: NDArray[np.int64]
    number: NDArray[np.int32]
    is_canary: NDArray[np.bool_]
    distance: NDArray[np.int16]


def match_digests(source: HashList, algorithm: str, digests: Rows) -> EntryHits:
    """Look up digests (uint8 N x width, any order) in a list; a list without the algorithm has no hits."""
    column = source.columns.get(algorithm)
    if column is None:
        return _entry_hits(None, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int16))
    asked = np.ascontiguousarray(digests)
    some = np.arange(len(asked)) if column.sieve is None else held_back(column.sieve, asked)
    listed, places = find_digests(column.rows, column.starts, asked[some])
    return _entry_hits(column, some[listed], places[listed], np.zeros(int(listed.sum()), np.int16))


def match_codes(source: HashList, algorithm: str, codes: Rows, search: CodeSearch) -> EntryHits:
    """Find the entries of a list within its radius of each code (uint8 N x width)."""
    column = source.columns.get(algorithm)
    if column is None or not len(codes):
        return _entry_hits(None, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int16))
    hits = search(column, codes, source.radius_of(algorithm))
    return _entry_hits(column, hits.query, hits.entry, hits.distance)


def search_column(column: ListColumn, queries: Rows, radius: int) -> CodeHits:
    """Search with the index of the column where it has one, else by comparing with every code."""
    if column.index is None:
        return scan_codes(column.rows, queries, radius)
    from classifiers.blocklists.band_index import search_index  # noqa: PLC0415 - loads a compiler: only for long lists

    return search_index(column.index, column.rows, queries, radius)


def join_column(column: ListColumn, queries: Rows, radius: int, *, threads: int) -> CodeHits:
    """Search for millions of queries at once, without an index."""
    if len(column.rows) < INDEX_FROM_CODES:
        return scan_codes(column.rows, queries, radius)
    from classifiers.blocklists.band_index import join_codes  # noqa: PLC0415 - as above

    return join_codes(column.rows, queries, radius, threads=threads)


def _entry_hits(
    column: ListColumn | None, rows: NDArray[np.int64], places: NDArray[np.int64], distance: NDArray[np.int16]
) -> EntryHits:
    if column is None:
        return EntryHits(rows, np.zeros(0, np.int32), np.zeros(0, np.bool_), distance)
    numbers = column.numbers[places]
    return EntryHits(rows, numbers, numbers >= column.stored, distance)
