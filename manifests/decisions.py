"""Decisions on disk, and the proof that every sample has exactly one.

Owns the law of conservation: `in == keep + remove + quarantine + withheld`, by identity and by count, where
`withheld` holds every sealed sample and every sample of the policy's sensitive rules.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

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
    rows = list(zip(table["index"].to_pylist(), table["key"].to_pylist(), strict=True))
    if len(rows) != samples or identities_digest(rows) != identities:
        raise ConservationError(f"shard {shard}: {len(rows)} decisions do not stand for its {samples} samples")
    known = {Action.KEEP.name, Action.REMOVE.name, Action.QUARANTINE.name}
    actions: Counter[str] = Counter()
    for withheld, action in zip(table["withheld"].to_pylist(), table["action"].to_pylist(), strict=True):
        if withheld == (action is not None) or (not withheld and action not in known):
            raise ConservationError(f"shard {shard}: a decision is neither withheld nor one of {sorted(known)}")
        actions["withheld" if withheld else action] += 1
    if actions.total() != samples:
        raise ConservationError(f"shard {shard}: {actions.total()} outcomes for {samples} samples")
    reasons = Counter(text for text in table["reason"].to_pylist() if text is not None)
    return Tally(
        samples,
        actions[Action.KEEP.name],
        actions[Action.REMOVE.name],
        actions[Action.QUARANTINE.name],
        actions["withheld"],
        dict(sorted(reasons.items())),
    )
