"""Decisions on disk, and the proof that every sample has exactly one.

Owns the law of conservation: `in == keep + remove + quarantine + withheld`, by identity and by count, where
`withheld` holds every sealed sample and every sample of the policy's sensitive rules.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.records import Action, identities_digest


class ConservationError(ValueError):
    """A sample has no decision, two, or one that is not of the vocabulary. The run must not go on."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What one decision table counts."""

    samples: int
    keep: int
    remove: int
    quarantine: int
    withheld: int
    reasons: dict[str, int]


def prove_conservation(table: pa.Table, *, shard: str, samples: int, identities: str) -> Tally:
    """Check a decision table against the inventory of its shard and count it.

    Args:
        table: columns index, key, withheld, action, reason of one shard.
        shard: its name, for errors.
        samples: how many samples the inventory holds.
        identities: their digest.

    Raises:
        ConservationError: identities differ, or a row is neither withheld nor decided.
    """
    if table.num_rows != samples or digest_identities(table["index"], table["key"]) != identities:
        raise ConservationError(f"shard {shard}: {table.num_rows} decisions do not stand for its {samples} samples")
    known = [Action.KEEP.name, Action.REMOVE.name, Action.QUARANTINE.name]
    withheld, action = table["withheld"], table["action"]
    decided = pc.is_in(action, value_set=pa.array(known))
    if not pc.all(pc.if_else(withheld, action.is_null(), decided), min_count=0).as_py():
        raise ConservationError(f"shard {shard}: a decision is neither withheld nor one of {sorted(known)}")
    actions = _count(action) | {"withheld": pc.sum(withheld, min_count=0).as_py()}
    if sum(actions.values()) != samples:
        raise ConservationError(f"shard {shard}: {sum(actions.values())} outcomes for {samples} samples")
    keep, remove, quarantine = (actions.get(name, 0) for name in known)
    reasons = dict(sorted(_count(table["reason"]).items()))
    return Tally(samples, keep, remove, quarantine, actions["withheld"], reasons)


def digest_identities(index: pa.ChunkedArray, key: pa.ChunkedArray) -> str:
    """Return what `identities_digest` says of two columns, one row a sample; most keys need no escapes in JSON."""
    if not pc.all(pc.match_substring_regex(key, r"^[ !#-\[\]-~]*$"), min_count=0).as_py():
        return identities_digest(zip(index.to_pylist(), key.to_pylist(), strict=True))
    lines = pc.binary_join_element_wise("[", index.cast(pa.string()), ', "', key, '"]\n', "")
    digest = hashlib.sha256()
    for chunk in lines.chunks:
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        digest.update(chunk.buffers()[2][int(offsets[0]) : int(offsets[-1])] if len(chunk) else b"")
    return digest.hexdigest()


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    found = column.drop_null().value_counts()
    return dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True))
