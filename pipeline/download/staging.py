"""A crawled shard becomes a staged one: original URLs and columns again, every row with what became of it.

Owns the files of a staged shard and its commit, written last. Leaves the order of rows to `orders`.

- Image bytes are those that the gateway passed on, by SHA-256; a row without such bytes is `lost`.
- Samples lie in the order of their keys; a member's header says nothing but its name and size.
- No gateway address is in any file that stays.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import durable, schema
from manifests.collection import RESTRICTED_FILE_MODE
from manifests.records import SCHEMA_VERSION, canonical_json
from manifests.tars import Member, index_tar, read_member
from pipeline.download.fetched import Failure, Fetched, state_of
from pipeline.download.orders import order_path
from pipeline.screen_tables import sha256_of

_Row = Mapping[str, Any]
_REFUSED = "Use of image disallowed"  # how img2dataset says that a header refused
# Columns of img2dataset's sidecar; a table's own of one of these names, or with a digest of bytes fetched at
# another time, is kept under another name.
_NAMES = "key url caption status error_message width height original_width original_height exif"
_TAKEN = frozenset(f"{_NAMES} hash md5 sha1 sha256 sha512".split())
_TEXT, _LONG, _INT = pa.string(), pa.int64(), pa.int32()
RESULTS = pa.schema(
    [
        ("number", _LONG), ("table", _TEXT), ("failure", _TEXT), ("key", _TEXT), ("sha256", pa.binary(32)),
        ("size", _LONG), ("status", _INT), ("content_type", _TEXT), ("hops", _INT), ("fetches", _INT),
        ("shard", _TEXT),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Staging:
    """The folder of a download. name: what its shards' names begin with."""

    root: Path
    name: str
    plan: str
    stamps: tuple[str, ...]

    def shard(self, number: int) -> str:
        """Return the name of a shard."""
        return f"{self.name}-{number:05d}"

    def path(self, kind: str, number: int) -> Path:
        """Return the place of a file of a shard."""
        names = {"tar": "shards/{}.tar", "sidecar": "shards/{}.parquet"}
        names |= {"results": "results/{}.parquet", "commit": "commits/{}.json"}
        return self.root / names[kind].format(self.shard(number))

    def write(self, path: Path, table: pa.Table) -> None:
        """Write a table with the plan and its stamps."""
        stamped = schema.stamp(table.schema, plan=self.plan, stamps=self.stamps)
        data = schema.encode(table.replace_schema_metadata(stamped.metadata))
        durable.write(path, data, replace=True, mode=RESTRICTED_FILE_MODE)


def stage(staging: Staging, number: int, crawled: Path, attempts: Mapping[int, Sequence[Fetched]]) -> None:
    """Stage the shard that img2dataset wrote beside `crawled`, its tar, and commit it.

    Raises:
        OSError: the disk is full; nothing is committed.
    """
    order = pq.read_table(order_path(staging.root / "orders", number))
    crawl = pq.read_table(crawled.with_suffix(".parquet")).to_pylist()
    rows = {int(row["url"].rpartition("/")[2]): row for row in crawl}  # every address ends so
    images = {one.key: one for one in index_tar(crawled).members if one.extension == "jpg"}
    with crawled.open("rb") as file:
        known = (staging.shard(number), file, images)
        results = [_result(*known, rows.get(row), attempts.get(row, ())) for row in range(len(order))]
        done = [row for row, one in enumerate(results) if one["failure"] is None]
        done.sort(key=lambda row: results[row]["key"])
        sidecar = _sidecar(order, results)
        if done:
            tar = staging.path("tar", number)
            with durable.create(tar, replace=True, mode=RESTRICTED_FILE_MODE) as staged:
                _write_tar(staged, file, [(images[results[row]["key"]], row) for row in done], sidecar)
            staging.write(staging.path("sidecar", number), sidecar)
    made = pa.Table.from_pylist(results, RESULTS)
    for place, name in enumerate(("number", "table")):
        made = made.set_column(place, name, order[name])
    staging.write(staging.path("results", number), made)
    kinds = ("results", "tar", "sidecar") if done else ("results",)
    commit = {
        "schema": SCHEMA_VERSION,
        "plan": staging.plan,
        "stamps": list(staging.stamps),
        "shard": staging.shard(number),
        "rows": len(order),
        "states": Counter(state_of(one["failure"]) for one in results),
        "files": {kind: sha256_of(staging.path(kind, number)) for kind in kinds},
    }
    durable.write(staging.path("commit", number), canonical_json(commit), replace=False, mode=RESTRICTED_FILE_MODE)


def _result(
    shard: str, file: BinaryIO, images: Mapping[str, Member], row: _Row | None, attempts: Sequence[Fetched]
) -> dict[str, Any]:
    """Say what became of one row: what img2dataset wrote of it, held against what the gateway passed on."""
    last = attempts[-1] if attempts else Fetched()
    failure: Failure | None = Failure.LOST
    key: str | None = None
    if row is not None and row["status"] == "success" and row["key"] in images:
        digest = hashlib.sha256(read_member(file, images[row["key"]])).digest()
        served = [one for one in attempts if one.failure is None and one.digest.digest() == digest]
        if served and row["sha256"] == digest.hex():
            last, failure, key = served[-1], None, row["key"]
    elif row is not None and (row["error_message"] or "").startswith(_REFUSED):
        failure = Failure.OPT_OUT
    else:
        failure = last.failure or Failure.LOST
    staged = failure is None
    return {
        "failure": failure, "key": key, "shard": shard, "sha256": last.digest.digest() if staged else None,
        "size": last.size if staged else None, "status": last.status or None, "content_type": last.content_type,
        "hops": last.hops, "fetches": len(attempts),
    }  # fmt: skip


def _sidecar(order: pa.Table, results: Sequence[_Row]) -> pa.Table:
    """Return img2dataset's table of a shard, in the order of the rows."""
    ok = [one["failure"] is None for one in results]
    columns: dict[str, Any] = {
        "url": order["url"],
        "caption": order["caption"],
        "key": pa.array([one["key"] for one in results], pa.string()),
        "status": ["success" if good else "failed_to_download" for good in ok],
        "error_message": pa.array([one["failure"] for one in results], pa.string()),
        "sha256": pa.array([one["sha256"].hex() if one["sha256"] else None for one in results], pa.string()),
    }
    others = order["columns"].combine_chunks()
    for place, field in enumerate(others.type if pa.types.is_struct(others.type) else ()):
        name = field.name
        while name in _TAKEN or name in columns:
            name = f"table_{name}"
        columns[name] = others.field(place)
    return pa.table(columns)


def _write_tar(out: BinaryIO, source: BinaryIO, members: Sequence[tuple[Member, int]], sidecar: pa.Table) -> None:
    about = sidecar.take([row for _, row in members]).to_pylist()
    with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for (member, _), told in zip(members, about, strict=True):
            _add(archive, f"{member.key}.jpg", read_member(source, member))
            if told["caption"] is not None:
                _add(archive, f"{member.key}.txt", told["caption"].encode())
            _add(archive, f"{member.key}.json", json.dumps(told, default=str, indent=1).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
