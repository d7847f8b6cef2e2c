"""What interrupted runs left undone or behind, put right by the process that holds the collection's lock alone.

Owns removal. Leaves to `durable.py` and `commit.py` the order of writes that makes a leftover harmless.

- Only what no record will ever name is removed: temporaries, and rewrites that were not committed. Of a shard
  without a commit, and of settles that were closed, nothing is touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from manifests import durable
from manifests.collection import Collection
from manifests.commits import ExamineCommit
from pipeline.spread import remove_spread

# Shard names hold no `~`.
_FEATURES = re.compile(r"(?P<shard>[^~]+)(?:~\d+)?\.parquet", re.DOTALL)
_SEALED = re.compile(r"(?P<shard>[^~]+)(?:~\d+)?\.(?P<settle>\d{4,})\.age", re.DOTALL)


def clear_leftovers(collection: Collection, commits: Sequence[ExamineCommit]) -> None:
    """Remove temporaries, and uncommitted rewrites of the shards in `commits`."""
    for home in {collection.root, *collection.roots().values()}:
        for folder, _, _ in os.walk(home):
            durable.sweep(Path(folder))
    closed = collection.closed_settles()
    if closed:
        remove_spread(collection, closed[-1])
    shards, number = {commit.shard for commit in commits}, collection.next_settle()
    features = {commit.features.name for commit in commits}
    for path in list(collection.examined.iterdir()):
        found = _FEATURES.fullmatch(path.name)
        if found and found["shard"] in shards and path.name not in features:
            path.unlink()
    sealed = {item.name for commit in commits for item in commit.sealed}
    for path in list(collection.sealed.iterdir()):
        found = _SEALED.fullmatch(path.name)
        # Records that entered with a closed settle are never removed, whatever the commits say.
        if found and found["shard"] in shards and int(found["settle"]) >= number and path.name not in sealed:
            path.unlink()
