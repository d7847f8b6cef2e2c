"""Shards in object stores and on web servers.

Owns which objects a URL names. Leaves fetching them to `readers.py`.

- A name that braces spell out is not looked up until its turn comes; a glob asks the store for its names.
- An object that is not there is a missing shard; a store that does not answer is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.ingest.readers import MadeSource
from pipeline.ingest.sources import TABLE
from pipeline.ingest.spool import Spool
from pipeline.input_config import InputConfig
from pipeline.remote import Remote
from pipeline.remote_config import RemoteConfig, place_of

_MAGIC = re.compile(r"[*?\[]")


def find_remote(
    urls: Iterable[str], item: InputConfig, *, spool: Spool, config: RemoteConfig | None
) -> Iterator[MadeSource]:
    """Yield a source, still without a name, for every object that `urls` name.

    Raises:
        ConfigError: a glob names no object, or the kind of a shard must be said.
        RemoteError: a URL is refused, or a store does not answer.
    """
    places: dict[str, Remote] = {}
    for url in urls:
        magic = _MAGIC.search(url)
        folder = url[: magic.start() if magic else None].rpartition("/")[0]
        rest = url[len(folder) + 1 :]
        if "?" in rest and folder.startswith("http"):
            Remote.connect(url, config)  # refuses what may be a signature
        remote = places[folder] = places.get(folder) or Remote.connect(folder, config)
        names = remote.find(rest) if magic else [rest]
        if not names:
            raise ConfigError(f"[[input]] shards: no object below {place_of(folder)} fits the pattern; correct it")
        for name in names:
            kind = "tar" if item.kind == "auto" and not name.endswith(TABLE) else item.kind
            if kind in ("auto", "files", "folder"):
                raise ConfigError(
                    f'[[input]] shards: {remote.place(name)}: expected kind = "tar", "parquet" (with images) or '
                    f'"table" (of digests) for what is not on this machine, found {item.kind!r}; say which it is'
                )
            beside = Path(name.removesuffix(".tar") + TABLE) if kind == "tar" and item.sidecar == "auto" else None
            sidecar = Path(name) if kind == "table" else beside
            yield MadeSource("", Path(name), sidecar, kind, item.columns, spool, remote)
