"""One shard of the input, whatever it lies in: its name, its files, and the tar that its samples are read from.

Owns what all that work on a shard may ask of its input. Other kinds of sources stand in `readers.py`, `remotes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.ingest.input_files import digest_of, state_of
from pipeline.ingest.sample_tar import SampleTar

TABLE = ".parquet"


@dataclass(frozen=True, slots=True)
class ShardSource:
    """One shard of the input: its name in the collection, its tar, and its sidecar table if one lies beside.

    Where `origin` is itself a table of digests without images, `sidecar` is that table too.
    """

    name: str
    origin: Path
    sidecar: Path | None

    @property
    def place(self) -> str:
        """What errors name."""
        return str(self.origin)

    @property
    def path(self) -> Path:
        """The tar that members' offsets are in; asking for it may make one, which lasts as long as this object."""
        return self.origin

    @property
    def table(self) -> Path | None:
        """Where the sidecar lies."""
        return self.sidecar

    @property
    def is_table(self) -> bool:
        """Whether the shard is a table of digests, with no image in it."""
        return self.origin.suffix == TABLE

    @property
    def missing(self) -> bool:
        """Whether the tar or table is not there."""
        return not self.origin.is_file()

    @property
    def contents(self) -> SampleTar | None:
        """What a reader found that made the tar; None where the shard is one."""
        return None

    def opened(self) -> ShardSource:
        """Return this source for one piece of work: what is made for that ends with it."""
        return self

    def digests(self) -> tuple[str | None, str | None]:
        """Return the SHA-256 of the shard's own file or folder, and of its sidecar; None where there is none."""
        return digest_of(self.origin), digest_of(self.sidecar)

    def state(self) -> tuple[object, object]:
        """Return what tells, at little cost, that neither has changed since."""
        return state_of(self.origin), state_of(self.sidecar)
