"""The table of list hits, from search to decision: capping, cancelling, passing on.

Owns its columns and what may happen to its rows. No hit is ever written outside a sealed file.

- A hit names an entry by its number in the stored list.
- An entry with more near hits than the cap is taken for a bad one: its near hits are marked, its exact ones stay.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.lists import HashList
from manifests.features import ShardFeatures

HITS_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("list", pa.int16()),  # place in the run's feeds
        ("basis", pa.string()),  # listed-exact, listed-near, listed-url
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
    return pa.ipc.open_stream(base64.b64decode(text)).read_all() if text else HITS_SCHEMA.empty_table()
