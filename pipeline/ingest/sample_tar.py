"""The tar that a reader makes of a shard: members as WebDataset names them, and what is wrong with samples.

Owns names. Leaves roles, captions and metadata to `samples.py`, which reads this tar like any other.

- A key is told apart from every other. What cannot stand before a member's first dot is written %XX: dots of the
  key's last part, `%`, and control characters.
"""

from __future__ import annotations

import re
import tarfile
from typing import BinaryIO

from manifests.records import FaultKind

_CONTROLS = "%\x00-\x1f\x7f"


class SampleTar:
    """Writes members, and collects what no member shows.

    faults: by key, of samples. promised: keys of samples whose bytes could not be read. damage: of the shard.
    rows: whether its JSON members are the rows of a table of a crawl.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.TarFile(
            fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        self.faults: dict[str, FaultKind] = {}
        self.promised: list[str] = []
        self.damage: str | None = None
        self.rows = False

    def close(self) -> None:
        """Write the end."""
        self._tar.close()

    def add(self, key: str, extension: str, size: int, data: BinaryIO) -> None:
        """Write a member; `key` is as `name_key` gives it.

        Raises:
            OSError: the disk is full, or `data` is shorter than `size`.
        """
        info = tarfile.TarInfo(f"{key}.{extension}" if extension else key)
        info.size = size
        self._tar.addfile(info, data)

    def add_link(self, key: str, extension: str) -> None:
        """Write what stands for a link or a device: that there is one, and not where it leads."""
        info = tarfile.TarInfo(f"{key}.{extension}" if extension else key)
        info.type = tarfile.SYMTYPE
        self._tar.addfile(info)


def name_key(text: str) -> str:
    """Return a key as members can bear it, and no other text's."""
    folder, slash, last = text.rpartition("/")
    return _escape(_CONTROLS, folder) + slash + _escape(f".{_CONTROLS}", last)


def _escape(what: str, text: str) -> str:
    return re.sub(f"[{what}]", lambda found: f"%{ord(found[0]):02X}", text)
