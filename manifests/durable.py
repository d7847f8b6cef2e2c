"""The one way bytes reach a disk: whole or not at all.

Owns temporary names, fsync, rename and put-if-absent. Leaves to others what is written and when.

- A reader sees the old file, the new file or none, never half of one.
- `create(..., replace=False)` is put-if-absent: an existing file with other bytes is an error, with the same
  bytes it is success (doing finished work again does nothing).
- Modes are those asked for, whatever the umask: who may read is said by the tier, not by who runs.
- A failed fsync is never retried: the write fails (see "Can Applications Recover from fsync Failures?", ATC'20).
- Where the file system knows unnamed files (O_TMPFILE) a killed writer leaves nothing behind; elsewhere, and in
  the moment of a rename, a name starting with `.tmp-` may stay, which `sweep` removes.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".tmp-"
_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DurableError(OSError):
    """A write could not be made durable, or would have changed a file that is already final."""


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(fd, folder)
    finally:
        os.close(fd)


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Make `folder` and its parents, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    folder.mkdir(mode=mode, exist_ok=True)
    folder.chmod(mode)
    sync_folder(folder.parent)


def sweep(folder: Path, names: str = ".*") -> None:
    """Remove temporaries that a killed writer left in `folder` for final names that `names`, a pattern, matches.

    A pattern that also matched names of another writer, at work now, would take its temporaries away.
    """
    pattern = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?:{names})-[0-9a-f]+", re.DOTALL)
    if folder.is_dir():
        for path in folder.iterdir():
            if pattern.fullmatch(path.name):
                path.unlink(missing_ok=True)


@contextmanager
def create(path: Path, *, replace: bool, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open `path` for writing; it appears whole when the block ends, and not at all when the block raises.

    Raises:
        DurableError: `replace` is False and the file exists with other bytes.
        OSError: the disk is full, or a write or fsync failed; nothing was published.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}"
    try:
        fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, mode)
        named = False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        named = True
    try:
        with os.fdopen(fd, "w+b") as file:
            os.fchmod(fd, mode)
            yield file
            file.flush()
            _sync(file.fileno(), path)
            source = temporary if named else Path(f"/proc/self/fd/{file.fileno()}")
            if replace:
                if not named:
                    _link(source, temporary)
                os.replace(temporary, path)
            else:
                _put_if_absent(source, path)
                temporary.unlink(missing_ok=True)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def write(path: Path, data: bytes, *, replace: bool, mode: int = 0o644) -> None:
    """Write `data` to `path` with the promises of `create`."""
    with create(path, replace=replace, mode=mode) as file:
        file.write(data)


def link(source: Path, path: Path) -> None:
    """Give a final file a second name, in the place of what has it; a copy where file systems do not link.

    Both names stand for the same bytes, so neither is ever written through: our files are replaced, not changed.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}"
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        with source.open("rb") as file, create(path, replace=True) as copy:
            shutil.copyfileobj(file, copy)
        return
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # a rename onto another name of the same file does nothing
    sync_folder(path.parent)


def _sync(fd: int, path: Path) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        error.filename = str(path)  # the kernel was told a descriptor only
        raise


def _put_if_absent(source: Path, path: Path) -> None:
    try:
        _link(source, path)
    except FileExistsError:
        if not _same_bytes(source, path):
            raise DurableError(
                errno.EEXIST,
                f"{path}: already written with other bytes; this file is final. "
                "Something that should be reproducible was not: keep both runs and compare their plans",
            ) from None


def _link(source: Path, path: Path) -> None:
    # Python calls linkat(AT_SYMLINK_FOLLOW), which /proc/self/fd needs, only when a folder descriptor is given.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(source, path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _same_bytes(a: Path, b: Path) -> bool:
    with a.open("rb") as left, b.open("rb") as right:
        while True:
            chunk = left.read(_CHUNK)
            if chunk != right.read(_CHUNK):
                return False
            if not chunk:
                return True
