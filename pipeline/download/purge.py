"""Destroying staged shards that a collection is done with.

Owns which those are: examined from just these bytes, and in the newest settle that is closed, which had the tar at
hand to copy kept samples from. Leaves recording it and holds to `manifests.lifetime`.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from manifests.collection import Collection
from manifests.commits import Close, ExamineCommit
from manifests.lifetime import destroy, held_shards
from pipeline.config import load_config
from pipeline.errors import ConfigError, InputError
from pipeline.runs import lock
from pipeline.screen_tables import sha256_of


def purge(to: Path, config: Path, *, today: date, by: str, why: str) -> tuple[int, int]:
    """Destroy the staged shards below `to` that the collection of `config` is done with.

    Returns how many they were, and how many stay.

    Raises:
        ConfigError: `to` is no finished download.
        InputError: a staged shard is not what was downloaded.
        FilesError: a record of the collection is damaged; nothing is destroyed.
    """
    if not (to / "download.json").is_file():
        raise ConfigError(f"{to}: expected the folder of a finished download")
    loaded = load_config(config)
    home = Collection(loaded.collection, loaded.roots)
    settles = home.closed_settles()
    if not settles:
        return 0, len(list((to / "shards").glob("*.tar")))
    with lock(home, alone=True):
        settled = Close.read(home.settled(settles[-1]) / "close.json").shards
        inputs = {shard: ExamineCommit.read(home.commit(shard)).input_sha256 for shard in home.committed_shards()}
        held = {inputs[shard] for shard in held_shards(home, today=today)}
        done = {inputs[shard] for shard in settled} - held
        files: list[Path] = []
        left = 0
        for path in sorted((to / "shards").glob("*.tar")):
            commit = json.loads((to / "commits" / f"{path.stem}.json").read_bytes())
            if sha256_of(path) != commit["files"]["tar"]:
                raise InputError(f"{path}: not what was downloaded; restore it, or remove it by hand")
            if commit["files"]["tar"] in done:
                files += [one for one in (path, path.with_suffix(".parquet")) if one.exists()]
            else:
                left += 1
        signed = {"on": today.isoformat(), "by": by, "agreed": "", "why": why}
        destroy(home, files, tier="staging", settle=None, **signed)
    return sum(path.suffix == ".tar" for path in files), left
