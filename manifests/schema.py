"""The columns of every table on disk, and the one way tables become bytes.

Owns Arrow schemas and Parquet settings. `docs/formats.md` explains the columns to people.

- Same table, same bytes: fixed settings, no times, no hosts.
- In `examined/` a row is one judged member of a sample (or the sample itself where it has none); in
  `decisions/` and `manifest/` a row is one sample.
- A withheld sample is `index, key, withheld = true` and nothing else, in one row.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.lifetime import say_missing
from manifests.records import SCHEMA_VERSION, FilesError, canonical_json

# Bytes of one code by the algorithm that a hash column's name begins with (`pdq:fullres.oriented`), for those that
# lists can hold. The columns of plug-ins are read back as one code a row.
CODE_BYTES = {"pdq": 32, "phash": 8, "dhash": 8, "whash": 8, "ahash": 8}
CODES = "codes"  # stands for all hash columns' codes where columns are left aside
_ROW_GROUP = 16_384
_FEW_VALUES = ["shard", "role", "member", "sample_fault", "fault", "hash_source", "format"]
_FEW_VALUES += ["action", "rule", "reason", "before", "after", "open_rules.list.element"]


class TableError(FilesError):
    """A table on disk is missing, damaged or of another version."""


@dataclass(frozen=True, slots=True)
class FeatureColumns:
    """What shapes the feature table: hash columns and bytes of a row of codes, embedding width, score columns."""

    hashes: tuple[tuple[str, int], ...]
    dims: int
    scores: tuple[str, ...]


def algorithm_of(column: str) -> str:
    """Return the algorithm of a hash column: `pdq` of `pdq:fullres.oriented`."""
    return column.partition(":")[0]


def examined_schema(columns: FeatureColumns) -> pa.Schema:
    """Return the schema of `examined/<shard>.parquet`."""
    fields = [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("withheld", pa.bool_(), nullable=False),
        pa.field("role", pa.string()),
        pa.field("member", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("url_uid", pa.binary(16)),
        pa.field("caption", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("sample_fault", pa.string()),
        pa.field("fault", pa.string()),
        pa.field("md5", pa.binary(16)),
        pa.field("sha1", pa.binary(20)),
        pa.field("sha256", pa.binary(32)),
        pa.field("hash_source", pa.string()),
        pa.field("crawl_md5", pa.binary(16)),
        pa.field("crawl_sha1", pa.binary(20)),
        pa.field("crawl_sha256", pa.binary(32)),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
    for name, width in columns.hashes:
        fields += [
            pa.field(name, pa.binary(width)),
            pa.field(f"{name}.quality", pa.uint8()),
            pa.field(f"{name}.usable", pa.bool_()),
        ]
    if columns.dims:
        fields.append(pa.field("embedding", pa.list_(pa.float16(), columns.dims)))
    fields += [pa.field(f"score.{name}", pa.float32()) for name in columns.scores]
    return pa.schema(fields)


def decision_schema(signals: Sequence[str]) -> pa.Schema:
    """Return the schema of `settled/N/decisions/<shard>.parquet`; signals are those of the deciding member."""
    return pa.schema(
        [
            pa.field("shard", pa.string(), nullable=False),
            pa.field("index", pa.int32(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("withheld", pa.bool_(), nullable=False),
            pa.field("action", pa.string()),
            pa.field("rule", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("open_rules", pa.list_(pa.string())),
            pa.field("member", pa.string()),
            *(pa.field(f"signal.{name}", pa.float32()) for name in signals),
        ]
    )


MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("uid", pa.binary(16), nullable=False),
        pa.field("images", pa.int32(), nullable=False),
        pa.field("images_sha256", pa.binary(32)),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string()),
    ]
)
# Where the tars hold images that were encoded anew: what stands for them there (`contents.digest_images`).
IN_TAR = "sha256_in_tar"
_MANIFESTS = (MANIFEST_SCHEMA, MANIFEST_SCHEMA.append(pa.field(IN_TAR, pa.binary(32))))


CHANGES_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("before", pa.string()),
        pa.field("after", pa.string()),
    ]
)


def is_manifest(table: pa.Table) -> bool:
    """Say whether a table has the columns of a manifest, of images as they came or encoded anew."""
    return table.schema.remove_metadata() in _MANIFESTS


def stamp(schema: pa.Schema, *, plan: str, stamps: Sequence[str], **more: object) -> pa.Schema:
    """Return `schema` with the version, the plan's digest, every `unsafe_` stamp and `more` in its metadata."""
    value = canonical_json({"schema": SCHEMA_VERSION, "plan": plan, "stamps": list(stamps), **more})
    return schema.with_metadata({b"shardscrub": value})


def encode(table: pa.Table) -> bytes:
    """Return the Parquet bytes of `table`: the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=_ROW_GROUP,
        version="2.6",
        use_dictionary=_FEW_VALUES,
    )
    return sink.getvalue()


def read(path: Path, *, sha256: str | None = None, without: Collection[str] = ()) -> pa.Table:
    """Read a table, checked against its recorded digest where one is given.

    Raises:
        TableError: the file is missing, is not Parquet, or has other bytes than recorded.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TableError(say_missing(path)) from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise TableError(f"{path}: bytes differ from the digest in its record; restore the file or examine again")
    return decode(data, source=str(path), without=without)


def decode(data: bytes, *, source: str, without: Collection[str] = ()) -> pa.Table:
    """Parse Parquet bytes of ours, leaving the columns in `without` aside; `CODES` there are those of all hashes.

    Raises:
        TableError: not Parquet.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        every = file.schema_arrow.names
        aside = {*without, *(name for name in every if CODES in without and f"{name}.quality" in every)}
        names = [name for name in every if name not in aside]
        return file.read(names if without else None, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{source}: not a readable Parquet table ({type(error).__name__})") from None
