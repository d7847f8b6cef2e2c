"""The records of withheld samples, as a case team reads them after opening a sealed file.

Owns their columns: all features of the sample, its decision with every signal, and the list entries it hit; and
their stamp. No time stands there: the same samples, lists and policy give the same records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.blocklists.lists import HashList
from manifests import schema
from manifests.features import ShardFeatures
from manifests.records import Action
from pipeline.plan import Plan
from pipeline.verdicts import SampleDecisions

HIT = pa.struct(
    [
        pa.field("list", pa.string()),
        pa.field("version", pa.int32()),
        pa.field("purpose", pa.string()),
        pa.field("feed", pa.string()),
        pa.field("categories", pa.list_(pa.string())),
        pa.field("basis", pa.string()),
        pa.field("algorithm", pa.string()),
        pa.field("entry", pa.int64()),
        pa.field("distance", pa.int32()),
        pa.field("view", pa.string()),
        pa.field("variant", pa.int32()),
        pa.field("capped", pa.bool_()),
    ]
)
PRESERVED = "bytes"
_OF_HIT = ("basis", "algorithm", "entry", "distance", "view", "variant", "capped")


def sealed_records(
    hidden: pa.Table, features: ShardFeatures, decisions: SampleDecisions, hits: pa.Table, lists: Sequence[HashList]
) -> pa.Table:
    """Return the sealed table for the feature rows in `hidden`: features, decision and hits, one row a member."""
    rows = pa.array(np.searchsorted(decisions.index, hidden["index"].to_numpy()), pa.int64())
    table = hidden.set_column(
        hidden.schema.get_field_index("withheld"), "withheld", pa.array([True] * hidden.num_rows, pa.bool_())
    )
    for field in decisions.table.schema:
        if field.name not in table.column_names:
            table = table.append_column(field, decisions.table[field.name].take(rows))
    return table.append_column("hits", pa.array(_hits(hidden, features, hits, lists), pa.list_(HIT)))


def preserve_bytes(records: pa.Table, source: Path | None) -> pa.Table:
    """Return sealed records with the bytes of members that a rule seals; null where they are no longer the same."""
    kept: list[bytes | None] = [None] * records.num_rows
    wanted = np.flatnonzero(pc.equal(records["action"], Action.SEAL.name).fill_null(False).to_numpy())
    if source is not None and source.is_file() and len(wanted):
        with source.open("rb") as file:
            for row in wanted.tolist():
                offset, size, sha256 = (records[name][row].as_py() for name in ("offset", "size", "sha256"))
                if offset is not None and sha256 is not None:
                    file.seek(offset)
                    data = file.read(size)
                    kept[row] = data if hashlib.sha256(data).digest() == sha256 else None
    return records.append_column(PRESERVED, pa.array(kept, pa.large_binary()))


def sealed_stamp(columns: pa.Schema, plan: Plan) -> pa.Schema:
    """Return the columns with what made the records: plan, policy and lists by digest, our recipe, libraries."""
    examine = plan.examine
    made = {"judged_under": plan.judge_digest, "recipe": examine.recipe, "software": list(examine.software)}
    return schema.stamp(columns, plan=plan.examine_digest, stamps=plan.stamps, **made)


def _hits(
    hidden: pa.Table, features: ShardFeatures, hits: pa.Table, lists: Sequence[HashList]
) -> list[list[dict[str, object]]]:
    """Return the hits of every hidden row. Hidden rows are those of their samples in `features`, in order."""
    places = np.flatnonzero(np.isin(features.indices(), hidden["index"].to_numpy())).tolist()
    found: dict[int, list[dict[str, object]]] = {row: [] for row in places}
    categories_of = cache(lambda place, *entry: lists[place].categories_of(*entry))  # a walk over the list each
    for hit in hits.to_pylist():
        if hit["row"] in found:
            source = lists[hit["list"]]
            found[hit["row"]].append(
                {
                    "list": source.list_id,
                    "version": source.version,
                    "purpose": source.purpose,
                    "feed": source.feed,
                    "categories": categories_of(hit["list"], hit["algorithm"], hit["entry"]),
                    **{name: hit[name] for name in _OF_HIT},
                }
            )
    return [found[row] for row in places]
