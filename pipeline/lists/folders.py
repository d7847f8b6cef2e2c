"""The names in a list store, its lock and key, and how what lies in it is destroyed.

- Whatever is destroyed is overwritten with zeros and synced before its name goes. What a file system or a disk
  keeps of overwritten blocks (snapshots, wear levelling) is out of reach: encrypted entries do not need it.
- The key is an age identity, readable by its owner only, outside of the store.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pyrage

from classifiers.blocklists.algorithms import ListError
from manifests import durable
from pipeline.lists.manifest import ListManifest, Removed, read_record

FILE_MODE, FOLDER_MODE = 0o600, 0o700
LOCK = ".lock"
MANIFEST = "manifest.json"
REMOVED = "removed.json"
WITHDRAWN = "withdrawn.json"
ENTRIES: Mapping[bool, str] = MappingProxyType({True: "entries.age", False: "entries.bin"})  # by `encrypted`
LIST_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9]{4}|[1-9][0-9]{4,}")  # each number in one way
_ZEROS = bytes(1 << 20)
_MAKE = "`shardscrub lists keys new FILE` makes one"


def folders_in(root: Path, name: re.Pattern[str]) -> list[Path]:
    """Return the folders in `root` whose names match, sorted; none where there is no `root`."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and name.fullmatch(path.name))


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Wait until nobody else writes to the store; the kernel frees the lock when its holder dies."""
    fd = os.open(store / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    with os.fdopen(fd):
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def read_key(path: Path | None, *, store: Path) -> pyrage.x25519.Identity:
    """Read the key file of `store`.

    Raises:
        ListError: there is none, it lies in the store, others can read it, or it is no age identity.
    """
    if path is None:
        raise ListError(f"{store}: its lists are encrypted: give the store's key file; {_MAKE}")
    if path.resolve().is_relative_to(store.resolve()):
        raise ListError(f"{path}: the key lies in the store that it opens; move it to another place")
    if not path.is_file():
        raise ListError(f"{path}: no such key file; {_MAKE}")
    with path.open(encoding="ascii", errors="replace") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        secret = next((line.strip() for line in file if line.startswith("AGE-SECRET-KEY-")), "")
    if mode & 0o077:
        raise ListError(f"{path}: others can read this key (mode {mode:04o}); chmod 600 it")
    try:
        return pyrage.x25519.Identity.from_str(secret)
    except pyrage.IdentityError:
        raise ListError(f"{path}: expected an age identity (AGE-SECRET-KEY-1...); {_MAKE}") from None


def is_standing(version: Path) -> bool:
    """Say whether the folder is that of a version that can be read."""
    return (version / MANIFEST).exists() and not (version / REMOVED).exists()


def was_whole(version: Path) -> bool:
    """Say whether the folder is that of a version, removed or not, and not the leftover of an import."""
    return (version / MANIFEST).exists() or (version / REMOVED).exists()


def last_set_digest(version: Path) -> str | None:
    """Return the set digest that a version has, or had; None where it cannot be read any more."""
    try:
        if (version / REMOVED).exists():
            return read_record(version / REMOVED, Removed).set_digest
        return read_record(version / MANIFEST, ListManifest).set_digest
    except ListError:
        return None  # a list must be destroyable, whatever became of its manifest


def sweep(home: Path) -> None:
    """Remove from the folder of a list what a killed import or removal left."""
    durable.sweep(home)
    for folder in folders_in(home, VERSION):
        if is_standing(folder):
            durable.sweep(folder)
        else:
            destroy(folder, keep=REMOVED)


def destroy(folder: Path, keep: str = "") -> None:
    """Overwrite every file of `folder` with zeros and unlink it, and the folder too unless `keep` is there."""
    for path in sorted(folder.iterdir()):
        if path.name == keep:
            continue
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb") as file:
            left = os.fstat(file.fileno()).st_size
            while left > 0:
                left -= file.write(_ZEROS[:left])
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    durable.sync_folder(folder)
    if not (keep and (folder / keep).exists()):
        folder.rmdir()
        durable.sync_folder(folder.parent)
