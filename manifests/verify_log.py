"""The log's part of checking a collection: tree, signature, continuation, every entry against the files at hand.

Owns what an entry must agree with. Leaves bytes of tiles to `audit.tiles`, what signed statements say to
`verify_statements.py`, commitments to `verify_commitments.py`, features and decisions to `verify.py`.

- With log and releases alone: signatures, kept <= in, sums, digests of what was released. With the restricted tier
  also every commitment, and the root over the records of each shard's samples.
- What could not be checked, and why, is said; what is missing though an entry names it is a problem.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from manifests.anchors import split_note
from manifests.attest import FOLDER_SIGNATURE, STATEMENTS
from manifests.audit.entries import COMMITTED, decode_entry
from manifests.audit.log import CHECKPOINT, check_extends
from manifests.audit.note import MAX_NOTE_BYTES, Checkpoint, NoteError, NoteKey, open_checkpoint
from manifests.audit.tiles import LogError, Tiles, check_log, read_file
from manifests.collection import Collection
from manifests.commits import Close, Evidence, FileDigest, RecordError
from manifests.key_rotation import signing_keys
from manifests.records import FilesError
from manifests.signers import vkey
from manifests.verify_commitments import Commitments, SettleEntries
from manifests.verify_release import Report, file_problems
from manifests.verify_statements import StatementError, check_folder_signature, check_statements

Keys = Sequence[tuple[int, NoteKey]]
_ONCE = ("run-open", *COMMITTED, "settle", "run-close")


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


def verify_log(
    collection: Collection,
    report: Report,
    *,
    public_key: str = "",
    since: Path | None = None,
    model_key: Path | None = None,
) -> None:
    """Check the log of a collection, if it has one.

    Args:
        collection: with all its tiers, or with log and releases only.
        report: takes what was checked, and every problem.
        public_key: the verifier key (C2SP signed-note) that the reader trusts, and those that lead to it or follow
            it; without, no signature is checked.
        since: an older checkpoint, which the log must continue.
        model_key: the public key (PEM) that signed the folders of releases, if that is to be checked.
    """
    folder = collection.log
    if not (folder / CHECKPOINT).exists():
        if since is not None or public_key or model_key is not None:
            report.problems.append(f"{folder / CHECKPOINT}: missing")
        report.checked.append("no log is kept" if collection.examine_plan.is_file() else "there is no log")
        return
    try:
        checkpoint = _read_checkpoint(folder, report, public_key)
        check_log(folder, checkpoint.size, checkpoint.root)
        report.checked.append(f"log {checkpoint.origin}: {checkpoint.size} entries, every tile and the root")
        log = Tiles(folder, checkpoint.size)
        keys = signing_keys(log, NoteKey.parse(public_key)) if public_key else []
        if since is not None:
            older = _open(read_file(since, MAX_NOTE_BYTES), [key for _, key in keys])
            check_extends(folder, older, checkpoint)
            report.checked.append(f"log: continues the {older.size} entries of the older checkpoint")
        _Replay(collection, report, checkpoint, keys, model_key).check()
        if receipts := len(list(collection.journal.glob("anchors-*/*"))):
            report.checked.append(f"anchors: {receipts} receipts, not checked here: ask whoever gave them")
    except (FilesError, OSError) as error:
        report.problems.append(str(error))


def _open(note: bytes, keys: Sequence[NoteKey]) -> Checkpoint:
    return open_checkpoint(note, keys[0].name, keys) if keys else split_note(note)[1]


def _read_checkpoint(folder: Path, report: Report, public_key: str) -> Checkpoint:
    path, said = folder / CHECKPOINT, "no --public-key, signatures of log, statements and folders not checked"
    try:
        note, keys = read_file(path, MAX_NOTE_BYTES), [NoteKey.parse(public_key)] if public_key else []
        if keys:
            with suppress(LogError, NoteError):  # it may be signed by a later key, to which statements lead
                keys = [signing_keys(Tiles(folder, split_note(note)[1].size), keys[0])[-1][1]]
            newest = vkey(keys[0].name, keys[0].public)
            said = f"signed by {'' if newest == public_key else 'the key that follows yours, '}{newest}"
        checkpoint = _open(note, keys)
    except FilesError as error:
        raise RecordError(f"{path}: {error}") from None
    report.checked.append(f"log {checkpoint.origin}: {said}")
    return checkpoint


class _Replay:
    """Reads the log from its begin, a settle at a time."""

    def __init__(
        self, collection: Collection, report: Report, checkpoint: Checkpoint, keys: Keys, model_key: Path | None
    ) -> None:
        self._collection, self._report, self._checkpoint = collection, report, checkpoint
        self._keys, self._model_key = keys, model_key
        self._restricted = collection.examine_plan.is_file()
        self._commitments = Commitments(collection, report) if self._restricted else None
        self._signed = Counter[str]()

    def check(self) -> None:
        """Hold every entry against the files."""
        done = []
        for settle in self._settles(self._checkpoint.size):
            self._report.problems += self._problems(settle)
            done.append(settle.number)
        self._report.checked += [f"{count} releases: {what}" for what, count in sorted(self._signed.items())]
        if self._commitments is None:
            self._report.checked.append("the restricted tier is not at hand: reasons, commitments not checked")
            return
        logged = {number: size for number, size in self._sizes() if size}
        self._report.problems += [
            f"{self._collection.log}: has no entries of settle {number:04d}"
            for number in logged
            if number not in done
        ]
        self._report.checked.append(f"log: {len(done)} settles, every entry, commitment and root of records")
        self._report.checked += self._commitments.unlogged()

    def _sizes(self) -> Iterator[tuple[int, int]]:
        for number in self._collection.closed_settles():
            path = self._collection.settled(number) / "evidence.json"
            if path.exists():
                yield number, Evidence.read(path).log_size

    def _settles(self, size: int) -> Iterator[SettleEntries]:
        settle: SettleEntries | None = None
        for number, data in enumerate(Tiles(self._collection.log, size).all_entries()):
            entry = decode_entry(data, number)
            kind = entry["kind"]
            if kind == "key-rotation":
                continue
            if kind == "run-open" and settle is None:
                settle = SettleEntries(entry["settle"])
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

    def _problems(self, settle: SettleEntries) -> Iterator[str]:
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
        elif total["uids"] is not None and not self._restricted:
            self._report.checked.append(f"release {settle.number:04d}: not at hand, not checked")
        if self._commitments is not None:
            yield from self._commitments.problems(settle, where)

    def _release_problems(self, settle: SettleEntries, release: Path) -> Iterator[str]:
        named = {"summary.json": settle.entries["settle"]["summary"], "uids.npy": settle.entries["settle"]["uids"]}
        named |= settle.entries["run-close"]["files"]
        named |= {f"manifest/{name}.parquet": one["manifest"] for name, one in settle.shards.items()}
        changed = {name for name, sha256 in named.items() if sha256 is None or _digest(release / name) != sha256}
        for name in sorted(changed):
            yield f"{release / name}: missing, or not what the log names"
        names, told = ("in", "kept", "not_kept", "faults"), [None]
        with suppress(OSError, ValueError, LookupError, TypeError):
            told = list(map(json.loads((release / "summary.json").read_bytes()).__getitem__, names))
        if "summary.json" not in changed and told != [settle.entries["settle"][name] for name in names]:
            yield f"{release / 'summary.json'}: counts otherwise than the log"
        try:
            yield from self._statement_problems(settle, release, named)
        except StatementError as error:
            yield str(error)

    def _statement_problems(self, settle: SettleEntries, release: Path, named: dict[str, str]) -> Iterator[str]:
        if STATEMENTS not in named:
            yield f"{release / STATEMENTS}: the log names no statements of this release"
        if not self._keys or STATEMENTS not in named:
            return
        said = {name: sha256 for name, sha256 in named.items() if name not in (STATEMENTS, FOLDER_SIGNATURE)}
        key = [key for begin, key in self._keys if begin <= settle.end][-1]
        folder = self._collection.log
        files = check_statements(release, settle.entries, settle.end, key, folder, self._checkpoint)
        self._signed["statements, signed by the log's key, say what its entries say"] += 1
        tars = {name for name in files.keys() - said.keys() if name.startswith("shards/")}
        if {name: files[name] for name in files.keys() - tars} != said:
            yield f"{release / STATEMENTS}: is about other files, or files otherwise, than the log names"
        if self._restricted:
            settle.tars = {name.removeprefix("shards/"): files[name] for name in tars}
        else:
            wrong = [name for name in sorted(tars) if _digest(release / name) != files[name]]
            yield from (f"{release / name}: missing, or not what the statements name" for name in wrong)
            found = {path.relative_to(release).as_posix() for path in release.rglob("*") if not path.is_dir()}
            extra = sorted(found - files.keys() - named.keys())
            yield from (f"{release / name}: named by no statement" for name in extra)
        if FOLDER_SIGNATURE in named:
            every = {**files, STATEMENTS: named[STATEMENTS]}
            check_folder_signature(release, every, self._model_key)
            known = "checked" if self._model_key else "not checked without --model-key"
            self._signed[f"{FOLDER_SIGNATURE} names the files that are there, its signature was {known}"] += 1


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
