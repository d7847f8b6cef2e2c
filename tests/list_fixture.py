"""What a made list file must give when it is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from classifiers.blocklists.importers.protocol import ReadOptions


@dataclass(frozen=True)
class Fixture:
    """Files that are one list; how many records are taken, how many by fate are not, unique values by algorithm."""

    paths: tuple[Path, ...]
    options: ReadOptions
    taken: int
    fates: dict[str, int]
    rows: dict[str, int]
