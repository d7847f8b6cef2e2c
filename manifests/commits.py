"""Commit records: the only completion markers, written last.

Owns the JSON of an examined shard, of a settled shard and of a close. Each names the files that count and
their digests; a file that no record names does not exist for any reader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from manifests import durable
from manifests.records import SCHEMA_VERSION, FilesError, canonical_json

RecordT = TypeVar("RecordT", bound="Record")


class RecordError(FilesError):
    """A record is missing, damaged or of another version."""


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file by name (relative to the folder its record belongs to), digest and size in bytes."""

    name: str
    sha256: str
    size: int

    @classmethod
    def of(cls, name: str, data: bytes) -> FileDigest:
        """Return the digest of these bytes under a name."""
        return cls(name, hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A sealed file by name and padded plaintext size. No digest: encryption is never the same twice."""

    name: str
    padded_size: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Why the features of a shard were written again, and for which settle."""

    why: str
    settle: int


class Record:
    """What all records share: a kind, a version, one canonical encoding."""

    __slots__ = ()
    kind: ClassVar[str]

    def encode(self) -> bytes:
        """Return the record's bytes."""
        return canonical_json({"schema": SCHEMA_VERSION, "kind": self.kind, **_values(self)}) + b"\n"

    def write(self, path: Path, *, replace: bool, mode: int) -> None:
        """Write the record durably."""
        durable.write(path, self.encode(), replace=replace, mode=mode)

    @classmethod
    def read(cls: type[RecordT], path: Path) -> RecordT:
        """Read a record.

        Raises:
            RecordError: the file is missing, not JSON, or not a record of this kind and version.
        """
        try:
            data = path.read_bytes()
            raw: Any = json.loads(data.decode())
        except FileNotFoundError:
            raise RecordError(f"{path}: missing") from None
        except ValueError:
            raise RecordError(f"{path}: not valid JSON; restore the file or do the work again") from None
        if not isinstance(raw, dict) or (raw.pop("schema", None), raw.pop("kind", None)) != (
            SCHEMA_VERSION,
            cls.kind,
        ):
            raise RecordError(f"{path}: not a record of kind {cls.kind!r}, version {SCHEMA_VERSION}")
        names = {item.name for item in fields(cls)}  # type: ignore[arg-type] # as above
        if set(raw) != names:
            raise RecordError(
                f"{path}: keys {sorted(set(raw) ^ names)} are missing or unknown in kind {cls.kind!r}"
            )
        record = cls._from_json(raw, str(path))
        if record.encode() != data:
            raise RecordError(f"{path}: not in the one form that records are written in; restore the file")
        return record

    @classmethod
    def _from_json(cls: type[RecordT], raw: dict[str, Any], source: str) -> RecordT:
        try:
            return cls(**{name: _NESTED[name](value) if name in _NESTED else value for name, value in raw.items()})
        except (TypeError, ValueError, AttributeError):
            raise RecordError(f"{source}: a value is not of the form that kind {cls.kind!r} states") from None


@dataclass(frozen=True, slots=True)
class ExamineCommit(Record):
    """One examined shard. `faults` leaves withheld samples out: only their identity is known here.

    batch: rows of the batches that its features were made in; less than the plan's where memory was short.
    """

    kind: ClassVar[str] = "examined"
    shard: str
    plan: str
    stamps: tuple[str, ...]
    input_sha256: str | None
    input_size: int
    sidecar_sha256: str | None
    damage: str | None
    samples: int
    identities: str
    batch: int
    rows: int
    faults: int
    withheld: int
    judged_under: str
    generation: int
    features: FileDigest
    sealed: tuple[SealedFile, ...]
    rewrites: tuple[Rewrite, ...] = ()


def smaller_batches(commits: Iterable[ExamineCommit], batch: int) -> Iterator[str]:
    """Say how many shards were examined in smaller batches than the plan's `batch`, if any were."""
    count = sum(commit.batch != batch for commit in commits)
    if count:
        yield f"{count} shards were examined in smaller batches than the plan's {batch}, for want of memory"


@dataclass(frozen=True, slots=True)
class SettleCommit(Record):
    """One settled shard. `keep + remove + quarantine + withheld == samples`; `seal` is inside withheld.

    matched: whether an entry of a list is near to a row whose features are in clear; if not, the same features need
    not be matched with the same lists again.
    """

    kind: ClassVar[str] = "settled"
    shard: str
    plan: str
    stamps: tuple[str, ...]
    samples: int
    identities: str
    keep: int
    remove: int
    quarantine: int
    withheld: int
    faults: int
    reasons: dict[str, int]
    examined: str
    matched: bool
    decisions: FileDigest
    manifest: FileDigest | None
    tar: FileDigest | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of a settle."""

    shards: int = 0
    samples: int = 0
    keep: int = 0
    remove: int = 0
    quarantine: int = 0
    withheld: int = 0
    faults: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def plus(self, commit: SettleCommit) -> Counts:
        """Return these totals with one more shard."""
        reasons = dict(self.reasons)
        for name, count in commit.reasons.items():
            reasons[name] = reasons.get(name, 0) + count
        return Counts(
            self.shards + 1,
            self.samples + commit.samples,
            self.keep + commit.keep,
            self.remove + commit.remove,
            self.quarantine + commit.quarantine,
            self.withheld + commit.withheld,
            self.faults + commit.faults,
            reasons,
        )


@dataclass(frozen=True, slots=True)
class Flood:
    """An entry of a list that more samples come near to than the hit cap allows; `entry` is its number."""

    list_id: str
    version: int
    algorithm: str
    entry: int
    samples: int


@dataclass(frozen=True, slots=True)
class Close(Record):
    """The end of one settle: what it rests on, what it counted, what it released or why it did not.

    canaries: how many the lists hold, every one of which was found. flooded: entries over the hit cap. changes:
    what became of samples since the settle before, None for the first.
    """

    kind: ClassVar[str] = "close"
    number: int
    plan: str
    examine_plan: str
    stamps: tuple[str, ...]
    counts: Counts
    shards: dict[str, str]
    released: bool
    refused: tuple[str, ...]
    canaries: int
    flooded: tuple[Flood, ...]
    changes: FileDigest | None
    uids: FileDigest | None
    release_summary: FileDigest | None


@dataclass(frozen=True, slots=True)
class Evidence(Record):
    """What was said of a settle after its close: reports, statements, openings of what the log commits to.

    close: digest of the close's record. log_size: entries of the log up to the checkpoint that the statements cite,
    0 where no log is kept; the entry after them names this record. files: by their names in the collection.
    """

    kind: ClassVar[str] = "evidence"
    number: int
    close: str
    log_size: int
    files: tuple[FileDigest, ...]


def _values(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any record, or what one is made of
    """Return the values of a dataclass as JSON has them; unlike `asdict`, it copies no plain ones."""
    return {item.name: _plain(getattr(record, item.name)) for item in fields(record)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _values(value) if is_dataclass(value) else value


def _digest_or_none(value: dict[str, Any] | None) -> FileDigest | None:
    return None if value is None else FileDigest(**value)


_NESTED: dict[str, Any] = {
    "stamps": tuple,
    "refused": tuple,
    "features": lambda value: FileDigest(**value),
    "decisions": lambda value: FileDigest(**value),
    "manifest": _digest_or_none,
    "tar": _digest_or_none,
    "changes": _digest_or_none,
    "uids": _digest_or_none,
    "release_summary": _digest_or_none,
    "files": lambda items: tuple(FileDigest(**item) for item in items),
    "sealed": lambda items: tuple(SealedFile(**item) for item in items),
    "rewrites": lambda items: tuple(Rewrite(**item) for item in items),
    "counts": lambda value: Counts(**value),
    "flooded": lambda items: tuple(Flood(**item) for item in items),
}
