"""The table `[nightly]`: where new lists and tables arrive, and where the metrics of a night go.

Owns its keys. Patterns are globs that start at the configuration file, as those of `[[input]]` do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.lists.manifest import About


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyListConfig(About):
    """Where deliveries of one list arrive: each file or folder that `files` matches is one, whole.

    The others are what `shardscrub lists import` is told with its options.
    """

    id: str
    files: str
    format: str = "auto"
    algorithm: str = ""
    categories: Path | None = None
    effect: str = ""
    tolerance: float = 0.0

    def about(self) -> About:
        """Return what is said of every delivery."""
        return About(**{item.name: getattr(self, item.name) for item in fields(About)})


@dataclass(frozen=True, slots=True)
class NightlyConfig:
    """What a night looks at besides the configured input.

    tables: of URLs, which are screened. staging: where what is left of them is downloaded to, a folder for each
    table. metrics: a file for Prometheus' textfile collector.
    """

    lists: tuple[NightlyListConfig, ...] = ()
    tables: tuple[str, ...] = ()
    staging: Path | None = None
    metrics: Path | None = None


def check_nightly(path: Path, nightly: NightlyConfig, folders: Collection[Path]) -> None:
    """Refuse metrics in the folders of a collection, where every file must be named by a record.

    Raises:
        ConfigError: they are to lie there; `path` is the configuration that says so.
    """
    metrics = nightly.metrics
    if metrics is not None and any(metrics.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise ConfigError(f"{path}: [nightly] metrics: {metrics} lies in the collection; name a file outside of it")
