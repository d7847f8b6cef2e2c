"""Lists as they are matched: for each feed the sorted rows of one stored version, its canaries among them.

Owns which entries feed which signals, and the arrays that matchers read. Leaves keeping lists to the store,
matching to `match`, and what a match leads to, to the policy.

- Only an entry of a list of purpose csam, in a category whose effect is `case`, feeds `csam`. Every other one that
  is not ignored feeds `other`. A list can so become two.
- A URL or a domain names a place and no content: it feeds `other` whatever its list is for, and makes no case.
- Entries are named by their number in the stored list. Canaries have numbers past the last of it.
- Nothing here shows a value: errors and reprs hold names and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import (
    CODE_ALGORITHM,
    CODE_WIDTHS,
    MAX_RADIUS,
    MAX_RADIUS_64,
    URL_WIDTHS,
    Feed,
    ListError,
    Rows,
)
from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.digest_join import bucket_starts, make_sieve
from classifiers.blocklists.stored import StoredList
from classifiers.hashes.digests import DIGEST_WIDTHS

if TYPE_CHECKING:
    from classifiers.blocklists.band_index import BandIndex  # loads a compiler, which short lists do without

MATCHED = (*DIGEST_WIDTHS, *CODE_WIDTHS)  # what a picture can be matched with


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ListColumn:
    """The entries of one algorithm. All arrays are read-only.

    rows: uint8 N x width, sorted as bytes, no two alike, canaries among them.
    numbers: int32 N, the place of each in the stored list; from `stored` on, canaries.
    masks: N, bit i = category i of the list; uint8 to uint64. No bit of a canary is set.
    starts: where the buckets of a digest's leading bits begin; empty for codes.
    index: for fast searches of codes, where one was built. sieve: for digests, the same (`digest_join.make_sieve`).
    """

    rows: Rows
    numbers: NDArray[np.int32]
    masks: NDArray[np.unsignedinteger]
    starts: NDArray[np.unsignedinteger]
    stored: int
    index: BandIndex | None = None
    sieve: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class HashList:
    """What one version of a list gives to one feed, ready to be matched.

    source: who the list is from; lists of one source count as one voice. radius, radius64: the largest Hamming
    distance, in bits, at which a PDQ code, or one of 64 bits, counts as listed. set_digest: of the stored version.
    """

    list_id: str
    version: int
    purpose: str
    feed: Feed
    source: str
    set_digest: str
    categories: tuple[str, ...]
    radius: int
    radius64: int
    columns: Mapping[str, ListColumn]
    canaries: tuple[Canary, ...]

    def sieved(self) -> HashList:
        """Return the list with sieves, for looking up many more digests than are listed."""
        sieves = {name: make_sieve(one.rows) for name, one in self.columns.items() if name not in CODE_WIDTHS}
        columns = {name: replace(one, sieve=sieves.get(name)) for name, one in self.columns.items()}
        return replace(self, columns=columns)

    def radius_of(self, algorithm: str) -> int:
        """Return the radius within which codes of this algorithm match."""
        return self.radius if algorithm == CODE_ALGORITHM else self.radius64

    def categories_of(self, algorithm: str, number: int) -> tuple[str, ...]:
        """Return the native categories of an entry, by its number in the stored list."""
        column = self.columns[algorithm]
        place = int(np.flatnonzero(column.numbers == number)[0])
        mask = int(column.masks[place])
        return tuple(name for bit, name in enumerate(self.categories) if mask >> bit & 1)

    def __repr__(self) -> str:
        counts = (f"{name}={len(column.rows)}" for name, column in self.columns.items())
        return f"HashList({self.list_id!r}, {self.feed}, {', '.join(counts)})"


def make_feeds(
    stored: StoredList,
    *,
    list_id: str,
    version: int,
    purpose: str,
    source: str,
    set_digest: str,
    radius: int,
    radius64: int,
    algorithms: Sequence[str] = MATCHED,
) -> tuple[HashList, ...]:
    """Return the lists, one for each feed that has entries of `algorithms`, that a stored version becomes.

    Raises:
        ListError: a radius is out of range, or nothing in the list is of these algorithms.
    """
    for name, value, most in (("radius", radius, MAX_RADIUS), ("radius64", radius64, MAX_RADIUS_64)):
        if not 0 <= value <= most:
            raise ListError(f"list {list_id!r}: {name}: expected 0 to {most} bits, found {value}")
    feeds: tuple[Feed, ...] = ("csam", "other")
    made = []
    for feed in feeds:
        columns = dict(_columns(stored, feed, purpose, algorithms))
        if columns:
            made.append(
                HashList(
                    list_id,
                    version,
                    purpose,
                    feed,
                    source,
                    set_digest,
                    stored.categories,
                    radius,
                    radius64,
                    columns,
                    tuple(canary for canary in stored.canaries if canary.algorithm in columns),
                )
            )
    if not made:
        raise ListError(f"list {list_id!r}: expected entries of {', '.join(algorithms)}, found none; leave it out")
    return tuple(made)


def _columns(
    stored: StoredList, feed: Feed, purpose: str, algorithms: Sequence[str]
) -> Iterator[tuple[str, ListColumn]]:
    bits = dict.fromkeys(("case", "remove", "ignore"), 0)
    for bit, name in enumerate(stored.categories):
        bits[stored.effects[name]] |= 1 << bit
    for algorithm in algorithms:
        rows = stored.rows.get(algorithm)
        if rows is None or not len(rows):
            continue
        masks = stored.masks[algorithm]
        makes_case = (masks & masks.dtype.type(bits["case"])) != 0
        matched = makes_case | ((masks & masks.dtype.type(bits["remove"])) != 0)
        is_csam = makes_case & (purpose == "csam" and algorithm not in URL_WIDTHS)
        chosen = np.flatnonzero(is_csam if feed == "csam" else matched & ~is_csam).astype(np.int32)
        if len(chosen):
            entries = [canary.entry for canary in stored.canaries if canary.algorithm == algorithm]
            yield algorithm, _with_canaries(algorithm, rows, masks, chosen, entries)


def _with_canaries(
    algorithm: str, rows: Rows, masks: NDArray[np.unsignedinteger], chosen: NDArray[np.int32], entries: list[bytes]
) -> ListColumn:
    stored, width = len(rows), rows.shape[1]
    if len(chosen) < stored:
        rows, masks = rows[chosen], masks[chosen]
    ours = np.array(sorted(entries), f"V{width}")
    places = np.searchsorted(np.ascontiguousarray(rows).view(f"V{width}").ravel(), ours)
    if len(ours):
        rows = _insert(rows, places, ours.view(np.uint8).reshape(-1, width))
        masks = _insert(masks, places, np.zeros(len(ours), masks.dtype))
        chosen = _insert(chosen, places, stored + np.arange(len(ours), dtype=np.int32))
    masks = masks.astype(np.min_scalar_type(int(masks.max())), copy=False)
    starts = np.zeros(0, np.uint32) if algorithm in CODE_WIDTHS else bucket_starts(rows)
    for array in (rows, chosen, masks, starts):
        array.flags.writeable = False
    return ListColumn(rows, chosen, masks, starts, stored)


def _insert(array: NDArray[Any], places: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    """As `np.insert`, for a few values among very many: whole stretches are copied."""
    ends = pairwise([0, *places.tolist(), len(array)])
    return np.concatenate([part for n, (a, b) in enumerate(ends) for part in (array[a:b], values[n : n + 1])])
