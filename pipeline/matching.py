"""From features to list hits: what a shard, or a whole collection, asks the lists, and what they answer.

Owns what is asked and the answer. Leaves the searching to `classifiers.blocklists.match`, the table of hits and the
cap on it to `hits.py`, and what a hit leads to, to `verdicts.py`.

- A shard is matched by itself when it is examined, with an index; at settle all shards are matched together, by a
  join. Both give the same table.
- Hits on canaries are kept apart from all others.
- A hit by URL or domain has a basis of its own: it names a place and no content, and nothing is searched around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import UID, URL_WIDTHS, WIDTHS
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import CodeSearch, EntryHits, match_codes, match_digests
from classifiers.blocklists.url_match import URL_ALGORITHMS, match_urls
from manifests.features import ShardFeatures
from manifests.schema import CODE_BYTES, algorithm_of
from pipeline.hits import HITS_SCHEMA, Entry, cancel_hits, cap_hits, count_near, over_cap

CRAWL = "crawl"  # the view of a digest that the crawl recorded, before anything was re-encoded


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class DigestQueries:
    """Digests that rows ask for. rows: int64 [Q]. values: uint8 [Q, width]."""

    rows: NDArray[np.int64]
    values: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class CodeQueries:
    """Codes that rows ask for. rows: int64 [Q]. columns: int16 [Q], places in `Queries.names`. variants: int16 [Q].

    values: uint8 [Q, width].
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int16]
    variants: NDArray[np.int16]
    values: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Queries:
    """What rows ask the lists; codes that say nothing about their picture are not asked.

    digests: by (algorithm, view), where view is "" or `CRAWL`. codes: by algorithm. names: the hash columns.
    urls: rows (int64) and their URLs, asked where a list holds any.
    """

    digests: Mapping[tuple[str, str], DigestQueries]
    codes: Mapping[str, CodeQueries]
    names: tuple[str, ...]
    urls: tuple[tuple[NDArray[np.int64], pa.Array], ...] = ()

    @property
    def count(self) -> int:
        """How many codes are asked."""
        return sum(len(asked.rows) for asked in self.codes.values())


def gather_queries(features: ShardFeatures, lists: Sequence[HashList], *, first_row: int = 0) -> Queries:
    """Return what the rows of a shard ask these lists, counting rows from `first_row`."""
    held = {name for item in lists for name in item.columns}
    digests = {}
    taken = {name: (values, features.digested) for name, values in features.digests.items()}
    if UID in held:
        taken[UID] = (features.digests["sha256"][:, : WIDTHS[UID]], features.digested)
    for view, known_values in (("", taken), (CRAWL, features.crawled())):
        for name, (values, known) in known_values.items():
            if name not in held:
                continue
            asked = np.flatnonzero(known)
            digests[name, view] = DigestQueries(first_row + asked, values[asked])
    codes: dict[str, list[CodeQueries]] = {}
    for place, (name, column) in enumerate(features.hashes.items()):
        if algorithm_of(name) not in held:
            continue
        asked = np.flatnonzero(column.hashable & column.usable)
        _, variants, width = column.codes.shape
        codes.setdefault(algorithm_of(name), []).append(
            CodeQueries(
                np.repeat(first_row + asked, variants),
                np.full(len(asked) * variants, place, np.int16),
                np.tile(np.arange(variants, dtype=np.int16), len(asked)),
                column.codes[asked].reshape(-1, width),
            )
        )
    urls: tuple[tuple[NDArray[np.int64], pa.Array], ...] = ()
    if not held.isdisjoint(URL_WIDTHS):
        texts = features.table["url"].combine_chunks()
        urls = ((first_row + np.flatnonzero(texts.is_valid()), texts.drop_null()),)
    joined = {name: _join_codes(parts) for name, parts in codes.items()}
    return Queries(digests, joined, tuple(features.hashes), urls)


def combine_queries(parts: Sequence[Queries]) -> Queries:
    """Return the queries of several shards of one collection, and of canaries, as one."""
    digests: dict[tuple[str, str], list[DigestQueries]] = {}
    codes: dict[str, list[CodeQueries]] = {}
    for part in parts:
        for key, asked in part.digests.items():
            digests.setdefault(key, []).append(asked)
        for name, one in part.codes.items():
            codes.setdefault(name, []).append(one)
    return Queries(
        {
            key: DigestQueries(
                np.concatenate([part.rows for part in some]), np.concatenate([part.values for part in some])
            )
            for key, some in digests.items()
        },
        {name: _join_codes(some) for name, some in codes.items()},
        parts[0].names,
        tuple(chain.from_iterable(part.urls for part in parts)),
    )


def _join_codes(parts: Sequence[CodeQueries]) -> CodeQueries:
    return CodeQueries(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.variants for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Found:
    """What the lists answer (`HITS_SCHEMA`), sorted by row: hits on entries, and hits on canaries."""

    hits: pa.Table
    canaries: pa.Table


def find_hits(queries: Queries, lists: Sequence[HashList], search: CodeSearch) -> Found:
    """Return every hit of the queries.

    An entry that several variants of one code hit is one hit, with the nearest of them, the first where they tie.
    """
    tables = [HITS_SCHEMA.empty_table()]
    canary = [np.zeros(0, np.bool_)]
    for place, source in enumerate(lists):
        for (algorithm, view), digests in queries.digests.items():
            found = match_digests(source, algorithm, digests.values)
            tables.append(_table("listed-exact", found, digests.rows, place, algorithm, view or None))
            canary.append(found.is_canary)
        for algorithm, codes in queries.codes.items():
            found = match_codes(source, algorithm, codes.values, search)
            for column, part in _nearest(found, codes):
                view = queries.names[column]
                tables.append(_table("listed-near", part, codes.rows, place, algorithm, view, codes.variants))
                canary.append(part.is_canary)
    for rows, urls in queries.urls:
        for place, algorithm, found in _listed_urls(urls, lists):
            tables.append(_table("listed-url", found, rows, place, algorithm, None))
            canary.append(found.is_canary)
    is_canary = pa.array(np.concatenate(canary))
    table = pa.concat_tables(tables)
    return Found(_sorted(table.filter(pc.invert(is_canary))), _sorted(table.filter(is_canary)))


def _listed_urls(urls: pa.Array, lists: Sequence[HashList]) -> Iterator[tuple[int, str, EntryHits]]:
    """Yield (place of the list, algorithm, hits) of URLs; no canary has one."""
    found = match_urls(urls, lists)
    for place, kind in sorted({*zip(found.place.tolist(), found.algorithm.tolist(), strict=True)}):
        mine = (found.place == place) & (found.algorithm == kind)
        count = int(mine.sum())
        hits = EntryHits(found.row[mine], found.number[mine], np.zeros(count, np.bool_), np.zeros(count, np.int16))
        yield place, URL_ALGORITHMS[kind], hits


def _sorted(table: pa.Table) -> pa.Table:
    keys = ("row", "list", "basis", "algorithm", "view", "entry")
    return table.sort_by([(key, "ascending") for key in keys]).combine_chunks()


def match_shard(
    features: ShardFeatures,
    lists: Sequence[HashList],
    search: CodeSearch,
    *,
    max_near_hits: int,
    cancelled: frozenset[Entry],
) -> pa.Table:
    """Return the hits of one shard by itself, near ones on entries in `cancelled` left out, capped ones marked."""
    hits = cancel_hits(find_hits(gather_queries(features, lists), lists, search).hits, cancelled)
    return cap_hits(hits, over_cap(count_near(hits, features.indices().astype(np.int64)), max_near_hits))


def _nearest(found: EntryHits, codes: CodeQueries) -> Iterator[tuple[int, EntryHits]]:
    """Yield (hash column, hits) with only the nearest variant of a row and an entry."""
    column, row = codes.columns[found.row], codes.rows[found.row]
    order = np.lexsort((codes.variants[found.row], found.distance, found.number, row, column))
    keys = np.stack([column, row, found.number])[:, order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    chosen = order[first]
    for name in np.unique(column).tolist():
        mine = chosen[column[chosen] == name]
        yield name, EntryHits(found.row[mine], found.number[mine], found.is_canary[mine], found.distance[mine])


def _table(
    basis: str,
    found: EntryHits,
    rows: NDArray[np.int64],
    place: int,
    algorithm: str,
    view: str | None,
    variants: NDArray[np.int16] | None = None,
) -> pa.Table:
    count = len(found.row)
    columns = (
        pa.array(rows[found.row], pa.int64()),
        pa.array(np.full(count, place, np.int16)),
        pa.array([basis] * count, pa.string()),
        pa.array([algorithm] * count, pa.string()),
        pa.array(found.number, pa.int32()),
        pa.nulls(count, pa.int16()) if variants is None else pa.array(found.distance, pa.int16()),
        pa.array([view] * count, pa.string()),
        pa.nulls(count, pa.int16()) if variants is None else pa.array(variants[found.row], pa.int16()),
        pa.array(np.zeros(count, np.bool_)),
    )
    return pa.table(columns, schema=HITS_SCHEMA)


def searched(features: ShardFeatures) -> dict[str, NDArray[np.bool_]]:
    """Return by algorithm which rows have a code, usable or not: the others cannot be searched for."""
    rows = features.table.num_rows
    found = {name: np.zeros(rows, np.bool_) for name in CODE_BYTES}
    for name, column in features.hashes.items():
        if algorithm_of(name) in found:  # no list holds codes of a plug-in's kind
            found[algorithm_of(name)] |= column.hashable
    return found
