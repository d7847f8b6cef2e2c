"""From features to list hits: what a shard, or a whole collection, asks the lists, and what they answer.

Owns the table of hits and the cap on them. Leaves the searching to `classifiers.blocklists.match` and what a hit
leads to, to `verdicts.py`. No hit is ever written outside a sealed file.

- A shard is matched by itself when it is examined, with an index; at settle all shards are matched together, by a
  join. Both give the same table.
- A hit names an entry by its number in the stored list. Hits on canaries are kept apart from all others.
- An entry with more near hits than the cap is taken for a bad one: its near hits are marked, its exact ones stay.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import CodeSearch, EntryHits, match_codes, match_digests
from manifests.features import ShardFeatures
from manifests.schema import CODE_BYTES, algorithm_of

CRAWL = "crawl"  # the view of a digest that the crawl recorded, before anything was re-encoded

HITS_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("list", pa.int16()),  # place in the run's feeds
        ("basis", pa.string()),  # listed-exact, listed-near
        ("algorithm", pa.string()),
        ("entry", pa.int32()),
        ("distance", pa.int16()),  # null where exact
        ("view", pa.string()),  # hash column; "crawl" or null where exact
        ("variant", pa.int16()),  # null where exact
        ("capped", pa.bool_()),
    ]
)

# A list by its place among the feeds, an algorithm, the number of an entry.
Entry = tuple[int, str, int]


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
    """

    digests: Mapping[tuple[str, str], DigestQueries]
    codes: Mapping[str, CodeQueries]
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many codes are asked."""
        return sum(len(asked.rows) for asked in self.codes.values())


def gather_queries(features: ShardFeatures, lists: Sequence[HashList], *, first_row: int = 0) -> Queries:
    """Return what the rows of a shard ask these lists, counting rows from `first_row`."""
    held = {name for item in lists for name in item.columns}
    digests = {}
    taken = {name: (values, features.digested) for name, values in features.digests.items()}
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
    return Queries(digests, {name: _join_codes(parts) for name, parts in codes.items()}, tuple(features.hashes))


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
    tables = [_no_hits()]
    canary = [np.zeros(0, np.bool_)]
    for place, source in enumerate(lists):
        for (algorithm, view), digests in queries.digests.items():
            found = match_digests(source, algorithm, digests.values)
            tables.append(_table(found, digests.rows, place, algorithm, view or None))
            canary.append(found.is_canary)
        for algorithm, codes in queries.codes.items():
            found = match_codes(source, algorithm, codes.values, search)
            for column, part in _nearest(found, codes):
                tables.append(_table(part, codes.rows, place, algorithm, queries.names[column], codes.variants))
                canary.append(part.is_canary)
    is_canary = pa.array(np.concatenate(canary))
    table = pa.concat_tables(tables)
    return Found(_sorted(table.filter(pc.invert(is_canary))), _sorted(table.filter(is_canary)))


def _sorted(table: pa.Table) -> pa.Table:
    keys = ("row", "list", "basis", "algorithm", "view", "entry")
    return table.sort_by([(key, "ascending") for key in keys]).combine_chunks()


def entries_of(named: Iterable[tuple[str, str, int]], lists: Sequence[HashList]) -> frozenset[Entry]:
    """Return entries named by list id, algorithm and number by the places of their lists."""
    return frozenset(
        (place, algorithm, number)
        for list_id, algorithm, number in named
        for place, item in enumerate(lists)
        if item.list_id == list_id
    )


def count_near(hits: pa.Table, samples: NDArray[np.int64]) -> Counter[Entry]:
    """Count the samples that come near to each entry and that no list holds exactly.

    `samples` is the sample of every row. Copies that are listed exactly may be withheld any time; were they
    counted, the cap would depend on when.
    """
    is_near = pc.equal(hits["basis"], "listed-near")
    exact = np.unique(samples[hits.filter(pc.invert(is_near))["row"].to_numpy()])
    near = hits.filter(is_near)
    near = near.filter(pa.array(~np.isin(samples[near["row"].to_numpy()], exact)))
    columns = (near[name].to_pylist() for name in ("list", "algorithm", "entry"))
    of_rows = samples[near["row"].to_numpy()].tolist()
    return Counter((place, name, entry) for place, name, entry, _ in set(zip(*columns, of_rows, strict=True)))


def cap_hits(hits: pa.Table, over: frozenset[Entry]) -> pa.Table:
    """Mark the near hits on the entries in `over`."""
    if not hits.num_rows:
        return hits
    columns = [hits[name].to_pylist() for name in ("list", "algorithm", "entry", "basis")]
    marks = [
        basis == "listed-near" and (place, name, entry) in over
        for place, name, entry, basis in zip(*columns, strict=True)
    ]
    return hits.set_column(hits.schema.get_field_index("capped"), "capped", pa.array(marks, pa.bool_()))


def cancel_hits(hits: pa.Table, cancelled: frozenset[Entry]) -> pa.Table:
    """Leave out the near hits on entries that an override record cancels; exact ones stay."""
    if not cancelled:
        return hits
    marked = cap_hits(hits, cancelled)["capped"]
    return hits.filter(pc.invert(marked)).combine_chunks()


def over_cap(counts: Counter[Entry], cap: int) -> frozenset[Entry]:
    """Return the entries with more near hits than the cap."""
    return frozenset(entry for entry, count in counts.items() if count > cap)


def follow_rows(hits: pa.Table, before: ShardFeatures, after: ShardFeatures) -> pa.Table:
    """Return the hits of a shard for the rows it has after more of its samples were withheld."""
    gone = np.setdiff1d(after.indices()[after.withheld()], before.indices()[before.withheld()])
    stays = np.flatnonzero(~np.isin(before.indices(), gone))
    places = np.full(len(before.indices()), -1, np.int64)
    places[stays] = np.flatnonzero(~np.isin(after.indices(), gone))
    moved = places[hits["row"].to_numpy()]
    kept = hits.set_column(0, "row", pa.array(moved, pa.int64()))
    return kept.filter(pa.array(moved >= 0)).combine_chunks()


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


def encode_hits(hits: pa.Table) -> str:
    """Return a table of hits as text, for the pipe to a worker; no hits are the empty text."""
    if not hits.num_rows:
        return ""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, hits.schema) as stream:
        stream.write_table(hits)
    return base64.b64encode(sink.getvalue()).decode()


def decode_hits(text: str) -> pa.Table:
    """Return the table that `encode_hits` wrote."""
    return pa.ipc.open_stream(base64.b64decode(text)).read_all() if text else _no_hits()


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
        pa.array(["listed-exact" if variants is None else "listed-near"] * count, pa.string()),
        pa.array([algorithm] * count, pa.string()),
        pa.array(found.number, pa.int32()),
        pa.nulls(count, pa.int16()) if variants is None else pa.array(found.distance, pa.int16()),
        pa.array([view] * count, pa.string()),
        pa.nulls(count, pa.int16()) if variants is None else pa.array(variants[found.row], pa.int16()),
        pa.array(np.zeros(count, np.bool_)),
    )
    return pa.table(columns, schema=HITS_SCHEMA)


def _no_hits() -> pa.Table:
    return HITS_SCHEMA.empty_table()


def searched(features: ShardFeatures) -> dict[str, NDArray[np.bool_]]:
    """Return by algorithm which rows have a code, usable or not: the others cannot be searched for."""
    rows = features.table.num_rows
    found = {name: np.zeros(rows, np.bool_) for name in CODE_BYTES}
    for name, column in features.hashes.items():
        found[algorithm_of(name)] |= column.hashable
    return found
