"""No cell of a release is of what its settle did not keep: an exact join, made apart from how it was decided.

Owns the search. Leaves to `verify` whether files are those that records name, and what the tars' members hold.

- Compared are identities, bytes and URLs: with the restricted tier where it has them in clear, else with the keyed
  digests of what is withheld. A caption is compared with the sample's own.
- A leak is named by file and row (counted from 0), never by its value.
- In memory: one shard, and 16 bytes for each content and URL that is not kept.
- Bytes that nothing but a fault set aside, and URLs of samples that were set aside, may stand elsewhere
  (docs/adr/0012). What a later settle withheld is not held against an earlier release.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import schema
from manifests.collection import Collection
from manifests.commits import Close, ExamineCommit, RecordError
from manifests.keyed import KEY_BYTES, make_keys, read_keyed, read_secret
from manifests.records import Action, split_member_name
from manifests.verify_release import uid_problems

_ROWS_NAMED = 10
_DECIDED = ("index", "key", "action", "reason", "member")
_FEATURES = ("index", "withheld", "role", "member", "sha256", "url", "caption")
_COUNTS = {"number", "shards", "in", "kept", "not_kept", "faults"}
_SUMMARY = _COUNTS | {"uid", "examine_plan", "decide_plan", "stamps", "note"}
_Keys = NDArray[np.bytes_]


def scan_newest(root: Path) -> tuple[Close, list[str]]:
    """Search all of the newest closed release of a collection; returns its close and every leak.

    Raises:
        RecordError: there is no closed release.
        FilesError: a file that the search needs is missing or damaged.
    """
    collection = Collection(root)
    closes = (Close.read(collection.settled(n) / "close.json") for n in reversed(collection.closed_settles()))
    close = next((item for item in closes if item.released), None)
    if close is None:
        raise RecordError(f"{root}: no closed release in this collection")
    release = collection.release(close.number)
    leaks = [*find_leaks(collection, close.number, list(close.shards)), *uid_problems(release, close)]
    for shard in close.shards:
        leaks += _tar_leaks(release / "shards" / f"{shard}.tar", release / "manifest" / f"{shard}.parquet")
    if set(json.loads((release / "summary.json").read_bytes())) != _SUMMARY:
        leaks.append(f"{release / 'summary.json'}: says more or less than in, kept, not kept, faults and plans")
    return close, leaks


def find_leaks(collection: Collection, number: int, shards: Sequence[str]) -> Iterator[str]:
    """Yield every leak of the manifests of a settle, closed or about to be.

    Raises:
        FilesError: a file that the search needs is missing or damaged.
    """
    secret = read_secret(collection)
    images, urls = _not_kept(collection, number, shards, secret)
    for shard in shards:
        path = collection.release(number) / "manifest" / f"{shard}.parquet"
        yield from _manifest_leaks(path, *_tables(collection, number, shard), images, urls, secret)


def _columns(path: Path, names: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(list(names), use_threads=False).select(list(names)).combine_chunks()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise schema.TableError(f"{path}: missing, or not a table of its kind ({type(error).__name__})") from None


def _tables(collection: Collection, number: int, shard: str) -> tuple[pa.Table, pa.Table]:
    """Return what one shard's decisions and features say, as far as it is compared."""
    features = collection.examined / ExamineCommit.read(collection.commit(shard)).features.name
    decisions = collection.settled(number) / "decisions" / f"{shard}.parquet"
    return _columns(decisions, _DECIDED), _columns(features, _FEATURES)


def _not_kept(collection: Collection, number: int, shards: Sequence[str], secret: bytes) -> tuple[_Keys, _Keys]:
    """Return the keys of the contents and of the URLs that no kept sample may have, sorted."""
    newest = max([number, *collection.closed_settles()]) == number
    last = np.array([b"\xff" * KEY_BYTES])  # so that every key has its place
    images, urls = [last], [last]
    for shard in shards:
        decided, features = _tables(collection, number, shard)
        rows = decided.take(pc.index_in(features["index"], value_set=decided["index"]))
        faulty = pc.starts_with(pc.coalesce(rows["reason"], ""), "fault:")
        ruled = pc.and_(pc.not_equal(rows["action"], Action.KEEP.name), pc.invert(faulty))
        deciding = pc.and_(pc.equal(features["role"], "image"), pc.equal(features["member"], rows["member"]))
        found = features["sha256"].filter(pc.and_(ruled, deciding)).to_pylist()
        removed = features["url"].filter(pc.equal(rows["action"], Action.REMOVE.name)).to_pylist()
        images.append(make_keys(found, secret, "image"))
        urls.append(make_keys((url.encode() for url in removed if url), secret, "url"))
        if newest:
            keyed = read_keyed(collection, shard, secret)
            images.append(np.array(keyed.images, last.dtype))
            urls.append(np.array(keyed.urls, last.dtype))
    return np.sort(np.concatenate(images)), np.sort(np.concatenate(urls))


def _manifest_leaks(
    path: Path, decided: pa.Table, features: pa.Table, images: _Keys, urls: _Keys, secret: bytes
) -> Iterator[str]:
    table, pictures = (
        _columns(path, schema.MANIFEST_SCHEMA.names),
        features.filter(pc.equal(features["role"], "image")),
    )
    cells, (named, first, picture) = (
        table.to_pydict(),
        (
            source.take(pc.index_in(table["index"], value_set=source["index"])).to_pydict()
            for source in (decided, features, pictures)
        ),
    )
    kept = [action == Action.KEEP.name for action in named["action"]]
    own = {
        "shard": [path.stem] * len(kept),
        "key": [key if keep else False for key, keep in zip(named["key"], kept, strict=True)],
        "uid": [value and value[:16] for value in picture["sha256"]],
        "sha256": picture["sha256"],
        "url": first["url"],
        "caption": first["caption"],
    }
    for column, values in own.items():
        rows = enumerate(zip(cells[column], values, first["withheld"], strict=True))
        other = [row for row, (cell, mine, since) in rows if cell != mine and not (since and mine is None)]
        yield from _named(path, f"has in {column} what is not a kept sample's own", other)
    several = table["index"].filter(pc.greater(table["images"], 1))
    more = pictures.filter(pc.is_in(pictures["index"], value_set=several)).to_pydict()
    index, place = cells["index"] + more["index"], {number: row for row, number in enumerate(cells["index"])}
    found = _found(make_keys(cells["sha256"] + more["sha256"], secret, "image"), images)
    yield from _named(path, "has an image that is not kept elsewhere", sorted({place[index[at]] for at in found}))
    found = _found(make_keys((url.encode() if url else None for url in cells["url"]), secret, "url"), urls)
    yield from _named(path, "has a url that is not kept elsewhere", found)


def _found(keys: _Keys, known: _Keys) -> NDArray[np.int64]:
    return np.flatnonzero((known[np.searchsorted(known, keys)] == keys) & (keys != b""))


def _tar_leaks(path: Path, manifest: Path) -> Iterator[str]:
    if path.exists():  # `verify` tells a lost one
        keys = set(_columns(manifest, ["key"])["key"].to_pylist())
        try:
            with tarfile.open(path, mode="r:", encoding="utf-8", errors="strict") as archive:
                names = [split_member_name(info.name)[0] not in keys for info in archive]
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise schema.TableError(f"{path}: not a readable tar archive ({type(error).__name__})") from None
        yield from _named(path, "is a member of no kept sample", np.flatnonzero(names))


def _named(path: Path, problem: str, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[str]:
    for row in rows[:_ROWS_NAMED]:
        yield f"{path}: row {row} {problem}"
    if len(rows) > _ROWS_NAMED:
        yield f"{path}: and {len(rows) - _ROWS_NAMED} more such rows"
