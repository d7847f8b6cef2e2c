"""The records of withheld samples, as a case team reads them after opening a sealed file.

Owns their columns: all features of the sample, its decision with every signal, and the list entries it hit.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import Hit, find_hits
from manifests.features import decode_features
from manifests.schema import algorithm_of
from pipeline.verdicts import SampleDecisions

_HIT = pa.struct(
    [
        pa.field("list", pa.string()),
        pa.field("purpose", pa.string()),
        pa.field("basis", pa.string()),
        pa.field("algorithm", pa.string()),
        pa.field("entry", pa.int64()),
        pa.field("distance", pa.int32()),
        pa.field("view", pa.string()),
        pa.field("variant", pa.int32()),
    ]
)


def sealed_records(hidden: pa.Table, decisions: SampleDecisions, lists: Sequence[HashList]) -> pa.Table:
    """Return the sealed table for the feature rows in `hidden`: features, decision and hits, one row a member."""
    of_sample = {int(index): row for row, index in enumerate(decisions.index)}
    rows = pa.array([of_sample[int(index)] for index in hidden["index"].to_pylist()], pa.int64())
    table = hidden.set_column(
        hidden.schema.get_field_index("withheld"), "withheld", pa.array([True] * hidden.num_rows, pa.bool_())
    )
    for field in decisions.table.schema:
        if field.name not in table.column_names:
            table = table.append_column(field, decisions.table[field.name].take(rows))
    return table.append_column("hits", pa.array(_hits(hidden, lists), pa.list_(_HIT)))


def _hits(hidden: pa.Table, lists: Sequence[HashList]) -> list[list[dict[str, object]]]:
    features = decode_features(hidden)
    crawled = features.crawled()
    found: list[list[dict[str, object]]] = []
    for row in range(hidden.num_rows):
        digests = {name: values[row] for name, values in features.digests.items()}
        hits: list[tuple[Hit, str | None]] = []
        if features.digested[row]:
            hits += [(hit, None) for hit in find_hits(lists, digests, None)]
        recorded = {name: values[row] for name, (values, _) in crawled.items()}
        if any(known[row] for _, known in crawled.values()):
            hits += [(hit, "crawl") for hit in find_hits(lists, recorded, None)]
        for name, column in features.hashes.items():
            if column.usable[row]:
                near = find_hits(lists, digests, column.codes[row], algorithm=algorithm_of(name))
                hits += [(hit, name) for hit in near if hit.basis == "listed-near"]
        found.append(
            [
                {
                    "list": hit.list_id,
                    "purpose": hit.purpose,
                    "basis": hit.basis,
                    "algorithm": hit.algorithm,
                    "entry": hit.entry,
                    "distance": hit.distance,
                    "view": view,
                    "variant": hit.variant,
                }
                for hit, view in hits
            ]
        )
    return found
