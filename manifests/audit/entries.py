"""What the entries of the log say: in clear what is public, all finer things as commitments.

Owns their form (canonical JSON as RFC 8785 has it: ASCII keys, no fractions) and the record of each sample.

- In clear: in, kept, not kept, faults, digests of inputs and of what is released, plans by digest.
- A commitment is HMAC-SHA256 of a text under a salt of its own; both stay in the restricted tier (`openings`).
- A sample's record says kept or not kept, and holds a commitment to action and reason: each under a key of its own,
  HKDF-SHA256 (RFC 5869) of the collection's secret, settle, shard and index. So one sample, and of it the outcome
  alone, can be shown without any other. A shard's entry holds the Merkle root over the commitments to its records.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.audit import merkle
from manifests.audit.tiles import LogError
from manifests.records import Action, canonical_json

VERSION = 1
COMMITTED = ("policy", "model", "list", "canary", "override", "review", "destroy", "publish", "screen")
KINDS = {
    "run-open": "at decide_plan examine_plan settle tool",
    **dict.fromkeys(COMMITTED, "settle value"),
    "key-rotation": "statement",
    "shard-commit": "details in input kept manifest not_kept records settle shard",
    "settle": "close decide_plan examine_plan faults in kept not_kept settle shards stamps summary uids",
    "run-close": "at evidence files settle",
}
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("v", "settle", "in", "kept", "not_kept", "faults", "shards"), (int,)),
    **dict.fromkeys(("input", "manifest", "summary", "uids"), (str, type(None))),
    **{"stamps": (list,), "files": (dict,)},
}  # all others are texts


def encode_entry(kind: str, **fields: object) -> bytes:
    """Return the bytes of an entry."""
    assert kind in KINDS
    return canonical_json({"v": VERSION, "kind": kind, **fields})


def decode_entry(data: bytes, number: int) -> dict[str, Any]:
    """Return what an entry says.

    Raises:
        LogError: it is not one of ours, in the one form that they have.
    """
    try:
        value = json.loads(data)
        known = value["v"] == VERSION and canonical_json(value) == data
        known &= set(value) == {"v", "kind", *KINDS[value["kind"]].split()}
        known &= all(type(one) in _TYPES.get(name, (str,)) for name, one in value.items())
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise LogError(f"entry {number} of the log is not one that this version writes")
    return dict(value)


def mac(key: bytes, text: bytes) -> bytes:
    """Return HMAC-SHA256."""
    return hmac.digest(key, text, "sha256")


class Committer:
    """Commits to texts for one settle, and keeps what opens the commitments."""

    def __init__(self, secret: bytes, settle: int) -> None:
        self._secret, self._settle = secret, settle
        self.openings: dict[str, dict[str, str]] = {}

    def commit(self, label: str, value: object) -> str:
        """Return the commitment to a value, in hex; `label` says where in the settle's entries it stands."""
        text = canonical_json(value)
        salt = mac(self._secret, canonical_json(["salt", self._settle, label]))
        self.openings[label] = {"salt": salt.hex(), "text": text.decode()}
        return mac(salt, text).hex()

    @staticmethod
    def values(plan: Mapping[str, Any], canaries: int) -> dict[str, object]:
        """Return, by kind of entry, what is committed to of a settle's plan; every canary asked for was found."""
        decide = plan["decide"]
        return {
            "policy": {name: decide[name] for name in ("policy", "policy_digest", "policy_text")},
            "model": plan["examine"],
            "list": decide["lists"],
            "canary": {"asked": canaries, "found": canaries},
            "override": decide["overrides"],
        }


def opens(commitment: str, opening: Mapping[str, str]) -> bool:
    """Say whether an opening is that of a commitment."""
    return hmac.compare_digest(commitment, mac(bytes.fromhex(opening["salt"]), opening["text"].encode()).hex())


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """What is committed of one sample. record: canonical JSON with `kept`. outcome: with action and reason.

    key, outcome_key: under which each is committed; the record holds the commitment to the outcome.
    """

    record: bytes
    key: bytes
    outcome: bytes
    outcome_key: bytes

    @property
    def commitment(self) -> bytes:
        """What stands in the tree."""
        return mac(self.key, self.record)


def sample_records(decisions: pa.Table, *, shard: str, settle: int, secret: bytes) -> list[SampleRecord]:
    """Return the record of every sample of a shard's decisions (index, key, withheld, action, reason), in order."""
    extracted = mac(b"shardscrub/records/v1", secret)  # HKDF-Extract
    columns = (decisions[name].to_pylist() for name in ("index", "key", "withheld", "action", "reason"))
    found = []
    for index, key, withheld, action, reason in zip(*columns, strict=True):
        about = canonical_json([settle, shard, index])
        # HKDF-Expand, one block each.
        record_key, outcome_key = (mac(extracted, about + what + b"\x01") for what in (b"record", b"outcome"))
        outcome = canonical_json({"withheld": True} if withheld else {"action": action, "reason": reason})
        record = {
            "index": index,
            "kept": action == Action.KEEP.name,
            "key": key,
            "outcome": mac(outcome_key, outcome).hex(),
            "settle": settle,
            "shard": shard,
        }
        found.append(SampleRecord(canonical_json(record), record_key, outcome, outcome_key))
    return found


def records_root(records: list[SampleRecord]) -> str:
    """Return the root over the records of a shard, in hex."""
    return merkle.root_of([merkle.leaf_hash(one.commitment) for one in records]).hex()
