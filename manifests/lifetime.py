"""What people did to a collection, and how what it stores ends.

Owns chained records, one line of canonical JSON each, bound to the line before by its SHA-256; what a tier holds
that can be destroyed; and destruction, which is recorded before the first file goes.

- Commits, closes, plans, counts, keyed digests and the records themselves are never destroyed: a collection can
  always say what it was.
- Files of shards on hold stay. Unlinking is not wiping: disks, snapshots and backups are their owner's.
- Nothing ends by itself, also past its retention. What belongs to a settle is as old as its close, all else as its
  own mtime: a copy that keeps mtimes keeps ages.
- What is missing and recorded here is no problem to `verify`; what is missing otherwise is.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.commits import Close, RecordError
from manifests.records import SCHEMA_VERSION, canonical_json

TIERS = ("restricted", "journal", "sealed", "release")
REVIEW_KEYS = {"key", "action", "by", "why", "on"}
_DESTRUCTION_KEYS = {"tier", "settle", "on", "by", "agreed", "why", "files"}
_HOLD_KEYS = {"shard", "until", "by"}


def read_chain(path: Path, keys: set[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the records at `path`, oldest first, and the SHA-256 of each line, after "" for none.

    Raises:
        RecordError: a line is not what was recorded, with exactly these keys, after the line before.
    """
    records: list[dict[str, Any]] = []
    heads = [""]
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.exists() else [], start=1):
        try:
            record = json.loads(line)
            same = _line(record, heads[-1]) == line and record.keys() == keys | {"schema", "previous"}
        except (ValueError, TypeError):
            same = False
        if not same:
            raise RecordError(
                f"{path}: line {number} is not what was recorded after the line before; restore the file"
            )
        records.append(record)
        heads.append(hashlib.sha256(line).hexdigest())
    return records, heads


def logged_events(collection: Collection) -> dict[str, list[object]]:
    """Return, by kind of log entry, each state so far of what people did: the empty one first."""
    published = sorted(path.name for path in collection.publications.glob("*"))
    states: dict[str, list[object]] = {"publish": [published[:count] for count in range(len(published) + 1)]}
    chains = {"review": collection.reviews, "destroy": collection.destroyed, "screen": collection.screens}
    for kind, path in chains.items():
        data, so_far, states[kind] = path.read_bytes() if path.exists() else b"", hashlib.sha256(), []
        for lines, line in enumerate([b"", *data.splitlines(keepends=True)]):
            so_far.update(line)
            states[kind].append({"lines": lines, "sha256": so_far.hexdigest()})
    return states


def append(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Add records to the chain at `path`, all of them or none.

    Raises:
        RecordError: the chain is broken; nothing is added to it.
    """
    head = read_chain(path, set(records[0]))[1][-1]
    data = path.read_bytes() if head else b""
    for record in records:
        line = _line(record, head)
        data, head = data + line, hashlib.sha256(line).hexdigest()
    durable.write(path, data, replace=True, mode=RESTRICTED_FILE_MODE)


def _line(record: dict[str, Any], previous: str) -> bytes:
    return canonical_json({**record, "schema": SCHEMA_VERSION, "previous": previous}) + b"\n"


def destroyed_names(collection: Collection) -> set[str]:
    """Return the names of all files whose destruction was recorded.

    Raises:
        RecordError: the record is broken.
    """
    return {name for one in read_chain(collection.destroyed, _DESTRUCTION_KEYS)[0] for name in one["files"]}


def read_destroyed(collection: Collection) -> dict[Path, str]:
    """Return the files that are gone, as was recorded, with the tier and the day.

    Raises:
        RecordError: the record is broken; then nothing that is missing is explained.
    """
    records, _ = read_chain(collection.destroyed, _DESTRUCTION_KEYS)
    named = {
        collection.path_of(name): f"{one['tier']}: destroyed on {one['on']}"
        for one in records
        for name in one["files"]
    }
    return {path: text for path, text in named.items() if not path.exists()}


def say_missing(path: Path) -> str:
    """Say of a file in a collection why it is not there, though a record names it.

    Raises:
        RecordError: the record of what was destroyed is broken.
    """
    for home in map(Collection, path.parents[:4]):
        if home.destroyed.exists() and path in (gone := read_destroyed(home)):
            return f"{path}: tier {gone[path]}, as {home.destroyed} records; it cannot be had back"
    return f"{path}: missing, though a record names it"


def held_shards(collection: Collection, *, today: date) -> set[str]:
    """Return the shards that `holds.toml`, written by people, keeps today.

    Raises:
        RecordError: it is not usable, or names a shard that is not there: a slip must not end a hold.
    """
    if not collection.holds.exists():
        return set()
    try:
        items = tomllib.loads(collection.holds.read_text(encoding="utf-8"))["hold"]
        usable = all(item.keys() == _HOLD_KEYS and type(item["until"]) is date for item in items)
        if usable and {item["shard"] for item in items} <= set(collection.committed_shards()):
            return {item["shard"] for item in items if item["until"] >= today}
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # told below
    raise RecordError(
        f"{collection.holds}: expected tables [[hold]] with shard (an examined one), until (a date), by; "
        "nothing is destroyed until it is put right"
    )


def find_files(
    collection: Collection, tier: str, *, settle: int | None, newest_too: bool, today: date, days: int | None = None
) -> tuple[list[Path], int]:
    """Return the files of a tier that can be destroyed, of one settle or of all, and how many stay for a hold.

    `days`: only those that were written more days ago, and never the journal's note of the configuration.

    Raises:
        RecordError: a close or `holds.toml` is damaged.
    """
    numbers = [number for number in collection.closed_settles() if settle in (None, number)]
    patterns = {"journal": ["journal/**/*"], "sealed": ["sealed/*.age"]}.get(tier, [])
    if tier == "restricted":
        mine = "settled/*" if settle is None else f"settled/{settle:04d}"
        patterns = [
            f"{mine}/{name}"
            for name in ("decisions/*.parquet", "*.parquet", "spread*", "around", "report.*", "openings.json")
        ]
        patterns += ["examined/*.parquet"] if settle is None else []
    if tier == "release":
        newest = [
            n for n in collection.closed_settles() if Close.read(collection.settled(n) / "close.json").released
        ]
        patterns = [f"releases/{n:04d}/**/*" for n in numbers if newest_too or n not in newest[-1:]]
    home = collection.home({"release": "releases"}.get(tier, tier))
    found = sorted(path for pattern in patterns for path in home.glob(pattern) if path.is_file())
    if days is not None:
        oldest = today - timedelta(days)
        found = [path for path in found if (day := _written(collection, path)) is not None and day < oldest]
    held = held_shards(collection, today=today) if tier in ("restricted", "sealed") else ()
    # The journal's lock is in use.
    of_journal = r"lock" if days is None else r"lock|config"
    stays = re.compile("|".join(map(collection.files_of, held)) or of_journal, re.DOTALL)
    free = [path for path in found if not stays.fullmatch(path.name)]
    return free, len(found) - len(free) if held else 0


def _written(collection: Collection, path: Path) -> date | None:
    """Return the day on which a file was written; None for one of a settle that is not closed."""
    folder, _, rest = collection.name_of(path).partition("/")
    if folder in ("settled", "releases"):
        path = collection.settled(int(rest.partition("/")[0])) / "close.json"
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date() if path.exists() else None


def destroy(collection: Collection, files: Sequence[Path], **about: object) -> None:
    """Record the destruction of `files`, then do it; what an interrupted one recorded is finished.

    about: tier, settle, on, by, agreed, why. Files of another tier than `TIERS` lie outside of the collection, and
    are recorded by the tier and their own name.

    Raises:
        RecordError: the chain of records is broken.
        OSError: a file could not be removed; the same call goes on.
    """
    records, _ = read_chain(collection.destroyed, _DESTRUCTION_KEYS)
    known = {item for one in records for item in one["files"].items()}
    inside = about["tier"] in TIERS
    named = {collection.name_of(one) if inside else f"{about['tier']}/{one.name}": _digest(one) for one in files}
    fresh = dict(named.items() - known)
    if fresh:
        append(collection.destroyed, [{**about, "files": fresh}])
    for path in reversed(files):  # the summary of a release goes before its tables: what lacks it is none
        path.unlink()
    for folder in {path.parent for path in files}:
        durable.sweep(folder)
        durable.sync_folder(folder)
    for folder in sorted(collection.releases.glob("**/"), reverse=True):
        if about["tier"] == "release" and not any(folder.iterdir()):
            folder.rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
