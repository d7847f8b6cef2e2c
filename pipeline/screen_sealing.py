"""The sealed records of screened rows: all that the table says of a row, its decision, and the entries it hit.

Owns their columns, named as those of a run's records where they say the same, so that a case is opened and exported
in one way: `shard` is the table, `key` the number of the row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import URL_WIDTHS, WIDTHS
from classifiers.blocklists.lists import HashList
from classifiers.hashes.digests import DIGEST_WIDTHS
from pipeline.screen_tables import Table, digest_columns, is_text, text_column
from pipeline.sealing import HIT

_NAMES = tuple(WIDTHS)
_NOT_THERE = {"member": pa.string(), "offset": pa.int64(), "size": pa.int64()} | dict.fromkeys(
    DIGEST_WIDTHS, pa.binary()
)


@dataclass(frozen=True, slots=True, repr=False)
class RowHits:
    """Rows that hit entries. All int64. place: of the list. algorithm: place in `WIDTHS`. number: of the entry."""

    row: NDArray[np.int64]
    place: NDArray[np.int64]
    algorithm: NDArray[np.int64]
    number: NDArray[np.int64]


def seal_rows(
    made: pa.RecordBatch,
    batch: pa.RecordBatch,
    table: Table,
    hits: RowHits,
    lists: Sequence[HashList],
    rows: NDArray[np.int64],
) -> pa.Table:
    """Return the records of some rows of a batch, whose decisions are `made`."""
    chosen = pa.array(rows, pa.int64())
    mine, own = made.take(chosen), batch.take(chosen)
    for place, field in enumerate(own.schema):
        if is_text(field.type):
            own = own.set_column(place, field.name, text_column(own, field.name, mend=True))
    crawl: dict[str, list[bytes | None]] = {name: [None] * len(rows) for name in DIGEST_WIDTHS}
    for name, having, values in digest_columns(own, table):
        for row, value in zip(having.tolist(), values, strict=True):
            crawl[name][row] = value.tobytes()
    caption = pa.nulls(len(rows), pa.large_string()) if table.caption is None else own[table.caption]
    columns = {
        "shard": pa.array([table.name] * len(rows), pa.string()),
        "index": mine["row"],
        "key": mine["row"].cast(pa.string()),
        "url": own[table.url],
        "caption": caption,
        **{name: pa.nulls(len(rows), kind) for name, kind in _NOT_THERE.items()},
        **{f"crawl_{name}": pa.array(values, pa.binary()) for name, values in crawl.items()},
        "metadata": pa.array([json.dumps(row, default=str) for row in own.to_pylist()], pa.large_string()),
        "hits": pa.array([list(_hits_of(hits, lists, row)) for row in rows.tolist()], pa.list_(HIT)),
    }
    return pa.table({**columns, **{name: mine[name] for name in made.schema.names if name != "row"}})


def _hits_of(hits: RowHits, lists: Sequence[HashList], row: int) -> list[dict[str, object]]:
    found = []
    for at in np.flatnonzero(hits.row == row).tolist():
        source, algorithm, number = lists[hits.place[at]], _NAMES[hits.algorithm[at]], int(hits.number[at])
        is_url = algorithm in URL_WIDTHS
        found.append(
            {
                "list": source.list_id,
                "version": source.version,
                "purpose": source.purpose,
                "feed": source.feed,
                "categories": source.categories_of(algorithm, number),
                "basis": "listed-url" if is_url else "listed-exact",
                "algorithm": algorithm,
                "entry": number,
                "view": None if is_url else "crawl",
                "capped": False,
            }
        )
    return found
