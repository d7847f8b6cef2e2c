"""Shards that are no tar on this machine, and the tar that stands for one for as long as it is worked on.

Owns the list of readers, and sources that are fetched, read by one, or both. A reader writes a shard's samples into
a tar as WebDataset has it, so that all behind it reads one layout; a new one is a function and a line in `READERS`.

- The digest of a shard is that of its own file, object or folder. Digests and uids of images are of their bytes.
- A fault of a row is a fault of its sample, whatever its members are like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.errors import InputError
from pipeline.ingest.image_folders import read_folder
from pipeline.ingest.image_tables import read_table
from pipeline.ingest.sample_tar import SampleTar
from pipeline.ingest.sources import ShardSource
from pipeline.ingest.spool import Spool, SpoolFile
from pipeline.input_config import ColumnsConfig

if TYPE_CHECKING:
    from pipeline.remote import Remote

Reader = Callable[[Path, ColumnsConfig, SampleTar], None]
READERS: Final[dict[str, Reader]] = {"parquet": read_table, "files": read_folder, "folder": read_folder}


@dataclass(frozen=True)
class MadeSource(ShardSource):
    """A shard that is fetched from `remote`, if there is one, and that a reader makes a tar of.

    Each is done once, when it is first asked for, and lasts as long as this object: `opened` gives a new one for
    each piece of work. Where it is remote, `origin` and `sidecar` are names there.
    """

    kind: str
    columns: ColumnsConfig
    spool: Spool
    remote: Remote | None = None

    @property
    def place(self) -> str:
        """What errors name: the file or folder, or the URL."""
        return str(self.origin) if self.remote is None else self.remote.place(str(self.origin))

    @property
    def path(self) -> Path:
        """Where the tar lies."""
        return self.origin if self.missing else self._made[0]

    @property
    def table(self) -> Path | None:
        """Where the sidecar lies."""
        return self.sidecar if self.remote is None else self._beside and self._beside[0]

    @property
    def is_table(self) -> bool:
        """Whether the shard is a table of digests, with no image in it."""
        return self.kind == "table"

    @property
    def missing(self) -> bool:
        """Whether there is no such file, object or folder."""
        return not self.origin.exists() if self.remote is None else self._states[0] is None

    @property
    def contents(self) -> SampleTar | None:
        """What the reader found besides members."""
        return None if self.missing else self._made[1]

    def opened(self) -> ShardSource:
        """Return this source with nothing fetched or made yet."""
        return replace(self)

    def digests(self) -> tuple[str | None, str | None]:
        """Return the SHA-256 of the shard's own file, object or folder, and of its sidecar."""
        if self.remote is None:
            return super().digests()
        return None if self.missing else self._fetched[1], self._beside and self._beside[1]

    def state(self) -> tuple[object, object]:
        """Return what tells, at little cost, that neither has changed since."""
        return super().state() if self.remote is None else self._states

    @cached_property
    def _states(self) -> tuple[object, object]:
        assert self.remote is not None
        return self.remote.state(str(self.origin)), self.sidecar and self.remote.state(str(self.sidecar))

    @cached_property
    def _fetched(self) -> tuple[SpoolFile, str]:
        return self._fetch(self.origin)

    @cached_property
    def _beside(self) -> tuple[SpoolFile, str] | None:
        if self.sidecar is None or self._states[1] is None:
            return None
        return self._fetched if self.is_table else self._fetch(self.sidecar)

    @cached_property
    def _made(self) -> tuple[SpoolFile, SampleTar | None]:
        if self.kind not in READERS:
            return self._fetched[0], None
        made = self.spool.make_file()
        with made.open("wb") as file:
            tar = SampleTar(file)
            try:
                path = self.origin if self.remote is None else self._fetched[0]
                READERS[self.kind](path, self.columns, tar)
            except InputError as error:
                raise InputError(f"shard {self.name}: {self.place}: {error}") from None
            tar.close()
        return made, tar

    def _fetch(self, name: Path) -> tuple[SpoolFile, str]:
        assert self.remote is not None
        path = self.spool.make_name()
        digest = self.remote.fetch(str(name), path, mode=0o600)
        return SpoolFile.take(path), digest
