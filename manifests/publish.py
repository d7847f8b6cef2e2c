"""Handing a release to outsiders: a difference is a publication, so a small one is never handed out.

Owns the bounds on mixing sets, the cover drawn to reach them, and the record of what was handed out: the folder
`publications/NNNN` of the collection (restricted), in the form of a publication, of index and keyed uid only: what
is withheld later must stand nowhere in clear.
Manifests, and tars where they are asked for: no count of what is not in it, no reason.

- What is missing against the input, and against every earlier publication, numbers at least the bounds, or
  nothing is handed out; of an earlier publication, nothing at all may be missing too.
- Tars are those of the release, byte for byte; where a cover drops samples that they hold, none is handed out.
- Of an earlier publication, contents count once: many copies of one removed picture are no mixing set.
- Nothing is written before all bounds hold, and a publication is recorded before it is handed out.
- Memory: the uids of all publications that it is held against.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import durable, schema
from manifests.collection import RESTRICTED_FOLDER_MODE, Collection
from manifests.commits import Close, SettleCommit
from manifests.keyed import make_keys, read_secret
from manifests.records import FilesError, readable_json

Uids = NDArray[np.bytes_]
_LEAST_SECRET_BYTES = 32
_TOO_SMALL = "mixing set too small: wait for a release in which more differs, or let --cover drop kept samples"
_NOTE = "Says what was done, not that data are clean, safe or compliant: classifiers miss, lists are incomplete."


class PublishError(FilesError):
    """There is no release to publish, or an earlier publication, the cover or the target is not usable."""


class MixingError(FilesError):
    """What is missing is too little to hide in."""


@dataclass(frozen=True, slots=True, repr=False)
class Gap:
    """What is missing against the input or an earlier publication, and how much must be, if anything is.

    uids: contents of both, each of which would be missing too if it were dropped (S16, sorted).
    """

    is_open: bool
    missing: int
    least: int
    uids: Uids


def publish(
    root: Path,
    to: Path,
    *,
    number: int | None = None,
    previous: Sequence[Path] = (),
    cover: Path | None = None,
    shards: bool = False,
    least: int = 10_000,
    per_withheld: int = 1_000,
) -> tuple[Close, int]:
    """Write the copy of the newest release that outsiders may have, and record it.

    Args:
        root: the collection.
        to: a folder that does not exist, or an empty one.
        number: the release that is meant; refused unless it is that of the newest settle.
        previous: folders of publications of this input that the collection has no record of.
        cover: a secret file (mode 0600): a draw under it drops kept samples until the bounds hold.
        shards: also the tars of the release.
        least: samples of the smallest mixing set.
        per_withheld: the same, for each withheld sample in it.

    Returns:
        The close of the release, and how many samples were published.

    Raises:
        MixingError: a difference is too small, and no cover was allowed to or could make it large enough.
        PublishError, RecordError, TableError: see there.
    """
    home, secret = Collection(root), None if cover is None else _read_secret(cover)
    settles = home.closed_settles()
    close = Close.read(home.settled(settles[-1] if settles else 1) / "close.json")
    if number not in (None, close.number) or not close.released:
        raise PublishError(f"{root}: only the release of settle {close.number:04d}, the newest, may be handed out")
    if not home.current.is_file() or home.current.read_text() != f"{close.number:04d}\n":
        raise PublishError(
            f"{home.current}: does not name settle {close.number:04d}, which was not finished: settle"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise PublishError(f"{to}: exists already; name a folder that does not")
    salt = read_secret(home)
    every = np.concatenate(
        [np.zeros(0, "S16"), *(_keys(_read(home, close, shard, "manifest"), salt) for shard in close.shards)]
    )
    counts, earlier = close.counts, recorded(home)
    bound = max(least, per_withheld * counts.withheld)
    gaps = [Gap(True, counts.samples - counts.keep, bound, np.unique(every))]
    for folder in [*earlier, *previous]:
        known = None if folder in earlier else salt
        gap, withheld = _gap(home, close, folder, gaps[0].uids, (salt, known))
        gaps.append(replace(gap, least=max(least, per_withheld * withheld)))
    dropped = draw_cover(gaps, secret)
    if shards and len(dropped):
        raise PublishError("a cover drops samples that the release's tars hold; publish without one of the two")
    durable.make_folder(to.parent)
    durable.make_folder(home.publications, mode=RESTRICTED_FOLDER_MODE)
    with (
        _held(home, settles),
        TemporaryDirectory(dir=home.publications, prefix=durable.TEMPORARY_PREFIX) as record,
        TemporaryDirectory(dir=to.parent, prefix=durable.TEMPORARY_PREFIX) as partial,
    ):
        _write(home, close, Path(record, "new"), dropped, salt, keyed=True)
        _write(home, close, Path(partial, "new"), dropped, salt, keyed=False, shards=shards)
        os.rename(Path(record, "new"), home.publications / f"{len(earlier) + 1:04d}")
        durable.sync_folder(home.publications)
        os.rename(Path(partial, "new"), to)
        durable.sync_folder(to.parent)
    return close, int((~np.isin(every, dropped)).sum())


@contextmanager
def _held(home: Collection, settles: Sequence[int]) -> Iterator[None]:
    """Hold the collection, and see that nothing was settled in it since it was looked at."""
    with (home.journal / "lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            settles = ()
        if home.closed_settles() != settles:
            raise PublishError(f"{home.root}: another shardscrub is at work in it; publish when it has ended")
        yield


def draw_cover(gaps: Sequence[Gap], secret: bytes | None) -> Uids:
    """Return the contents to drop so that every gap that is open, or that dropping opens, is large enough.

    The draw goes through the contents of the first gap, ascending by their BLAKE2b (RFC 7693) under the secret, and
    takes the fewest that do: under one secret, the cover of a release begins as that of the one before did.

    Raises:
        MixingError: there is no secret and a gap is too small, or not even all contents would do.
    """
    contents = [] if secret is None else [uid.ljust(16, b"\0") for uid in gaps[0].uids.tolist()]
    contents.sort(key=lambda uid: hashlib.blake2b(uid, key=secret or b"").digest())
    order = np.array(contents, "S16")
    places = [np.flatnonzero(np.isin(order, gap.uids)) for gap in gaps]
    count, before = 0, -1
    while count != before:
        before = count
        for gap, place in zip(gaps, places, strict=True):
            hits, wanted = int(np.searchsorted(place, count)), gap.least - gap.missing
            if (gap.is_open or hits) and hits < wanted:
                if wanted > len(place) or place[wanted - 1] + 1 == len(order):
                    raise MixingError(_TOO_SMALL)
                count = int(place[wanted - 1]) + 1
    return order[:count]


def recorded(home: Collection) -> list[Path]:
    """Return the folders of what was published from a collection, in order.

    Raises:
        PublishError: one is missing.
    """
    folders = sorted(home.publications.glob("[0-9]*"))
    if [folder.name for folder in folders] != [f"{number + 1:04d}" for number in range(len(folders))]:
        raise PublishError(f"{home.publications}: a record is missing; restore it")
    return folders


def handed_out(folder: Path) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of one publication, or of the record of one, by shard.

    Raises:
        PublishError: it is none.
        TableError: a table is missing or is not the one that was written.
    """
    try:
        digests = dict(json.loads((folder / "summary.json").read_bytes())["manifests"])
    except (OSError, ValueError, KeyError, TypeError):
        raise PublishError(f"{folder}: not a publication; its summary.json is missing or damaged") from None
    for shard, sha256 in digests.items():
        yield shard, schema.read(folder / "manifest" / f"{shard}.parquet", sha256=sha256)


def _gap(
    home: Collection, close: Close, folder: Path, contents: Uids, salts: tuple[bytes, bytes | None]
) -> tuple[Gap, int]:
    """Return what of an earlier publication is not in the release whose contents are given, and how many withheld.

    salts: what keys the uids of the release, and of the publication (None: they are keyed already).
    """
    none = np.zeros(0, "S16")
    had, gone, withheld = [none], [none], 0
    for shard, table in handed_out(folder):
        if shard not in close.shards:
            raise PublishError(f"{folder}: not of this input: it names a shard that the collection does not have")
        new, keys = _read(home, close, shard, "manifest"), _keys(table, salts[1])
        key_of = dict(zip(new["index"].to_pylist(), _keys(new, salts[0]).tolist(), strict=True))
        rows = zip(table["index"].to_pylist(), keys.tolist(), strict=True)
        lost = np.array([key_of.get(index) != key for index, key in rows], np.bool_)
        decisions = _read(home, close, shard, "decisions")
        hidden = decisions.filter(decisions["withheld"])["index"].to_numpy()
        withheld += int(np.isin(table["index"].to_numpy()[lost], hidden).sum())
        had.append(keys)
        gone.append(keys[lost])
    missing = np.setdiff1d(np.concatenate(gone), contents)
    both = np.intersect1d(np.concatenate(had), contents)
    return Gap(any(len(part) for part in gone), len(missing), 0, both), withheld


def _record(home: Collection, close: Close, shard: str) -> SettleCommit:
    path = home.settled(close.number) / "decisions" / f"{shard}.json"
    settled = SettleCommit.read(path)
    if settled.manifest is None or hashlib.sha256(settled.encode()).hexdigest() != close.shards[shard]:
        raise PublishError(f"{path}: not the record that was closed; `shardscrub verify` says more")
    return settled


def _read(home: Collection, close: Close, shard: str, what: Literal["manifest", "decisions"]) -> pa.Table:
    settled = _record(home, close, shard)
    if what == "decisions":
        path = home.settled(close.number) / "decisions" / settled.decisions.name
        return schema.read(path, sha256=settled.decisions.sha256)
    assert settled.manifest is not None  # `_record` refuses it
    path = home.release(close.number) / "manifest" / settled.manifest.name
    return schema.read(path, sha256=settled.manifest.sha256)


def _put_tar(home: Collection, close: Close, shard: str, to: Path) -> str:
    """Give a tar of the release a second name in `to`, and return its digest."""
    tar, folder = _record(home, close, shard).tar, home.release(close.number) / "shards"
    if tar is None:
        raise PublishError(f"{folder.parent}: was made without tars; publish it without --shards")
    with (folder / tar.name).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != tar.sha256:
            raise PublishError(f"{folder / tar.name}: not the one that was released; `shardscrub verify` says more")
    durable.make_folder(to)
    durable.link(folder / tar.name, to / tar.name)
    return tar.sha256


def _keys(table: pa.Table, salt: bytes | None) -> Uids:
    uids = table["uid"].to_pylist()
    if salt is None:
        return np.array(uids, "S16")
    ids = np.frombuffer(b"".join(uids), np.uint8).reshape(-1, 16)
    return make_keys(ids, np.ones(len(ids), np.bool_), salt, "image")


def _write(
    home: Collection, close: Close, to: Path, dropped: Uids, salt: bytes, *, keyed: bool, shards: bool = False
) -> None:
    """Write a publication, or the record of one: index and keyed uids."""
    durable.make_folder(to / "manifest")
    digests, uids = {}, [np.zeros(0, "S16")]
    tars = {shard: _put_tar(home, close, shard, to / "shards") for shard in (close.shards if shards else ())}
    for shard in close.shards:
        table = _read(home, close, shard, "manifest")
        keys = _keys(table, salt)
        stays = ~np.isin(keys, dropped)
        if keyed:
            bare = [key.ljust(16, b"\0") for key in keys.tolist()]
            table = pa.table({"index": table["index"], "uid": pa.array(bare, pa.binary(16))})
        table = table.filter(pa.array(stays))
        data = schema.encode(table)
        durable.write(to / "manifest" / f"{shard}.parquet", data, replace=False)
        digests[shard] = hashlib.sha256(data).hexdigest()
        uids.append(_keys(table, None))
    kept = np.sort(np.concatenate(uids))
    with durable.create(to / "uids.npy", replace=False) as file:
        np.save(file, kept.view(">u8").astype("<u8").view([("f0", "<u8"), ("f1", "<u8")]), allow_pickle=False)
    summary = {"kept": len(kept), "manifests": digests, "stamps": list(close.stamps), "note": _NOTE}
    summary |= {"tars": tars} if shards else {}
    durable.write(to / "summary.json", readable_json(summary), replace=False)


def _read_secret(path: Path) -> bytes:
    data = path.read_bytes()
    if path.stat().st_mode & 0o077 or len(data) < _LEAST_SECRET_BYTES:
        raise PublishError(f"{path}: expected at least {_LEAST_SECRET_BYTES} random bytes, in a file of mode 0600")
    return hashlib.blake2b(data).digest()
