"""Files and folders of the input as they lie: their digests, and what saves taking those again.

Owns what stands for a folder. The digest of a folder is the SHA-256 of the lines that `sha256sum` prints for all
files below it, sorted by name; a link or device counts by its name, with `-` for each digit.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NoReturn


def names_below(folder: Path) -> list[str]:
    """Return the names of all that lies below a folder and is no folder, sorted; links are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    for home, folders, names in os.walk(folder, onerror=_fail):
        links = [name for name in folders if os.path.islink(os.path.join(home, name))]
        found += [Path(home, name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found, key=os.fsencode)


def is_plain(path: Path) -> bool:
    """Say whether a name is a file itself: no link, no device, no pipe."""
    return stat.S_ISREG(path.lstat().st_mode)


def digest_of(path: Path | None) -> str | None:
    """Return the SHA-256 of a file or a folder, in hex; None where there is neither."""
    if path is None or not path.exists():
        return None
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = hashlib.sha256()
    for name in names_below(path):
        digest = digest_of(path / name) if is_plain(path / name) else "-" * 64
        lines.update(f"{digest}  ".encode() + os.fsencode(name) + b"\n")
    return lines.hexdigest()


def state_of(path: Path | None) -> list[object] | None:
    """Return size and time of change; while these are the same, the content is taken to be."""
    if path is None or not path.exists():
        return None
    if not path.is_dir():
        return [path.stat().st_size, path.stat().st_mtime_ns]
    lines = hashlib.sha256()
    for name in names_below(path):
        found = (path / name).lstat()
        lines.update(os.fsencode(name) + b"\0%d %d\n" % (found.st_size, found.st_mtime_ns))
    return [lines.hexdigest()]


def _fail(error: OSError) -> NoReturn:
    raise error
