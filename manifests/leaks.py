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
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import schema
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.commits import Close, ExamineCommit, RecordError
from manifests.contents import images_sha256
from manifests.features import byte_rows
from manifests.keyed import KEY_BYTES, KnownKeys, make_keys, read_keyed, read_secret
from manifests.records import Action, split_member_name
from manifests.verify_release import uid_problems

_ROWS_NAMED = 10
_FEATURES = ("index", "withheld", "role", "sha256", "url", "url_uid", "caption")
_COUNTS = {"number", "shards", "in", "kept", "not_kept", "faults"}
_SUMMARY = _COUNTS | {"uid", "examine_plan", "decide_plan", "stamps", "note"}
_Keys = NDArray[np.bytes_]
_NO_KEYS = np.zeros(0, f"S{KEY_BYTES}")


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


@dataclass(frozen=True, slots=True, repr=False)
class NotKept:
    """The keys of the contents and of the URLs that no kept sample may have."""

    images: _Keys
    urls: _Keys

    @classmethod
    def join(cls, parts: Iterable[NotKept]) -> NotKept:
        """Return the keys of all parts, sorted."""
        several = [cls(_NO_KEYS, _NO_KEYS), *parts]
        return cls(
            *(np.sort(np.concatenate([getattr(one, name) for one in several])) for name in ("images", "urls"))
        )

    def known(self) -> tuple[KnownKeys, KnownKeys]:
        """Return the keys, sorted, to look others up in."""
        return KnownKeys(self.images), KnownKeys(self.urls)


def find_leaks(collection: Collection, number: int, shards: Sequence[str]) -> Iterator[str]:
    """Yield every leak of the manifests of a settle, closed or about to be.

    Raises:
        FilesError: a file that the search needs is missing or damaged.
    """
    unkept = NotKept.join(find_unkept(collection, number, shard) for shard in shards).known()
    for shard in shards:
        yield from find_shard_leaks(collection, number, shard, unkept)


def find_shard_leaks(
    collection: Collection, number: int, shard: str, unkept: tuple[KnownKeys, KnownKeys]
) -> Iterator[str]:
    """Yield every leak of one shard's manifest, given what the whole settle did not keep.

    Raises:
        FilesError: a file that the search needs is missing or damaged.
    """
    path = collection.release(number) / "manifest" / f"{shard}.parquet"
    tables = _tables(collection, number, shard, ("index", "key", "action"), _FEATURES)
    yield from _manifest_leaks(path, *tables, unkept, read_secret(collection))


def write_unkept(path: Path, unkept: NotKept) -> None:
    """Keep what one shard did not keep while a settle is at work: nothing that a kill could harm."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, RESTRICTED_FILE_MODE)) as file:
        file.write(len(unkept.images).to_bytes(8, "little") + unkept.images.tobytes() + unkept.urls.tobytes())


def read_unkept(path: Path) -> NotKept:
    """Return what `write_unkept` kept."""
    data = path.read_bytes()
    keys, count = np.frombuffer(data, f"S{KEY_BYTES}", offset=8), int.from_bytes(data[:8], "little")
    return NotKept(keys[:count], keys[count:])


def _columns(path: Path, names: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(list(names), use_threads=False).select(list(names)).combine_chunks()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise schema.TableError(f"{path}: missing, or not a table of its kind ({type(error).__name__})") from None


def _tables(
    collection: Collection, number: int, shard: str, of_decisions: Sequence[str], of_features: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """Return what one shard's decisions and features say, as far as it is compared."""
    features = collection.examined / ExamineCommit.read(collection.commit(shard)).features.name
    decisions = collection.settled(number) / "decisions" / f"{shard}.parquet"
    return _columns(decisions, of_decisions), _columns(features, of_features)


def find_unkept(collection: Collection, number: int, shard: str) -> NotKept:
    """Return the keys of the contents and of the URLs of one shard that no kept sample may have.

    Raises:
        FilesError: a file is missing or damaged.
    """
    secret = read_secret(collection)
    columns = ("index", "role", "member", "sha256", "url_uid")
    decided, features = _tables(collection, number, shard, ("index", "action", "reason", "member"), columns)
    rows = decided.take(pc.index_in(features["index"], value_set=decided["index"]))
    faulty = pc.starts_with(pc.coalesce(rows["reason"], ""), "fault:")
    ruled = pc.and_(pc.not_equal(rows["action"], Action.KEEP.name), pc.invert(faulty))
    deciding = pc.and_(pc.equal(features["role"], "image"), pc.equal(features["member"], rows["member"]))
    removed = features["url_uid"].filter(pc.equal(rows["action"], Action.REMOVE.name))
    images = _image_keys(features["sha256"].filter(pc.and_(ruled, deciding)), secret)
    urls = make_keys(*byte_rows(removed, KEY_BYTES), secret, "url")
    images, urls = images[images != b""], urls[urls != b""]
    if max([number, *collection.closed_settles()]) == number:
        keyed = read_keyed(collection, shard, secret)
        images = np.concatenate([images, np.array(keyed.images, images.dtype)])
        urls = np.concatenate([urls, np.array(keyed.urls, urls.dtype)])
    return NotKept(images, urls)


def _image_keys(sha256: pa.ChunkedArray, secret: bytes) -> _Keys:
    digests, known = byte_rows(sha256, 32)
    return make_keys(digests[:, :KEY_BYTES], known, secret, "image")


def _manifest_leaks(
    path: Path, decided: pa.Table, features: pa.Table, unkept: tuple[KnownKeys, KnownKeys], secret: bytes
) -> Iterator[str]:
    table = _columns(path, schema.MANIFEST_SCHEMA.names)
    pictures = features.filter(pc.equal(features["role"], "image"))
    named, first, picture = (
        source.take(pc.index_in(table["index"], value_set=source["index"]))
        for source in (decided, features, pictures)
    )
    kept = pc.equal(named["action"], Action.KEEP.name).fill_null(False)
    own = {
        "key": pc.if_else(kept, named["key"], None),
        "sha256": picture["sha256"],
        "images_sha256": images_sha256(
            pictures["index"].to_numpy(), byte_rows(pictures["sha256"], 32)[0], table["index"].to_numpy()
        ),
        "url": first["url"],
        "caption": first["caption"],
    }
    since = first["withheld"].fill_null(False)
    for column, values in own.items():
        same = pc.coalesce(pc.equal(table[column], values), pc.and_(table[column].is_null(), values.is_null()))
        # Of a sample that a later settle withheld, what was its own is no longer known.
        other = pc.invert(pc.or_(same, pc.and_(since, values.is_null())))
        yield from _named(path, f"has in {column} what is not a kept sample's own", _places(other))
    moved = pc.not_equal(table["shard"], path.stem)
    yield from _named(path, "has in shard what is not a kept sample's own", _places(moved))
    uids, digests = byte_rows(table["uid"], KEY_BYTES)[0], byte_rows(table["sha256"], 32)[0]
    other = np.flatnonzero((uids != digests[:, :KEY_BYTES]).any(axis=1))
    yield from _named(path, "has in uid what is not a kept sample's own", other)
    images, urls = unkept
    found = urls.find(make_keys(*byte_rows(first["url_uid"], KEY_BYTES), secret, "url"))[0]
    yield from _named(path, "has a url that is not kept elsewhere", found)
    # Of a sample with several images all are looked for.
    several = table["index"].filter(pc.greater(table["images"], 1))
    more = pictures.filter(pc.is_in(pictures["index"], value_set=several))
    rows = pc.index_in(more["index"], value_set=table["index"]).to_numpy()
    also = rows[images.find(_image_keys(more["sha256"], secret))[0]]
    found = np.union1d(images.find(_image_keys(table["sha256"], secret))[0], also)
    if schema.IN_TAR in pq.read_schema(path).names:  # what was made of a kept image can be the bytes of another
        made = _columns(path, [schema.IN_TAR])[schema.IN_TAR]
        found = np.union1d(found, images.find(_image_keys(made, secret))[0])
    yield from _named(path, "has an image that is not kept elsewhere", found)


def _places(marks: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.flatnonzero(marks.to_numpy())


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
