"""The close of a download: one final state for every row of every table.

Owns `rows.parquet`, the proof that it accounts for all rows, and the totals.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE
from manifests.records import SCHEMA_VERSION, canonical_json, readable_json
from pipeline.download.fetched import Failure, state_of
from pipeline.download.orders import SETTLED, Rows
from pipeline.download.staging import RESULTS, Staging
from pipeline.errors import RunError
from pipeline.screen_tables import sha256_of

_FROM_RESULTS = ("shard", "key", "sha256", "size", "status", "content_type", "hops")


def close_download(staging: Staging, rows: Rows, count: int) -> None:
    """Write the final states of all rows, the summary and the close. count: of shards, in both passes.

    Raises:
        RunError: a row has no state, or two; the folder is of no use.
    """
    numbers = np.arange(len(rows.code))
    results, is_asked = _results(staging, count), rows.code == 0
    commits = [staging.path("commit", number) for number in range(count)]
    staged = sum(json.loads(path.read_bytes())["states"].get("downloaded", 0) for path in commits)
    same_rows = np.array_equal(results["number"].to_numpy(), np.flatnonzero(is_asked))
    if not same_rows or results["failure"].null_count != staged:
        raise RunError(f"{staging.root}: rows and shards do not agree; delete the folder and download again")
    places = pa.array(np.cumsum(is_asked) - 1, mask=~is_asked)
    settled = pa.array([None if one is None else str(one) for one in SETTLED], pa.string())
    failure = pc.coalesce(results["failure"].take(places), settled.take(pa.array(rows.code)))
    states = pa.array([state_of(one) for one in Failure] + [state_of(None)])
    known = pa.array([str(one) for one in Failure])
    state = states.take(pc.fill_null(pc.index_in(failure, known), len(known)))
    counts = [count for _, count in rows.tables]
    names = pa.array([name for name, _ in rows.tables], pa.string())
    columns = {
        "table": names.take(pa.array(np.repeat(np.arange(len(counts)), counts))),
        "row": pa.array(numbers - np.repeat(np.cumsum([0, *counts])[:-1], counts)),
        "number": pa.array(numbers),
        "url_uid": rows.uid,
        "state": state,
        "failure": failure,
        "first": pa.array(rows.first, mask=rows.first == numbers),
        **{name: results[name].take(places) for name in _FROM_RESULTS},
    }
    staging.write(staging.root / "rows.parquet", pa.table(columns))
    faults = pc.sum(pc.equal(state, "failed")).as_py() or 0
    counted = {"in": len(numbers), "kept": staged, "not_kept": len(numbers) - staged, "faults": faults}
    summary = {"schema": SCHEMA_VERSION, **counted, "stamps": list(staging.stamps)}
    durable.write(staging.root / "summary.json", readable_json(summary), replace=True)
    digests = {path.stem: sha256_of(path) for path in [*commits, staging.root / "rows.parquet"]}
    close = {"schema": SCHEMA_VERSION, "plan": staging.plan, "files": digests, "summary": summary}
    durable.write(staging.root / "download.json", canonical_json(close), replace=False, mode=RESTRICTED_FILE_MODE)


def _results(staging: Staging, count: int) -> pa.Table:
    """Return the last result of every row that was asked for, in their order."""
    paths = [staging.path("results", number) for number in range(count)]
    tables = [pq.read_table(path).replace_schema_metadata(None) for path in paths]
    every = pa.concat_tables([RESULTS.empty_table(), *tables])
    _, from_the_end = np.unique(every["number"].to_numpy()[::-1], return_index=True)
    return every.take(pa.array(len(every) - 1 - from_the_end))
