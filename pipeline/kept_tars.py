"""The tar of a shard's kept samples: linked where the release before holds the same, else copied from the source.

Owns when a source is needed and that it is the one that was examined, and names of images that are encoded anew.
Leaves copying to `manifests.kept_shards`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests import durable, schema
from manifests.collection import Collection
from manifests.commits import ExamineCommit, FileDigest, RecordError, SettleCommit
from manifests.contents import digest_images
from manifests.features import ShardFeatures
from manifests.kept_shards import KeptMember, SourceChangedError, write_kept_shard
from manifests.records import FaultKind
from pipeline.config import MembersConfig
from pipeline.errors import InputError, RunError
from pipeline.ingest.samples import Sample, take_inventory
from pipeline.ingest.shards import ShardSource

Encode = Callable[[bytes], bytes | FaultKind]


def write_tar(
    source: ShardSource | None,
    commit: ExamineCommit,
    features: ShardFeatures,
    kept: NDArray[np.int32],
    *,
    collection: Collection,
    number: int,
    members: MembersConfig,
    encoding: str,
    encode: Encode | None,
) -> tuple[FileDigest, list[bytes]]:
    """Write the tar of the samples in `kept` (indices, ascending) into release `number`.

    Returns:
        The tar and, with `encode`, of each sample what stands for the images that it made (`digest_images`).

    Raises:
        InputError: the source is needed and is not there, or not what was examined.
        RunError: an image of a kept sample could not be encoded anew.
    """
    shard = commit.shard
    target = collection.release(number) / "shards" / f"{shard}.tar"
    # Another file may have taken a damaged one's place since; its samples can stand under the same numbers.
    restored = any(item.why == "restored" and item.settle >= number for item in commit.rewrites)
    same = None if restored else _same_tar(shard, kept, collection, number - 1, encoding)
    if same is not None:
        durable.link(collection.release(number - 1) / "shards" / same[0].name, target)
        return same
    if not len(kept):
        return write_kept_shard(Path(os.devnull), (), target), []  # nothing to copy: the source may be lost
    if source is not None and source.is_table:
        return write_kept_shard(source.path, [], target), []
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
    made: dict[int, dict[str, bytes]] = {}
    copied = _members([one for one in inventory.samples if one.index in wanted], judged, shard, encode, made)
    try:
        written = write_kept_shard(source.path, copied, target)
    except SourceChangedError as error:
        raise InputError(f"shard {shard}: {error}") from None
    return written, [digest_images([digest for _, digest in sorted(one.items())]) for one in made.values()]


def _same_tar(
    shard: str, kept: NDArray[np.int32], collection: Collection, before: int, encoding: str
) -> tuple[FileDigest, list[bytes]] | None:
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
    encoded = json.loads(manifest.schema.metadata[b"shardscrub"]).get("resize", "")
    if encoded != encoding or manifest["index"].to_pylist() != kept.tolist():
        return None
    return record.tar, manifest[schema.IN_TAR].to_pylist() if encoding else []


def _members(
    samples: Sequence[Sample],
    judged: dict[tuple[int, int], bytes],
    shard: str,
    encode: Encode | None,
    made: dict[int, dict[str, bytes]],
) -> list[KeptMember]:
    """Return what to copy; digests of what `encode` makes come into `made` while it is copied."""
    members = []
    for sample in samples:
        names = {item.member.extension: item.member.name for item in sample.members}
        for item in sample.members:
            if item.role == "left_out":
                continue
            member, extension, anew = item.member, item.member.extension, None
            digest = judged[member.offset, member.size] if item.role != "text" else None
            if encode is not None and item.role == "image":
                extension = _jpeg_extension(extension, names)
                names.setdefault(extension, f"{member.key}.{extension}")
                anew = partial(_encode, encode, shard, made.setdefault(sample.index, {}), extension)
            members.append(KeptMember(names[extension], member.offset, member.size, digest, anew))
    return members


def _jpeg_extension(extension: str, taken: Container[str]) -> str:
    """Return what to call an image that is now a JPEG: loaders decode by what a member is called."""
    head, _, last = extension.rpartition(".")
    if last in ("", "jpg", "jpeg"):  # a name without an extension is a key, and stays
        return extension
    found = f"{head}.jpg" if head else "jpg"
    while found in taken:
        extension = found = f"{extension}.jpg"
    return found


def _encode(encode: Encode, shard: str, made: dict[str, bytes], extension: str, data: bytes) -> bytes:
    encoded = encode(data)
    if isinstance(encoded, FaultKind):
        raise RunError(
            f"shard {shard}: an image that could be decoded when it was examined cannot be now ({encoded}); settle "
            "again, with fewer workers where memory is short, or set [release] resize = 0"
        )
    made[extension] = hashlib.sha256(encoded).digest()
    return encoded
