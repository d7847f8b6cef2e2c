"""Room for shards that are no local tar: the tar made of one, and what is being fetched.

Owns where that lies and that it ends. Leaves to readers what is written.

- Pictures lie in files without a name. Nobody but the process that made one can reach it, and it ends with the
  path that leads to it, or with the process, however that ends.
- Where a file system knows no such files, what is being fetched has the name of a temporary, in a folder (0700)
  of the collection; if we die, the process that next holds the collection alone removes it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import weakref
from pathlib import Path, PosixPath

from manifests.durable import TEMPORARY_PREFIX


class SpoolFile(PosixPath):
    """A path to a file without a name, which leads there, in this process, for as long as this object lives."""

    @classmethod
    def of(cls, fd: int) -> SpoolFile:
        """Return the path to an open file, which is closed with it."""
        path = cls(f"/proc/self/fd/{fd}")
        weakref.finalize(path, os.close, fd)
        return path

    @classmethod
    def take(cls, path: Path) -> SpoolFile:
        """Open a file and take its name away."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        path.unlink()
        return cls.of(fd)


class Spool:
    """A folder for what lasts as long as the work on a shard; without a home it is the system's for such."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def make_file(self) -> SpoolFile:
        """Return a new file, empty.

        Raises:
            OSError: the disk is full, or may not be written.
        """
        with tempfile.TemporaryFile(dir=self._home()) as file:
            return SpoolFile.of(os.dup(file.fileno()))

    def make_name(self) -> Path:
        """Return the path of a file to be made, and taken at once."""
        return self._home() / f"{TEMPORARY_PREFIX}fetched-{secrets.token_hex(8)}"

    def _home(self) -> Path:
        """Return the folder, made where its home is; a dry run makes none."""
        if self._root is None or not self._root.parent.is_dir():
            return Path(tempfile.gettempdir())
        self._root.mkdir(mode=0o700, exist_ok=True)
        return self._root
