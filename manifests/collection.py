"""Where everything lies: the folder of one collection and the names in it.

Owns paths and nothing else. The tiers are `releases/` (for those who train), `examined/`, `settled/` and
`journal/` (restricted, readable by their owner only) and `sealed/` (encrypted to keys the pipeline lacks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from manifests import durable

RESTRICTED_FOLDER_MODE = 0o700
RESTRICTED_FILE_MODE = 0o600
_SETTLE_NUMBER = re.compile(r"\d{4,}")


@dataclass(frozen=True, slots=True)
class Collection:
    """The folder of one collection."""

    root: Path

    @property
    def examined(self) -> Path:
        """Features and commits of every examined shard (restricted)."""
        return self.root / "examined"

    @property
    def journal(self) -> Path:
        """Times, attempts, error details (restricted; part of no identity)."""
        return self.root / "journal"

    @property
    def sealed(self) -> Path:
        """Encrypted records of withheld samples."""
        return self.root / "sealed"

    @property
    def examine_plan(self) -> Path:
        """The plan that every shard of the collection was examined under."""
        return self.root / "examine_plan.json"

    @property
    def secret(self) -> Path:
        """What keys the digests of withheld samples (restricted; part of no identity)."""
        return self.root / "secret"

    def keyed(self, shard: str) -> Path:
        """Keyed digests of what one shard has withheld (restricted; part of no identity)."""
        return self.examined / f"{shard}.keyed"

    @property
    def reviews(self) -> Path:
        """Decisions of people on samples, chained (restricted)."""
        return self.root / "reviews.jsonl"

    @property
    def destroyed(self) -> Path:
        """What was destroyed, when, by whom and why, chained (restricted)."""
        return self.root / "destroyed.jsonl"

    @property
    def holds(self) -> Path:
        """Shards whose files must stay, written by people (restricted)."""
        return self.root / "holds.toml"

    @property
    def config_note(self) -> Path:
        """Where the newest run noted the path of its configuration."""
        return self.journal / "config"

    def commit(self, shard: str) -> Path:
        """The completion marker of one examined shard."""
        return self.examined / f"{shard}.json"

    def features_name(self, shard: str, generation: int) -> str:
        """File name of a shard's features; generation 0 is the first, a rewrite counts up."""
        return f"{shard}.parquet" if generation == 0 else f"{shard}~{generation:04d}.parquet"

    def sealed_name(self, shard: str, settle: int) -> str:
        """File name of the sealed records of `shard` that enter with settle number `settle`."""
        return f"{shard}.{settle:04d}.age"

    def files_of(self, shard: str) -> str:
        """Pattern of the names of all files of one shard and of no other, whatever their folder."""
        return rf"{re.escape(shard)}(?:~\d+)?\.(?:\d{{4,}}\.age|json|parquet|tar|keyed)"

    def settled(self, number: int) -> Path:
        """Decisions and evidence of one settle (restricted)."""
        return self.root / "settled" / f"{number:04d}"

    def release(self, number: int) -> Path:
        """What may be trained on, as of one settle."""
        return self.root / "releases" / f"{number:04d}"

    @property
    def publications(self) -> Path:
        """What was handed to outsiders: a folder for each time (restricted)."""
        return self.root / "publications"

    @property
    def current(self) -> Path:
        """Holds the number of the newest closed release."""
        return self.root / "current"

    def closed_settles(self) -> list[int]:
        """Numbers of the settles that were closed, released or refused, ascending."""
        folder = self.root / "settled"
        if not folder.is_dir():
            return []
        names = (path.parent.name for path in folder.glob("*/close.json"))
        return sorted(int(name) for name in names if _SETTLE_NUMBER.fullmatch(name))

    def next_settle(self) -> int:
        """The number that the next settle will have."""
        closed = self.closed_settles()
        return closed[-1] + 1 if closed else 1

    def committed_shards(self) -> list[str]:
        """Names of the shards that have a commit, sorted."""
        if not self.examined.is_dir():
            return []
        return sorted(path.stem for path in self.examined.glob("*.json"))

    def make(self) -> None:
        """Make the folders that an examine needs; restricted ones are for their owner only."""
        durable.make_folder(self.root)
        for folder in (self.examined, self.journal, self.sealed):
            durable.make_folder(folder, mode=RESTRICTED_FOLDER_MODE)
