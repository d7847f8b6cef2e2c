"""The end of a settle: uids, summaries, close, in this order. What follows the close is in `evidence.py`.

Owns run-wide outputs. Needs every shard's settle commit and streams over them, so memory does not grow with the
collection (the sort of `uids.npy` works in the file itself).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.lib.format as npy
import pyarrow.parquet as pq

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.commits import Close, Counts, FileDigest, Flood, SettleCommit
from manifests.features import byte_rows
from manifests.records import canonical_json, readable_json
from pipeline.changes import write_changes
from pipeline.plan import Plan
from pipeline.settle_matches import CollectionHits

UID_DTYPE = np.dtype([("f0", "<u8"), ("f1", "<u8")])  # DataComp's subset format: two halves, big half first
_CHUNK = 1 << 20
FLOODED = "flooded.json"


def count_settled(collection: Collection, number: int, shards: Sequence[str]) -> tuple[Counts, dict[str, str]]:
    """Return the totals of a settle and the digest of every shard's settle commit."""
    counts, digests = Counts(), {}
    folder = collection.settled(number) / "decisions"
    for shard in shards:
        commit = SettleCommit.read(folder / f"{shard}.json")
        counts = counts.plus(commit)
        digests[shard] = hashlib.sha256(commit.encode()).hexdigest()
    return counts, digests


def begin_settle(collection: Collection, plan: Plan, number: int, *, release: bool) -> None:
    """Make room for a settle: what an unfinished one left under another plan, or for no release now, is removed."""
    settled, released = collection.settled(number), collection.release(number)
    data = canonical_json(plan.record())
    begun = settled / "plan.json"
    if begun.exists() and begun.read_bytes() != data:
        shutil.rmtree(settled)
        shutil.rmtree(released, ignore_errors=True)
    if not release and released.exists():
        shutil.rmtree(released)
    durable.make_folder(settled, mode=RESTRICTED_FOLDER_MODE)
    durable.sweep(settled)
    durable.write(begun, data, replace=True, mode=RESTRICTED_FILE_MODE)


def recorded_floods(collection: Collection, plan: Plan, number: int) -> tuple[Flood, ...] | None:
    """Return the entries over the hit cap as an interrupted attempt at this very settle counted them, or None.

    What it withheld since can no longer be counted, and going on must decide as it would have.
    """
    folder = collection.settled(number)
    begun, found = folder / "plan.json", folder / FLOODED
    if not found.exists() or begun.read_bytes() != canonical_json(plan.record()):
        return None
    return tuple(Flood(**item) for item in json.loads(found.read_bytes())["flooded"])


def record_floods(collection: Collection, number: int, flooded: Sequence[Flood]) -> None:
    """Write the entries over the hit cap, before anything of the settle is decided."""
    path = collection.settled(number) / FLOODED
    data = canonical_json({"flooded": [asdict(item) for item in flooded]})
    durable.write(path, data, replace=True, mode=RESTRICTED_FILE_MODE)


def point_current(collection: Collection, close: Close) -> None:
    """Let `current` name a released settle; the last step, found done or done again."""
    text = f"{close.number:04d}\n".encode()
    if close.released and not (collection.current.is_file() and collection.current.read_bytes() == text):
        durable.sweep(collection.current.parent)
        durable.write(collection.current, text, replace=True)


def close_settle(
    collection: Collection,
    plan: Plan,
    number: int,
    shards: Sequence[str],
    *,
    refused: Sequence[str],
    matched: CollectionHits,
) -> Close:
    """Write everything that is about the whole settle and close it."""
    counts, digests = count_settled(collection, number, shards)
    settled = collection.settled(number)
    for folder in (settled, collection.release(number)):
        durable.sweep(folder)
    _write_json(settled / "summary.json", {"number": number, **asdict(counts)}, mode=RESTRICTED_FILE_MODE)
    uids = summary = None
    if not refused:
        release = collection.release(number)
        durable.make_folder(release)
        uids = write_uids(release, [release / "manifest" / f"{shard}.parquet" for shard in shards], counts.keep)
        summary = _write_json(release / "summary.json", release_summary(number, counts, plan), mode=0o644)
    close = Close(
        number=number,
        plan=plan.decide_digest,
        examine_plan=plan.examine_digest,
        stamps=plan.stamps,
        counts=counts,
        shards=digests,
        released=not refused,
        refused=tuple(refused),
        canaries=matched.canaries,
        flooded=matched.flooded,
        changes=write_changes(collection, number, shards),
        uids=uids,
        release_summary=summary,
    )
    _level_times(collection, number)
    close.write(settled / "close.json", replace=False, mode=RESTRICTED_FILE_MODE)
    return close


def release_summary(number: int, counts: Counts, plan: Plan) -> dict[str, object]:
    """Return what a release says about itself: in, kept, not kept, faults, and no reason."""
    return {
        "number": number,
        "shards": counts.shards,
        "in": counts.samples,
        "kept": counts.keep,
        "not_kept": counts.samples - counts.keep,
        "faults": counts.faults,
        "uid": "first 16 bytes of the sha256 of the first image's bytes",
        "examine_plan": plan.examine_digest,
        "decide_plan": plan.decide_digest,
        "stamps": list(plan.stamps),
        "note": "Says what was done, not that the data are clean, safe or compliant: classifiers miss, lists are "
        "incomplete.",
    }


def write_uids(release: Path, manifests: Sequence[Path], count: int) -> FileDigest:
    """Write `uids.npy`: the sorted uids of all kept samples, dtype u8,u8."""
    path = release / "uids.npy"
    with durable.create(path, replace=True) as file:
        npy.write_array_header_1_0(file, {"descr": UID_DTYPE.descr, "fortran_order": False, "shape": (count,)})
        start = file.tell()
        for uids in _uids(manifests):
            file.write(uids)
        file.flush()
        if count:
            _sort_in_place(file, start, count)
        file.seek(0)
        digest, size = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(path.name, digest.hexdigest(), size)


def _uids(manifests: Sequence[Path]) -> Iterator[bytes]:
    for path in manifests:
        yield byte_rows(pq.read_table(path, columns=["uid"], use_threads=False)["uid"], 16)[0].tobytes()


def _sort_in_place(file: BinaryIO, start: int, count: int) -> None:
    uids = np.memmap(file, "S16", "r+", start, (count,))
    uids.sort()
    halves = uids.view(">u8")
    for first in range(0, len(halves), _CHUNK):
        part = halves[first : first + _CHUNK]
        part[:] = part.byteswap()
    uids.flush()


def _level_times(collection: Collection, number: int) -> None:
    """Give all that leaves with a settle one time: a shard that was written anew took longer than others."""
    now = time.time_ns()
    for path in (*collection.release(number).rglob("*.*"), *collection.sealed.glob(f"*.{number:04d}.age")):
        if path.stat().st_nlink == 1:  # a tar of the release before has the time of that one
            os.utime(path, ns=(now, now))


def _write_json(path: Path, value: object, *, mode: int) -> FileDigest:
    data = readable_json(value)
    durable.write(path, data, replace=True, mode=mode)
    return FileDigest.of(path.name, data)
