"""The log's part of checking a collection: tree, signature, continuation, every entry against the files at hand.

Owns what an entry must agree with. Leaves bytes of tiles to `audit.tiles`, features and decisions to `verify.py`.

- With log and releases alone: signature, kept <= in, sums, digests of what was released. With the restricted tier
  also every commitment, and the root over the records of each shard's samples.
- What could not be checked, and why, is said; what is missing though an entry names it is a problem.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests import schema
from manifests.anchors import split_note
from manifests.audit.entries import Committer, decode_entry, records_root, sample_records
from manifests.audit.log import CHECKPOINT, check_extends
from manifests.audit.note import MAX_NOTE_BYTES, Checkpoint, NoteKey, open_checkpoint
from manifests.audit.tiles import Tiles, check_log, read_file
from manifests.collection import Collection
from manifests.commits import Close, Evidence, FileDigest, RecordError, SettleCommit
from manifests.keyed import read_secret
from manifests.records import FilesError
from manifests.verify_release import Report, file_problems

_COMMITTED = ("policy", "model", "list", "canary", "override")
_ONCE = ("run-open", *_COMMITTED, "review", "destroy", "publish", "settle", "run-close")


def verify_evidence(collection: Collection, close: Close, report: Report) -> tuple[set[str], set[str]]:
    """Check what was said of a settle after its close; return its names in the folders of settle and release."""
    settled, release = collection.settled(close.number), collection.release(close.number)
    try:
        evidence = Evidence.read(settled / "evidence.json")
    except RecordError as error:
        report.problems.append(
            f"{error}; the close of settle {close.number:04d} was not finished: run `settle` again"
        )
        return {"evidence.json"}, set()
    if evidence.close != hashlib.sha256(close.encode()).hexdigest() or evidence.number != close.number:
        report.problems.append(f"{settled / 'evidence.json'}: is of another close")
    named: tuple[set[str], set[str]] = {"evidence.json"}, set()
    for item in evidence.files:
        path = collection.path_of(item.name)
        named[path.parent == release].add(path.name)
        if path not in report.gone:
            report.problems += file_problems(path.parent, FileDigest(path.name, item.sha256, item.size))
    return named


def verify_log(collection: Collection, report: Report, *, public_key: str = "", since: Path | None = None) -> None:
    """Check the log of a collection, if it has one.

    Args:
        collection: with all its tiers, or with log and releases only.
        report: takes what was checked, and every problem.
        public_key: the verifier key (C2SP signed-note) that the reader trusts; without, no signature is checked.
        since: an older checkpoint, which the log must continue.
    """
    folder = collection.log
    if not (folder / CHECKPOINT).exists():
        if since is not None or public_key:
            report.problems.append(f"{folder / CHECKPOINT}: missing")
        report.checked.append("no log is kept" if collection.examine_plan.is_file() else "there is no log")
        return
    try:
        checkpoint = _read_checkpoint(folder, report, public_key)
        check_log(folder, checkpoint.size, checkpoint.root)
        report.checked.append(f"log {checkpoint.origin}: {checkpoint.size} entries, every tile and the root")
        if since is not None:
            older = _open(read_file(since, MAX_NOTE_BYTES), public_key)
            check_extends(folder, older, checkpoint)
            report.checked.append(f"log: continues the {older.size} entries of the older checkpoint")
        _Replay(collection, report).check(checkpoint)
    except (FilesError, OSError) as error:
        report.problems.append(str(error))


def _open(note: bytes, public_key: str) -> Checkpoint:
    if not public_key:
        return split_note(note)[1]
    key = NoteKey.parse(public_key)
    return open_checkpoint(note, key.name, [key])


def _read_checkpoint(folder: Path, report: Report, public_key: str) -> Checkpoint:
    path = folder / CHECKPOINT
    try:
        checkpoint = _open(read_file(path, MAX_NOTE_BYTES), public_key)
    except FilesError as error:
        raise RecordError(f"{path}: {error}") from None
    known = f"signed by {public_key.partition('+')[0]}" if public_key else "no --public-key, signature not checked"
    report.checked.append(f"log {checkpoint.origin}: {known}")
    return checkpoint


@dataclass(slots=True)
class _Settle:
    """What the entries of one settle say."""

    number: int
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: int = 0


class _Replay:
    """Reads the log from its begin, a settle at a time."""

    def __init__(self, collection: Collection, report: Report) -> None:
        self._collection, self._report = collection, report
        self._restricted = collection.examine_plan.is_file()

    def check(self, checkpoint: Checkpoint) -> None:
        """Hold every entry against the files."""
        done = []
        for settle in self._settles(checkpoint.size):
            self._report.problems += self._problems(settle)
            done.append(settle.number)
        if not self._restricted:
            self._report.checked.append("the restricted tier is not at hand: reasons, commitments not checked")
            return
        logged = {number: size for number, size in self._sizes() if size}
        self._report.problems += [
            f"{self._collection.log}: has no entries of settle {number:04d}"
            for number in logged
            if number not in done
        ]
        self._report.checked.append(f"log: {len(done)} settles, every entry, commitment and root of records")

    def _sizes(self) -> Iterator[tuple[int, int]]:
        for number in self._collection.closed_settles():
            path = self._collection.settled(number) / "evidence.json"
            if path.exists():
                yield number, Evidence.read(path).log_size

    def _settles(self, size: int) -> Iterator[_Settle]:
        settle: _Settle | None = None
        for number, data in enumerate(Tiles(self._collection.log, size).all_entries()):
            entry = decode_entry(data, number)
            kind = entry["kind"]
            if kind == "key-rotation":
                continue
            if kind == "run-open" and settle is None:
                settle = _Settle(entry["settle"])
            if settle is None or entry.get("settle") != settle.number:
                raise RecordError(f"{self._collection.log}: entry {number} stands outside of its settle")
            place, name = (settle.shards, entry.get("shard")) if kind == "shard-commit" else (settle.entries, kind)
            if name in place:
                raise RecordError(f"{self._collection.log}: entry {number} stands twice")
            place[str(name)] = entry
            if kind == "run-close":
                settle.end = number
                yield settle
                settle = None
        if settle is not None:
            raise RecordError(
                f"{self._collection.log}: settle {settle.number:04d} has no close; run `settle` again"
            )

    def _problems(self, settle: _Settle) -> Iterator[str]:
        where = f"{self._collection.log}: settle {settle.number:04d}"
        if set(settle.entries) != set(_ONCE):
            yield f"{where}: lacks entries, or has others"
            return
        total = settle.entries["settle"]
        for name in ("in", "kept", "not_kept"):
            if sum(entry[name] for entry in settle.shards.values()) != total[name]:
                yield f"{where}: {name} is not the sum of its shards"
        wrong = [name for name, one in settle.shards.items() if one["kept"] + one["not_kept"] != one["in"]]
        if wrong or total["shards"] != len(settle.shards):
            yield f"{where}: a shard keeps more than it has, or is left out"
        release = self._collection.release(settle.number)
        if release.is_dir() and not any(path.is_relative_to(release) for path in self._report.gone):
            yield from self._release_problems(settle, release)
        if self._restricted:
            yield from self._restricted_problems(settle, where)

    def _release_problems(self, settle: _Settle, release: Path) -> Iterator[str]:
        named = {"summary.json": settle.entries["settle"]["summary"], "uids.npy": settle.entries["settle"]["uids"]}
        named |= settle.entries["run-close"]["files"]
        named |= {f"manifest/{name}.parquet": one["manifest"] for name, one in settle.shards.items()}
        changed = {name for name, sha256 in named.items() if sha256 is None or _digest(release / name) != sha256}
        for name in sorted(changed):
            yield f"{release / name}: missing, or not what the log names"
        if "summary.json" in changed:
            return
        told = json.loads((release / "summary.json").read_bytes())
        if any(told[name] != settle.entries["settle"][name] for name in ("in", "kept", "not_kept", "faults")):
            yield f"{release / 'summary.json'}: counts otherwise than the log"

    def _restricted_problems(self, settle: _Settle, where: str) -> Iterator[str]:
        folder, secret = self._collection.settled(settle.number), read_secret(self._collection)
        committer = Committer(secret, settle.number)
        close, evidence = Close.read(folder / "close.json"), Evidence.read(folder / "evidence.json")
        try:
            plan = json.loads((folder / "plan.json").read_bytes())
            decide = plan["decide"]
            values = {
                "policy": {name: decide[name] for name in ("policy", "policy_digest", "policy_text")},
                "model": plan["examine"],
                "list": decide["lists"],
                "canary": {"asked": close.canaries, "found": close.canaries},
                "override": decide["overrides"],
            }
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
        counts, total = close.counts, entries["settle"]
        if (counts.samples, counts.keep, counts.faults) != (total["in"], total["kept"], total["faults"]):
            yield f"{folder / 'close.json'}: counts otherwise than the log"
        if settle.end != evidence.log_size or set(settle.shards) != set(close.shards):
            yield f"{where}: is not of the size, or not of the shards, that its records name"
        for shard, entry in settle.shards.items():
            yield from self._shard_problems(settle.number, shard, entry, committer, secret)

    def _shard_problems(
        self, number: int, shard: str, entry: dict[str, Any], committer: Committer, secret: bytes
    ) -> Iterator[str]:
        folder = self._collection.settled(number) / "decisions"
        settled = SettleCommit.read(folder / f"{shard}.json")
        digest = hashlib.sha256(settled.encode()).hexdigest()
        if (settled.samples, settled.keep) != (entry["in"], entry["kept"]) or (
            committer.commit(f"shard:{shard}", digest) != entry["details"]
        ):
            yield f"{folder / shard}.json: not the record that the log commits to"
        path = folder / settled.decisions.name
        if path in self._report.gone:
            return
        table = schema.read(path, sha256=settled.decisions.sha256)
        if records_root(sample_records(table, shard=shard, settle=number, secret=secret)) != entry["records"]:
            yield f"{path}: its records do not lead to the root in the log"


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
