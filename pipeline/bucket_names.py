"""What a bucket holds of a collection: which files count there, under which names, with which digests.

Owns names and the form of what lists them. Leaves the order of writes to `bucket.py`.

- Restricted and sealed files bear 16 hex of their digest in the name: no writer ever writes over another's. Files
  of a release have their plain names, and so has a copy of the log, for those who read them there.
- What lies in the journal is a machine's own, but for the receipts of those who vouch for the log.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.durable import TEMPORARY_PREFIX
from manifests.records import canonical_json
from pipeline.errors import RunError

HEAD, CLAIM = "head", "claim"
BEGUN = ("secret", "examine_plan.json")  # as they are, put once
CURRENT, CHECKPOINT = "current", "log/checkpoint"
_DIGEST = r"\.[0-9a-f]{16}"
_OF_SHARD = re.compile(
    rf"(?:examined|sealed)/(?P<shard>[^~/]+?)(?:~\d+)?\.(?:\d{{4,}}\.age|json|parquet|keyed)(?:{_DIGEST})?",
    re.DOTALL,
)
_SETTLED = re.compile(r"(?:settled|releases)/(\d{4,})/")


@dataclass(frozen=True, slots=True)
class Copy:
    """A file as it was seen; its time is not part of what it is."""

    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, known: Copy | None) -> Copy | None:
        """Return what lies at `path`, if anything does; what is known of a file with that size and time is true."""
        try:
            stat = path.stat()
            if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
                return known
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
        return cls(digest, stat.st_size, stat.st_mtime_ns)


Copies = dict[str, Copy]


def digests(copies: Mapping[str, Copy]) -> dict[str, str]:
    """Return the digest of each file by name."""
    return {name: copy.sha256 for name, copy in copies.items()}


def encode(copies: Mapping[str, Copy]) -> bytes:
    """Return what lists these files."""
    files = {name: [copy.sha256, copy.size, copy.mtime_ns] for name, copy in copies.items()}
    return canonical_json({"schema": 1, "kind": "copies", "files": files}) + b"\n"


def decode(data: bytes | None, place: str) -> Copies:
    """Read what lists files.

    Raises:
        RunError: it is missing or damaged, or names a file outside of a collection.
    """
    try:
        copies = {name: Copy(*values) for name, values in json.loads(data or b"")["files"].items()}
        good = encode(copies) == data and not any({"", ".", ".."} & set(name.split("/")) for name in copies)
    except (ValueError, TypeError, LookupError, AttributeError):
        good = False
    if not good:
        raise RunError(f"{place}: expected a list of files of a collection; run again, or restore the object")
    return copies


def decode_head(data: bytes | None, place: str) -> dict[str, str]:
    """Read the digests of the lists that `head` names.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return {str(group): str(digest) for group, digest in json.loads(data or b"")["lists"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        raise RunError(f"{place}: expected the head of a collection; run again, or restore the object") from None


def same(one: Copy | None, other: Copy | None) -> bool:
    """Say whether both are the same bytes, or both nothing."""
    return (one and one.sha256) == (other and other.sha256)


def key_of(name: str, copy: Copy) -> str:
    """Return the name of the object of a file."""
    return name if name.startswith("releases/") else f"{name}.{copy.sha256[:16]}"


def list_of(name: str) -> str:
    """Return which list names a file: that of its settle, or that of all else."""
    found = _SETTLED.match(name)
    return found[1] if found else "all"


def list_key(group: str, sha256: str) -> str:
    """Return the name of the object that is a list."""
    return f"lists/{group}.{sha256[:16]}"


def mark_of(shard: str) -> str:
    """Return the name of the object by which a shard counts that `head` does not name."""
    return f"marks/{shard}.json"


def shard_of(name: str) -> str | None:
    """Return the shard that a file, or its object, is of: its features, what is sealed of it, its commit."""
    found = _OF_SHARD.fullmatch(name)
    return found["shard"] if found else None


def commit_of(shard: str) -> str:
    """Return the name of the commit of a shard."""
    return f"examined/{shard}.json"


def marker_of(name: str) -> str | None:
    """Return the file that says of another one, by changing, that it is superseded."""
    shard = shard_of(name)
    return commit_of(shard) if shard is not None else CHECKPOINT if name.startswith("log/") else None


def is_public(name: str) -> bool:
    """Say whether a copy under its plain name is for those who follow the collection there."""
    return name.startswith("log/") or name == CURRENT


def is_last(name: str) -> bool:
    """Say whether a file is written after those that it tells of."""
    return marker_of(name) == name or name == CURRENT or name.endswith("/close.json")


def is_heavy(name: str) -> bool:
    """Say whether a machine can do without a file that only examines shards."""
    return name.startswith(("releases/", "sealed/")) or (shard_of(name) is not None and name.endswith(".parquet"))


def shard_files(home: Collection, shard: str) -> list[str]:
    """Return the names of the files that count of an examined shard, its commit last."""
    commit = ExamineCommit.read(home.commit(shard))
    sealed = [f"sealed/{item.name}" for item in commit.sealed]
    return [f"examined/{commit.features.name}", f"examined/{shard}.keyed", *sealed, commit_of(shard)]


def all_files(home: Collection) -> Iterator[str]:
    """Yield the names of all files that count, whether they are there or not: of closed settles only."""
    yield from (CURRENT, "reviews.jsonl", "destroyed.jsonl", "screens.jsonl", "holds.toml")
    for shard in home.committed_shards():
        yield from shard_files(home, shard)
    folders = [home.log, home.publications, *home.journal.glob("anchors-*")]
    for number in home.closed_settles():
        folders += [home.settled(number), home.release(number)]
    for folder in folders:
        for path in folder.rglob("*"):
            name = home.name_of(path)
            if path.is_file() and f"/{TEMPORARY_PREFIX}" not in name:
                yield name
