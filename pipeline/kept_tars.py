"""The tar of a shard's kept samples: linked where the release before holds the same, else copied from the source.

Owns when a source is needed and that it is the one that was examined. Leaves copying to `manifests.kept_shards`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests import durable, schema
from manifests.collection import Collection
from manifests.commits import ExamineCommit, FileDigest, RecordError, SettleCommit
from manifests.features import ShardFeatures
from manifests.kept_shards import KeptMember, SourceChangedError, write_kept_shard
from pipeline.config import MembersConfig
from pipeline.errors import InputError
from pipeline.ingest.samples import Sample, take_inventory
from pipeline.ingest.shards import ShardSource


def write_tar(
    source: ShardSource | None,
    commit: ExamineCommit,
    features: ShardFeatures,
    kept: NDArray[np.int32],
    *,
    collection: Collection,
    number: int,
    members: MembersConfig,
) -> FileDigest:
    """Write the tar of the samples in `kept` (indices, ascending) into release `number`.

    Raises:
        InputError: the source is needed and is not there, or not what was examined.
    """
    shard = commit.shard
    target = collection.release(number) / "shards" / f"{shard}.tar"
    # Another file may have taken a damaged one's place since; its samples can stand under the same numbers.
    restored = any(item.why == "restored" and item.settle >= number for item in commit.rewrites)
    same = None if restored else _same_tar(shard, kept, collection, number - 1)
    if same is not None:
        durable.link(collection.release(number - 1) / "shards" / same.name, target)
        return same
    if not len(kept):
        return write_kept_shard(Path(os.devnull), (), target)  # nothing to copy: the source may be lost
    if source is not None and source.is_table:
        return write_kept_shard(source.path, [], target)
    if source is None or source.missing:
        raise InputError(
            f"shard {shard}: its tar is needed to copy kept samples and is not named by the configuration or not "
            "there; restore it, or set [release] shards = false"
        )
    inventory = take_inventory(source, members)
    if inventory.sha256 != commit.input_sha256:
        raise InputError(f"shard {shard}: {source.origin.name} is not what was examined; restore it")
    judged = {
        (int(offset), int(size)): digest.tobytes()
        for offset, size, digest in zip(
            features.table["offset"].fill_null(-1).to_pylist(),
            features.table["size"].fill_null(-1).to_pylist(),
            features.digests["sha256"],
            strict=True,
        )
    }
    wanted = set(kept.tolist())
    copied = _members([sample for sample in inventory.samples if sample.index in wanted], judged)
    try:
        return write_kept_shard(source.path, copied, target)
    except SourceChangedError as error:
        raise InputError(f"shard {shard}: {error}") from None


def _same_tar(shard: str, kept: NDArray[np.int32], collection: Collection, before: int) -> FileDigest | None:
    """Return the tar of the release before, if it holds just these samples; its source may be gone by now."""
    try:
        record = SettleCommit.read(collection.settled(before) / "decisions" / f"{shard}.json")
    except RecordError:
        return None
    release = collection.release(before)
    tar = release / "shards" / f"{shard}.tar"
    if record.tar is None or record.manifest is None or not tar.is_file() or tar.stat().st_size != record.tar.size:
        return None
    manifest = schema.read(release / "manifest" / record.manifest.name, sha256=record.manifest.sha256)
    return record.tar if manifest["index"].to_pylist() == kept.tolist() else None


def _members(samples: Sequence[Sample], judged: dict[tuple[int, int], bytes]) -> list[KeptMember]:
    members = []
    for sample in samples:
        for item in sample.members:
            if item.role != "left_out":
                member = item.member
                digest = judged[member.offset, member.size] if item.role != "text" else None
                members.append(KeptMember(member.name, member.offset, member.size, digest))
    return members
