"""The plain matcher: every digest looked up, every code compared with every listed code. Exact by construction.

Owns what "listed" means. Leaves speed to matchers that are held against this one, and what a match leads to, to the
policy.

- 0.0 and +inf mean "searched, not found"; NaN means "could not be searched", and nothing else does.
- A distance is reported only within the radius of the list it was found in; equal to the radius is within.
- Where no lists are given nothing is listed: whether a run may go without a kind of list is not decided here.
- Memory is bounded whatever the size of lists and batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.lists import CODE_ALGORITHM, WIDTHS, HashList, Purpose, Rows
from classifiers.signals import Scores

Basis: TypeAlias = Literal["listed-exact", "listed-near"]

_QUERIES_AT_ONCE = 64
_ENTRIES_AT_ONCE = 4096  # 64 x 4096 pairs of 8 bytes: 2 MiB


@dataclass(frozen=True, slots=True)
class Hit:
    """One entry of one list that one sample matches. It belongs into a sealed record and nowhere else.

    entry: position in the sorted set of the list (`HashList.digests[algorithm]` or `HashList.codes`).
    distance: Hamming distance in bits; None for a digest.
    variant: which row of the codes came nearest, 0 for the picture itself; None for a digest.
    """

    list_id: str
    purpose: Purpose
    basis: Basis
    algorithm: str
    entry: int
    distance: int | None
    variant: int | None


def match_digests(lists: Sequence[HashList], digests: Mapping[str, Rows], known: NDArray[np.bool_]) -> Scores:
    """Say of each sample whether any of its digests is in any list.

    Args:
        lists: any number.
        digests: by algorithm, uint8 N x width, raw bytes in any order.
        known: N, False where the digests of a sample could not be taken; such rows are not looked at.

    Returns:
        N: 1.0 listed, 0.0 not listed, NaN not known.

    Raises:
        ValueError: a list holds an algorithm that `digests` lacks, or shapes disagree.
    """
    listed = np.zeros(len(known), bool)
    for source in lists:
        for algorithm, entries in source.digests.items():
            if len(entries):
                rows = _rows_of(digests, algorithm, source, len(known))
                listed |= _positions(entries, rows) >= 0
    return np.where(known, listed, np.nan).astype(np.float32)


def nearest_codes(
    lists: Sequence[HashList],
    codes: NDArray[np.uint8],
    hashable: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    *,
    algorithm: str = CODE_ALGORITHM,
) -> Scores:
    """Return how near each sample comes to any listed code, over all its variants.

    Args:
        lists: any number, each with its own radius.
        codes: uint8 N x V x 32 (PDQ) or N x V x 8.
        hashable: N, False where there is no code.
        usable: N, False where the code says nothing about the picture; such codes are not searched.
        algorithm: whose codes these are.

    Returns:
        N: the smallest distance in bits that is within the radius of its list, +inf where there is none, NaN where
        there is no code.

    Raises:
        ValueError: shapes disagree.
    """
    count, width = len(hashable), WIDTHS[algorithm]
    is_shaped = codes.ndim == 3 and codes.shape[::2] == (count, width) and codes.shape[1] > 0
    if not is_shaped or usable.shape != (count,):
        raise ValueError(f"codes: expected {count} x V x {width} and as many flags, found {codes.shape}")
    searched = np.flatnonzero(hashable & usable)
    variants = codes.shape[1]
    queries = _words(codes[searched].reshape(-1, width))
    nearest = np.full(len(queries), np.inf, np.float32)
    for source in lists:
        entries, radius = source.coded(algorithm)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = nearest[start : start + _QUERIES_AT_ONCE]
            for _, distances in _tiles(queries[start : start + _QUERIES_AT_ONCE], entries):
                closest = distances.min(axis=1)
                np.minimum(part, np.where(closest <= radius, closest, np.inf), out=part)
    result = np.where(hashable, np.float32(np.inf), np.float32(np.nan))
    result[searched] = nearest.reshape(-1, variants).min(axis=1, initial=np.inf)
    return result


def find_hits(
    lists: Sequence[HashList],
    digests_row: Mapping[str, NDArray[np.uint8]],
    codes_row: NDArray[np.uint8] | None,
    *,
    algorithm: str = CODE_ALGORITHM,
) -> tuple[Hit, ...]:
    """List every entry that one sample matches, for its sealed record.

    Args:
        lists: any number.
        digests_row: by algorithm, uint8 of the width of the algorithm.
        codes_row: uint8 V x 32 (PDQ) or V x 8; None where the sample has no code, or none that is usable.
        algorithm: whose codes these are.

    Returns:
        In the order of the lists, digests before codes, entries as sorted. An entry that several variants match
        is one hit, with the nearest of them, the first where they tie.

    Raises:
        ValueError: a list holds an algorithm that `digests_row` lacks, or shapes disagree.
    """
    digests = {algorithm: row.reshape(1, -1) for algorithm, row in digests_row.items()}
    return tuple(hit for source in lists for hit in _hits_in(source, digests, codes_row, algorithm))


def _hits_in(
    source: HashList, digests: Mapping[str, Rows], codes: NDArray[np.uint8] | None, algorithm: str
) -> Iterator[Hit]:
    for name, digests_listed in source.digests.items():
        if len(digests_listed):
            entry = int(_positions(digests_listed, _rows_of(digests, name, source, 1))[0])
            if entry >= 0:
                yield Hit(source.list_id, source.purpose, "listed-exact", name, entry, None, None)
    if codes is None:
        return
    if codes.ndim != 2 or codes.shape[1] != WIDTHS[algorithm] or not len(codes):
        raise ValueError(f"codes of one sample: expected V x {WIDTHS[algorithm]}, found {codes.shape}")
    entries, radius = source.coded(algorithm)
    for start, distances in _tiles(_words(codes), entries):
        nearest, variants = distances.min(axis=0), distances.argmin(axis=0)
        for column in np.flatnonzero(nearest <= radius).tolist():
            distance, variant = int(nearest[column]), int(variants[column])
            yield Hit(source.list_id, source.purpose, "listed-near", algorithm, start + column, distance, variant)


def _rows_of(digests: Mapping[str, Rows], algorithm: str, source: HashList, count: int) -> Rows:
    rows = digests.get(algorithm)
    expected = (count, source.digests[algorithm].shape[1])
    if rows is None or rows.shape != expected:
        found = None if rows is None else rows.shape
        raise ValueError(f"list {source.list_id!r} holds {algorithm}: expected digests {expected}, found {found}")
    return rows


def _positions(entries: Rows, rows: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return where each row stands among the sorted entries, -1 where it is not there."""
    width = entries.shape[1]
    haystack = np.ascontiguousarray(entries).view(f"V{width}").ravel()
    needles = np.ascontiguousarray(rows).view(f"V{width}").ravel()
    places = np.minimum(np.searchsorted(haystack, needles), len(haystack) - 1)
    return np.where(haystack[places] == needles, places, -1)


def _words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(codes).view(np.uint64)


def _tiles(queries: NDArray[np.uint64], codes: Rows) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """Yield the distances in bits of all queries to all listed codes, some entries at a time, with the first."""
    entries = _words(codes)
    for start in range(0, len(entries), _ENTRIES_AT_ONCE):
        tile = entries[start : start + _ENTRIES_AT_ONCE]
        distances = np.zeros((len(queries), len(tile)), np.uint16)
        for word in range(entries.shape[1]):
            distances += np.bitwise_count(queries[:, word, None] ^ tile[None, :, word])
        yield start, distances
