"""The lists against a whole collection: all stored codes and digests at once, before any shard is decided.

Owns the pass over the features for that, the canaries of a settle, and which entries are over the hit cap. Holds a
bounded number of queries at a time, and all hits.

- The join is exact; it needs no index and one band of the lists in memory at a time.
- Canaries are asked beside the samples of every part; a missed one stops the settle before it writes.
- What is counted for the cap are the samples whose features are in clear and that no list holds exactly: withheld
  ones are known to the case team alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.blocklists.canaries import picture_code
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import CodeSearch
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from manifests.collection import Collection
from manifests.commits import ExamineCommit, Flood
from pipeline.canary_shard import check_found, expected_hits
from pipeline.commit import Decider
from pipeline.hits import Entry, cancel_hits, cap_hits, count_near, entries_of
from pipeline.matching import CodeQueries, DigestQueries, Queries, combine_queries, find_hits, gather_queries
from pipeline.settle import NOT_MATCHED, load_features

MAX_QUERIES = 4_000_000  # codes of 32 bytes: 128 MB, and as much again while they are grouped
MAX_ROWS = 500_000  # a list of digests alone asks no codes, and must not gather a whole collection either


@dataclass(frozen=True, slots=True, repr=False)
class CollectionHits:
    """What a collection hits. hits: by shard, those without any left out. flooded: the entries over the cap.

    canaries: how many were asked, in every part, and found.
    """

    hits: Mapping[str, pa.Table]
    flooded: tuple[Flood, ...]
    canaries: int


def match_collection(
    collection: Collection,
    commits: Sequence[ExamineCommit],
    decider: Decider,
    search: CodeSearch,
    *,
    flooded: tuple[Flood, ...] | None = None,
) -> CollectionHits:
    """Match the stored features of the shards in `commits`; of none, only the canaries.

    `flooded` are the entries over the hit cap where an interrupted attempt has counted them.

    Raises:
        CanaryError: a canary was missed.
        TableError: a feature file is not what its commit says.
    """
    found: dict[str, pa.Table] = {}
    counts: Counter[Entry] = Counter()
    cancelled = entries_of(decider.overrides.near, decider.lists)
    expected = list(expected_hits(decider.lists))
    for part in _parts(collection, commits, decider.lists) if decider.lists else ():
        canaries = canary_queries(decider.lists, part.rows, part.queries[0].names if part.queries else ("",))
        queries = combine_queries([*part.queries, *canaries])
        answer = find_hits(queries, decider.lists, search)
        ours = _rows_from(answer.canaries, part.rows)
        check_found(expected, ours, decider.lists)
        hits = answer.hits.slice(*_span(answer.hits["row"].to_numpy(), 0, part.rows))
        hits = cancel_hits(hits, cancelled)
        counts += count_near(hits, np.concatenate([*part.samples, np.zeros(0, np.int64)]))
        rows = hits["row"].to_numpy()
        ends = [*part.starts[1:], part.rows][: len(part.starts)]
        for shard, start, end in zip(part.shards, part.starts, ends, strict=True):
            first, count = _span(rows, start, end)
            if count:
                found[shard] = _rows_from(hits.slice(first, count), start)
    if flooded is None:
        flooded = tuple(
            Flood(decider.lists[place].list_id, decider.lists[place].version, algorithm, number, count)
            for (place, algorithm, number), count in sorted(counts.items())
            if count > decider.max_near_hits
        )
    over = entries_of([(item.list_id, item.algorithm, item.entry) for item in flooded], decider.lists)
    capped = {shard: cap_hits(table, over) for shard, table in found.items()}
    return CollectionHits(capped, flooded, len(expected))


def canary_queries(lists: Sequence[HashList], first_row: int, names: tuple[str, ...]) -> Iterator[Queries]:
    """Yield what the canary pictures of the lists ask, one row each from `first_row`."""
    for row, (_, _, canary) in enumerate(expected_hits(lists), start=first_row):
        at, zero = np.array([row], np.int64), np.zeros(1, np.int16)
        if canary.algorithm in DIGEST_WIDTHS:
            digest = np.frombuffer(getattr(take_digests(canary.image), canary.algorithm), np.uint8)
            yield Queries({(canary.algorithm, ""): DigestQueries(at, digest.reshape(1, -1))}, {}, names)
        else:
            code = np.frombuffer(picture_code(canary), np.uint8)
            yield Queries({}, {canary.algorithm: CodeQueries(at, zero, zero, code.reshape(1, -1))}, names)


@dataclass(slots=True, repr=False)
class _Part:
    """Some shards together: rows are counted through."""

    shards: list[str]
    starts: list[int]
    queries: list[Queries]
    samples: list[NDArray[np.int64]]
    rows: int
    codes: int


def _parts(collection: Collection, commits: Sequence[ExamineCommit], lists: Sequence[HashList]) -> Iterator[_Part]:
    part = _Part([], [], [], [], 0, 0)
    first_sample = 0
    for commit in commits:
        features = load_features(collection, commit, without=NOT_MATCHED)
        part.shards.append(commit.shard)
        part.starts.append(part.rows)
        part.queries.append(gather_queries(features, lists, first_row=part.rows))
        part.codes += part.queries[-1].count
        part.samples.append(first_sample + features.indices().astype(np.int64))
        part.rows += features.table.num_rows
        first_sample += int(features.indices().max(initial=-1)) + 1
        if part.codes >= MAX_QUERIES or part.rows >= MAX_ROWS:
            yield part
            part = _Part([], [], [], [], 0, 0)
    if part.shards or not commits:  # the lists must be found at work also where no shard is to be matched
        yield part


def _rows_from(hits: pa.Table, first: int) -> pa.Table:
    """Return the hits of the rows from `first` on, counted from there."""
    mine = hits.filter(pa.array(hits["row"].to_numpy() >= first))
    return mine.set_column(0, "row", pa.array(mine["row"].to_numpy() - first, pa.int64()))


def _span(rows: NDArray[np.int64], start: int, end: int) -> tuple[int, int]:
    """Return where the hits of rows `start` to `end` lie, as offset and length."""
    first, last = np.searchsorted(rows, [start, end]).tolist()
    return first, last - first
