"""Where everything lies: the folder of one collection and the names in it.

Owns paths and nothing else. The tiers are `releases/` (for those who train), `examined/`, `settled/` and
`journal/` (restricted, readable by their owner only) and `sealed/` (encrypted to keys the pipeline lacks).

- `releases/` with `current`, `sealed/` and `log/` may lie in other folders. The first run writes down where, in
  `roots.json`: from then on the folder of the collection is enough to find them.
- Such a folder is one collection's alone: another one is refused there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manifests import durable
from manifests.records import FilesError, canonical_json

RESTRICTED_FOLDER_MODE = 0o700
RESTRICTED_FILE_MODE = 0o600
APART = ("releases", "sealed", "log")  # what may lie in a folder of its own
_SETTLE_NUMBER = re.compile(r"\d{4,}")


class RootsError(FilesError):
    """A collection's `roots.json` is damaged, is not what is asked for, or names a folder that is taken."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The folder of one collection; `asked` says where tiers are to lie if the collection is yet to be begun."""

    root: Path
    asked: Mapping[str, Path] = field(default_factory=dict, compare=False)

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
        return self.home("sealed") / "sealed"

    @property
    def log(self) -> Path:
        """The audit log (public)."""
        return self.home("log") / "log"

    @property
    def releases(self) -> Path:
        """What may be trained on: a folder for each settle that released something."""
        return self.home("releases") / "releases"

    @property
    def roots_record(self) -> Path:
        """Where tiers lie that have a folder of their own (restricted; part of no identity)."""
        return self.root / "roots.json"

    @property
    def bucket_record(self) -> Path:
        """Of which bucket the folder is a copy, and what both agree on (restricted; part of no identity)."""
        return self.root / "bucket.json"

    def roots(self) -> Mapping[str, Path]:
        """Return the folders of tiers that have one of their own.

        Raises:
            RootsError: the record is damaged.
        """
        try:
            data = self.roots_record.read_bytes()
        except FileNotFoundError:
            return {} if self.examine_plan.exists() else self.asked
        try:
            found = {name: Path(path) for name, path in json.loads(data).items()}
        except (ValueError, TypeError, AttributeError):
            found = {"": Path()}
        if not found.keys() <= set(APART) or not all(path.is_absolute() for path in found.values()):
            names = ", ".join(APART)
            raise RootsError(f"{self.roots_record}: expected absolute folders of {names}; restore the file")
        return found

    def home(self, tier: str) -> Path:
        """Return the folder in which that of a tier lies: the collection's, or its own."""
        return self.roots().get(tier, self.root)

    def name_of(self, path: Path) -> str:
        """Return the name of a file of the collection as records have it, wherever its tier lies."""
        tiers = [home for tier, home in self.roots().items() if path.is_relative_to(home / tier)]
        return path.relative_to(tiers[0] if tiers else self.root).as_posix()

    def path_of(self, name: str) -> Path:
        """Return the file that a record names so."""
        return self.home(name.partition("/")[0]) / name

    def check_roots(self) -> None:
        """Refuse to go on unless tiers lie, or can be put, where they are asked to be.

        Raises:
            RootsError: so it is.
        """
        recorded, asked = self.roots(), self.asked
        if recorded != asked:
            raise RootsError(
                f"{self.root}: was begun with {_told(recorded)}, the configuration asks for {_told(asked)}; "
                f"restore it, or move the folders and write their places to {self.roots_record.name}"
            )
        for tier, home in asked.items():
            if home.is_relative_to(self.root) or self.root.is_relative_to(home / tier):
                raise RootsError(f"{home}: expected a folder outside of the collection; name another one")
            if not self.roots_record.exists() and (home / tier).exists():
                raise RootsError(f"{home / tier}: exists already, of another collection; name another folder")

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
    def screens(self) -> Path:
        """The screens of tables before their download, chained (restricted)."""
        return self.root / "screens.jsonl"

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
        return self.releases / f"{number:04d}"

    @property
    def publications(self) -> Path:
        """What was handed to outsiders: a folder for each time (restricted)."""
        return self.root / "publications"

    @property
    def current(self) -> Path:
        """Holds the number of the newest closed release."""
        return self.home("releases") / "current"

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
        """Make the folders that an examine needs; restricted ones are for their owner only.

        Raises:
            RootsError: a tier cannot be put where it is asked to be.
        """
        durable.make_folder(self.root)
        if self.asked and not self.roots_record.exists():
            self.check_roots()
            data = canonical_json({tier: str(home) for tier, home in self.asked.items()})
            durable.write(self.roots_record, data, replace=False, mode=RESTRICTED_FILE_MODE)
        for tier in self.roots():  # made at once, so that no other collection takes the place
            durable.make_folder(self.home(tier) / tier, mode=RESTRICTED_FOLDER_MODE if tier == "sealed" else 0o755)
        for folder in (self.examined, self.journal, self.sealed):
            durable.make_folder(folder, mode=RESTRICTED_FOLDER_MODE)


def _told(roots: Mapping[str, Path]) -> str:
    return ", ".join(f"{tier} in {home}" for tier, home in sorted(roots.items())) or "all in one folder"
