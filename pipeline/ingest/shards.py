"""Which shards a configuration names.

Owns brace and glob expansion, the naming of shards, and of which kind each is. Opens nothing but, of a pattern
that leads to tables and does not say what they hold, the first table.

- A shard's name is its prefix and the file name without `.tar` or `.parquet`; names are unique in a collection.
- A name that braces spell out and that does not exist is a missing shard, not a shorter input.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from braceexpand import braceexpand

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.ingest.image_tables import holds_images
from pipeline.ingest.readers import READERS, MadeSource
from pipeline.ingest.sources import TABLE, ShardSource
from pipeline.ingest.spool import Spool
from pipeline.input_config import ColumnsConfig, InputConfig
from pipeline.remote_config import RemoteConfig, is_remote

__all__ = ["ShardSource", "find_shards", "find_sources"]

_NAME = re.compile(r"[^/\\~\x00-\x1f\ud800-\udfff]+")


def find_sources(config: Config, *, base: Path) -> tuple[ShardSource, ...]:
    """Return the shards that a configuration names, as `find_shards` does."""
    spool = Spool(config.collection / "journal" / "spool")
    return find_shards(config.input, base=base, spool=spool, remote=config.remote)


def find_shards(
    inputs: Sequence[InputConfig], *, base: Path, spool: Spool | None = None, remote: RemoteConfig | None = None
) -> tuple[ShardSource, ...]:
    """Return the shards that `inputs` name, sorted by name; relative patterns start at `base`.

    `spool` is where those that are no local tar are made into one; `remote` is how stores are reached.

    Raises:
        ConfigError: a pattern names no file at all, braces do not pair, or two shards have one name.
    """
    sources: dict[str, ShardSource] = {}
    for item in inputs:
        for pattern in (item.shards,) if isinstance(item.shards, str) else item.shards:
            for source in _sources(pattern, item, base, spool or Spool(None), remote):
                other = sources.setdefault(source.name, source)
                if other.place != source.place:
                    raise ConfigError(
                        f"two shards are named {source.name!r}: {other.place} and {source.place}; "
                        "give one [[input]] a `prefix`"
                    )
    return tuple(sources[name] for name in sorted(sources))


def _sources(
    pattern: str, item: InputConfig, base: Path, spool: Spool, remote: RemoteConfig | None
) -> Iterator[ShardSource]:
    if not is_remote(pattern):
        yield from _local_sources(_expand(str(base / pattern), optional=item.optional), item, spool)
        return
    from pipeline.ingest.remotes import find_remote  # noqa: PLC0415 - loads what speaks to object stores

    for source in find_remote(_spell(pattern), item, spool=spool, config=remote):
        _check_columns(source.origin.name, source.kind, item)
        yield replace(source, name=shard_name(source.origin.name, item))


def _spell(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise ConfigError(f"[[input]] shards = {pattern!r}: braces do not pair") from None


def _expand(pattern: str, *, optional: bool) -> list[Path]:
    spelled = _spell(pattern)
    paths: list[Path] = []
    for text in spelled:
        found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
        paths += [Path(name) for name in found]
    if not optional and not any(path.exists() for path in paths):
        folder = Path(pattern).parent
        why = "matches no file" if folder.is_dir() or "{" in str(folder) else f"the folder {folder} does not exist"
        raise ConfigError(f"[[input]] shards = {pattern!r}: {why}")
    return paths


def _local_sources(paths: Sequence[Path], item: InputConfig, spool: Spool) -> Iterator[ShardSource]:
    tables = "table"
    if item.kind == "auto" and any(path.suffix == TABLE for path in paths):
        held = (holds_images(path) for path in paths if path.suffix == TABLE and path.is_file())
        if item.columns.image or next((answer for answer in held if answer is not None), False):
            tables = "parquet"
    for path in paths:
        sidecar = path.parent / f"{path.name.removesuffix('.tar')}{TABLE}"
        beside = sidecar if item.sidecar == "auto" and sidecar.is_file() else None
        kind: str = item.kind
        if kind == "auto" and path.is_dir():
            if any(path.glob("*.tar")):
                raise ConfigError(f"[[input]] shards: {path} is a folder of tars; name them, as {path / '*.tar'}")
            kind = "files" if beside else "folder"
        elif kind == "auto":
            kind = tables if path.suffix == TABLE else "tar"
        _check_columns(path.name, kind, item)
        name = shard_name(path.name, item)
        if kind in READERS:
            yield MadeSource(name, path, beside if kind == "files" else None, kind, item.columns, spool)
        else:
            yield ShardSource(name, path, path if kind == "table" else beside)


def _check_columns(file: str, kind: str, item: InputConfig) -> None:
    if item.columns != ColumnsConfig() and kind != "parquet":
        raise ConfigError(
            f"[[input]] columns is for tables that hold images, and {file!r} is taken for a {kind}; remove it, or "
            'set kind = "parquet"'
        )


def shard_name(file: str, item: InputConfig) -> str:
    """Return the name of the shard that lies in a file or folder of that name.

    Raises:
        ConfigError: no shard can have the name.
    """
    name = item.prefix + (file.removesuffix(Path(file).suffix) if Path(file).suffix in (".tar", TABLE) else file)
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(
            f"{file!r} cannot name a shard (no '/', '~' or control characters, no leading dot, UTF-8 only)"
        )
    return name
