"""The names in a list store, its lock, and how what lies in it is destroyed.

- Whatever is destroyed is overwritten with zeros and synced before its name goes. What a file system or a disk
  keeps of overwritten blocks (snapshots, wear levelling) is out of reach: encrypted entries do not need it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from classifiers.blocklists.algorithms import ListError
from manifests import durable
from pipeline.lists.manifest import FILE_MODE, Gone, ListManifest, read_record

FOLDER_MODE = 0o700
LOCK = ".lock"
MANIFEST = "manifest.json"
REMOVED = "removed.json"
WITHDRAWN = "withdrawn.json"
ENTRIES: Mapping[bool, str] = MappingProxyType({True: "entries.age", False: "entries.bin"})  # by `sealed`
LIST_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"\d{4,}")
_ZEROS = bytes(1 << 20)


def folders_in(root: Path, name: re.Pattern[str] = LIST_ID) -> list[Path]:
    """Return the folders in `root` whose names match, sorted; none where there is no `root`."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and name.fullmatch(path.name))


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Wait until nobody else writes to the store; the kernel frees the lock when its holder dies."""
    fd = os.open(store / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def was_whole(version: Path) -> bool:
    """Say whether the folder is that of a version, not the leftover of an import."""
    return (version / MANIFEST).exists() or (version / REMOVED).exists()


def last_set_digest(version: Path) -> str | None:
    """Return the set digest that a version has, or had; None where it cannot be read any more."""
    try:
        if (version / REMOVED).exists():
            return read_record(version / REMOVED, Gone).set_digest
        return read_record(version / MANIFEST, ListManifest).set_digest
    except ListError:
        return None  # a list must be destroyable, whatever became of its manifest


def sweep(home: Path) -> None:
    """Remove from the folder of a list what a killed import or removal left."""
    durable.sweep(home)
    for folder in folders_in(home, VERSION):
        if (folder / REMOVED).exists():
            destroy(folder, keep=REMOVED)
        elif (folder / MANIFEST).exists():
            durable.sweep(folder)
        else:
            destroy(folder)


def destroy(folder: Path, keep: str = "") -> None:
    """Overwrite every file of `folder` with zeros and unlink it, and the folder too unless a file is kept."""
    for path in sorted(folder.iterdir()):
        if path.name == keep:
            continue
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            left = os.fstat(fd).st_size
            while left > 0:
                left -= os.write(fd, _ZEROS[:left])
            os.fsync(fd)
        finally:
            os.close(fd)
        path.unlink()
    durable.sync_folder(folder)
    if not keep:
        folder.rmdir()
        durable.sync_folder(folder.parent)
