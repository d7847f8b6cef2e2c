"""Which shards a configuration names.

Owns brace and glob expansion and the naming of shards. Opens nothing.

- A shard's name is its prefix and the file name without `.tar`; names are unique in a collection.
- A name that braces spell out and that does not exist is a missing shard, not a shorter input.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from pipeline.config import InputConfig
from pipeline.errors import ConfigError

_TABLE = ".parquet"
_NAME = re.compile(r"[^/\\~\x00-\x1f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class ShardSource:
    """One shard of the input: its name in the collection, its tar, and its sidecar table if one lies beside.

    Where `path` is itself a table of digests without images, `sidecar` is that table too.
    """

    name: str
    path: Path
    sidecar: Path | None

    @property
    def is_table(self) -> bool:
        """Whether the shard is a table of digests, with no image in it."""
        return self.path.suffix == _TABLE

    @property
    def missing(self) -> bool:
        """Whether the tar or table is not there."""
        return not self.path.is_file()


def find_shards(inputs: Sequence[InputConfig], *, base: Path) -> tuple[ShardSource, ...]:
    """Return the shards that `inputs` name, sorted by name; relative patterns start at `base`.

    Raises:
        ConfigError: a pattern names no file at all, braces do not pair, or two shards have one name.
    """
    sources: dict[str, ShardSource] = {}
    for item in inputs:
        for pattern in (item.shards,) if isinstance(item.shards, str) else item.shards:
            for path in _expand(str(base / pattern)):
                source = _source(path, item)
                other = sources.setdefault(source.name, source)
                if other.path != source.path:
                    raise ConfigError(
                        f"two shards are named {source.name!r}: {other.path} and {source.path}; "
                        "give one [[input]] a `prefix`"
                    )
    return tuple(sources[name] for name in sorted(sources))


def _expand(pattern: str) -> list[Path]:
    try:
        spelled = list(braceexpand(pattern))
    except ValueError:
        raise ConfigError(f"[[input]] shards = {pattern!r}: braces do not pair") from None
    paths: list[Path] = []
    for text in spelled:
        found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
        paths += [Path(name) for name in found]
    if not any(path.is_file() for path in paths):
        folder = Path(pattern).parent
        why = "matches no file" if folder.is_dir() or "{" in str(folder) else f"the folder {folder} does not exist"
        raise ConfigError(f"[[input]] shards = {pattern!r}: {why}")
    return paths


def _source(path: Path, item: InputConfig) -> ShardSource:
    name = item.prefix + (path.stem if path.suffix in (".tar", _TABLE) else path.name)
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(
            f"{str(path)!r} cannot name a shard (no '/', '~' or control characters, no leading dot, UTF-8 only)"
        )
    sidecar = path.with_suffix(_TABLE)
    if sidecar == path:
        return ShardSource(name, path, path)
    return ShardSource(name, path, sidecar if item.sidecar == "auto" and sidecar.is_file() else None)
