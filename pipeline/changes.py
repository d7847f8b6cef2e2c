"""What a settle changed against the one before, sample by sample: `settled/N/changes.parquet` (restricted).

Owns that table alone. It never leaves the restricted tier: a difference between two releases points at what a list
or a rule hit. Of withheld samples it says only that they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import durable, schema
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.commits import FileDigest

CHANGES_FILE = "changes.parquet"
WITHHELD = "WITHHELD"
_COLUMNS = ["index", "key", "withheld", "action"]


def write_changes(collection: Collection, number: int, shards: Sequence[str]) -> FileDigest | None:
    """Write which samples have another action than in settle `number - 1`; None for the first settle.

    A shard that is new since has no rows: its samples had no action before.
    """
    if number == 1:
        return None
    before, now = (collection.settled(one) / "decisions" for one in (number - 1, number))
    parts = [schema.CHANGES_SCHEMA.empty_table()]
    for shard in shards:
        old, new = before / f"{shard}.parquet", now / f"{shard}.parquet"
        if old.exists():
            first, second = (pq.read_table(path, columns=_COLUMNS, use_threads=False) for path in (old, new))
            parts.append(_changed(shard, first, second))
    data = schema.encode(pa.concat_tables(parts).combine_chunks())
    path = collection.settled(number) / CHANGES_FILE
    durable.write(path, data, replace=True, mode=RESTRICTED_FILE_MODE)
    return FileDigest.of(path.name, data)


def _changed(shard: str, before: pa.Table, now: pa.Table) -> pa.Table:
    """Both tables hold every sample of the shard, in order."""
    was, became = _actions(before), _actions(now)
    table = pa.table(
        [pa.array([shard] * now.num_rows, pa.string()), now["index"], now["key"], was, became],
        schema=schema.CHANGES_SCHEMA,
    )
    return table.filter(pc.not_equal(was, became))


def _actions(table: pa.Table) -> pa.ChunkedArray:
    return pc.if_else(table["withheld"], WITHHELD, table["action"])
