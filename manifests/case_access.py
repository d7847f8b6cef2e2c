"""The access record: who opened which sealed files, when and why, in lines that name the line before.

Owns its lines. Leaves their chain to `lifetime.py` and opening to others.

- The chain catches what was changed, taken out or moved before its last line. The last line itself, and lines cut
  off the end, only a digest shows that was noted elsewhere (`last`).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from manifests.commits import RecordError
from manifests.lifetime import append, read_chain

# files: name, sha256 and records of each sealed file. output_sha256: of what the opening wrote.
_KEYS = {"at", "by", "why", "files", "records", "output_sha256"}


def read_access_record(path: Path, *, last: str = "") -> tuple[list[dict[str, Any]], str]:
    """Return the lines of a record, if it is there, and the digest of the last one; "" where there is none.

    Args:
        path: the record.
        last: digest of a line, noted at an earlier time; it must still be there.

    Raises:
        RecordError: the chain is broken, or the noted line is gone.
    """
    lines, digests = read_chain(path, _KEYS)
    if last and last not in digests:
        raise RecordError(f"{path}: none of its lines has the digest that was noted; find out who changed it")
    return lines, digests[-1]


def append_access(path: Path, entry: dict[str, object]) -> None:
    """Append a line, durably; the file is its owner's alone (0600), and two writers wait for each other.

    Raises:
        RecordError: the chain is broken; nothing was written.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        append(path, [entry])
    finally:
        os.close(folder)
