"""What the log commits to, held against the restricted tier: plans, records, decisions, and what people did.

Owns making each commitment again. It takes the collection's secret, which the restricted tier has, and no key.

- Reviews, destructions and publications only grow: what a settle logged is a begin of what is there, and no shorter
  than what the settle before it logged.
- What people did since the newest settle is logged with the next one: it is told, and no problem.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from manifests import schema
from manifests.audit.entries import Committer, records_root, sample_records
from manifests.collection import Collection
from manifests.commits import Close, Evidence, SettleCommit
from manifests.keyed import read_secret
from manifests.lifetime import logged_events
from manifests.verify_release import Report


@dataclass(slots=True)
class SettleEntries:
    """What the entries of one settle say. end: how many entries stand before its last one.

    tars: name and SHA-256 of each, as its signed statements say; None where these were not checked.
    """

    number: int
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    tars: dict[str, str] | None = None
    end: int = 0


class Commitments:
    """Makes the commitments of each settle again, oldest first."""

    def __init__(self, collection: Collection, report: Report) -> None:
        self._collection, self._report = collection, report
        self._secret, self._events = read_secret(collection), logged_events(collection)
        self._logged = dict.fromkeys(self._events, 0)

    def unlogged(self) -> Iterator[str]:
        """Say what was done since the newest settle in the log."""
        told = {"review": "review", "destroy": "destruction", "publish": "publication", "screen": "screen record"}
        later = [(told[kind], len(states) - 1 - self._logged[kind]) for kind, states in self._events.items()]
        if said := ", ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in sorted(later) if count):
            yield f"log: not logged yet, but with the next settle: {said}"

    def problems(self, settle: SettleEntries, where: str) -> Iterator[str]:
        """Find what is not what one settle committed to; `where` names it."""
        folder = self._collection.settled(settle.number)
        committer = Committer(self._secret, settle.number)
        close, evidence = Close.read(folder / "close.json"), Evidence.read(folder / "evidence.json")
        try:
            values = committer.values(json.loads((folder / "plan.json").read_bytes()), close.canaries)
        except (OSError, ValueError, LookupError, TypeError):
            yield f"{folder / 'plan.json'}: missing, or not a plan of ours"
            return
        entries = settle.entries
        told = {name: (entries[name]["value"], value) for name, value in values.items()}
        told["close"] = (entries["settle"]["close"], hashlib.sha256(close.encode()).hexdigest())
        told["evidence"] = (entries["run-close"]["evidence"], hashlib.sha256(evidence.encode()).hexdigest())
        for name, (commitment, value) in told.items():
            if committer.commit(name, value) != commitment:
                file = f"{name}.json" if name in ("close", "evidence") else "plan.json"
                yield f"{folder / file}: not what the log commits to ({name})"
        for kind, states in self._events.items():
            begin, value = self._logged[kind], entries[kind]["value"]
            found = [at for at in range(begin, len(states)) if committer.commit(kind, states[at]) == value]
            if not found:
                names = {"review": "reviews", "destroy": "destroyed", "screen": "screens"}
                file = getattr(self._collection, names.get(kind, "publications"))
                yield f"{file}: does not begin with what settle {settle.number:04d} logged of it"
            self._logged[kind] = max(found, default=begin)
        counts, total = close.counts, entries["settle"]
        if (counts.samples, counts.keep, counts.faults) != (total["in"], total["kept"], total["faults"]):
            yield f"{folder / 'close.json'}: counts otherwise than the log"
        if settle.end != evidence.log_size or set(settle.shards) != set(close.shards):
            yield f"{where}: is not of the size, or not of the shards, that its records name"
        for shard, entry in settle.shards.items():
            yield from self._shard_problems(settle, shard, entry, committer)

    def _shard_problems(
        self, settle: SettleEntries, shard: str, entry: dict[str, Any], committer: Committer
    ) -> Iterator[str]:
        folder = self._collection.settled(settle.number) / "decisions"
        settled = SettleCommit.read(folder / f"{shard}.json")
        digest = hashlib.sha256(settled.encode()).hexdigest()
        if (settled.samples, settled.keep) != (entry["in"], entry["kept"]) or (
            committer.commit(f"shard:{shard}", digest) != entry["details"]
        ):
            yield f"{folder / shard}.json: not the record that the log commits to"
        tar = None if settled.tar is None else settled.tar.sha256
        if settle.tars is not None and settle.tars.get(f"{shard}.tar") != tar:
            yield f"{folder / shard}.json: names another tar than the signed statements of the release"
        path = folder / settled.decisions.name
        if path in self._report.gone:
            return
        table = schema.read(path, sha256=settled.decisions.sha256)
        records = sample_records(table, shard=shard, settle=settle.number, secret=self._secret)
        if records_root(records) != entry["records"]:
            yield f"{path}: its records do not lead to the root in the log"
