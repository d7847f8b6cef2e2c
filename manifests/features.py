"""The features of one shard: columns in memory, one Parquet table on disk.

Owns the conversion both ways and the blanking of withheld samples. Leaves to others how a feature is made.

- A row is one examined member of a sample, or the sample itself where it has none (`role` none).
- What could not be computed is null on disk and masked in memory; there are no sentinel values.
- `withhold` splits a shard into what stays in clear (identity and `withheld = true`) and what is sealed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.schema import CODE_BYTES, FeatureColumns, algorithm_of, examined_schema

_WIDTHS = {"md5": 16, "sha1": 20, "sha256": 32}


@dataclass(frozen=True, slots=True, repr=False)
class HashColumn:
    """One perceptual hash of one view of every row.

    codes: uint8 [R, variants, bytes]. quality: float32 [R], 0 to 100, NaN where the hash has none. usable,
    hashable: bool [R]; a row is not hashable where the picture lacks the view or is too small for the hash.
    """

    codes: NDArray[np.uint8]
    quality: NDArray[np.float32]
    usable: NDArray[np.bool_]
    hashable: NDArray[np.bool_]

    @classmethod
    def empty(cls, rows: int, variants: int, code_bytes: int) -> HashColumn:
        """Return a column in which nothing could be hashed yet."""
        return cls(
            np.zeros((rows, variants, code_bytes), np.uint8),
            np.full(rows, np.nan, np.float32),
            np.zeros(rows, np.bool_),
            np.zeros(rows, np.bool_),
        )


@dataclass(frozen=True, slots=True, repr=False)
class ShardFeatures:
    """All rows of one shard. Like all that carries them, it is printed without urls, captions or digests.

    table: every column that is not an array below, in the schema's order (shard, index, key, ...).
    digests: md5, sha1, sha256 as uint8 [R, width]; digested: bool [R], the bytes were read.
    What was not read (`schema.read`) is missing, or of width 0.
    hashes: by column name. embedding: float16 [R, D]; embedded: bool [R]. scores: float32 [R], NaN = unknown.
    """

    table: pa.Table
    digests: Mapping[str, NDArray[np.uint8]]
    digested: NDArray[np.bool_]
    hashes: Mapping[str, HashColumn]
    embedding: NDArray[np.float16]
    embedded: NDArray[np.bool_]
    scores: Mapping[str, NDArray[np.float32]]

    @property
    def columns(self) -> FeatureColumns:
        """What shapes the table."""
        hashes = tuple((name, int(np.prod(column.codes.shape[1:]))) for name, column in self.hashes.items())
        return FeatureColumns(hashes, int(self.embedding.shape[1]), tuple(self.scores))

    def strings(self, name: str) -> list[str | None]:
        """Return one column of text."""
        values: list[str | None] = self.table[name].to_pylist()
        return values

    def indices(self) -> NDArray[np.int32]:
        """Return the sample index of every row, ascending."""
        return np.asarray(self.table["index"].to_numpy(), np.int32)

    def withheld(self) -> NDArray[np.bool_]:
        """Return which rows are blank because their sample is withheld."""
        return np.asarray(self.table["withheld"].to_numpy(zero_copy_only=False), np.bool_)

    def url_ids(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the first 16 bytes of the SHA-256 of every URL's canonical form, and which rows have one."""
        return byte_rows(self.table["url_uid"], 16)

    def crawled(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        """Return the digests that the crawl recorded: by algorithm, uint8 [R, width] and which rows have one."""
        return {name: byte_rows(self.table[f"crawl_{name}"], width) for name, width in _WIDTHS.items()}

    def identities(self) -> Iterator[tuple[int, str]]:
        """Iterate over (index, key) of the samples, each once, in order."""
        last = -1
        for index, key in zip(self.table["index"].to_pylist(), self.table["key"].to_pylist(), strict=True):
            if index != last:
                yield index, key
            last = index


def encode_features(features: ShardFeatures) -> pa.Table:
    """Return the table that is written to disk."""
    arrays: dict[str, pa.Array] = {
        name: features.table[name].combine_chunks() for name in features.table.column_names
    }
    for name in _WIDTHS:
        arrays[name] = fixed_binary(features.digests[name], features.digested)
    for name, column in features.hashes.items():
        width = column.codes.shape[1] * column.codes.shape[2]
        arrays[name] = fixed_binary(column.codes.reshape(-1, width), column.hashable)
        rated = column.hashable & ~np.isnan(column.quality)
        arrays[f"{name}.quality"] = pa.array(np.nan_to_num(column.quality).astype(np.uint8), mask=~rated)
        arrays[f"{name}.usable"] = pa.array(column.usable, mask=~column.hashable)
    dims = features.embedding.shape[1]
    if dims:
        flat = pa.array(features.embedding.reshape(-1))
        arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, dims, mask=pa.array(~features.embedded))
    for name, scores in features.scores.items():
        arrays[f"score.{name}"] = pa.array(scores, mask=np.isnan(scores))
    schema = examined_schema(features.columns)
    return pa.table([arrays[field.name].cast(field.type) for field in schema], schema=schema)


def decode_features(table: pa.Table) -> ShardFeatures:
    """Return the columns of a table read from disk."""
    rows = table.num_rows
    arrays = {"md5", "sha1", "sha256", "embedding"}
    hashes: dict[str, HashColumn] = {}
    scores: dict[str, NDArray[np.float32]] = {}
    for column in table.column_names:
        if column.endswith(".quality"):
            name = column.removesuffix(".quality")
            known = np.asarray(table[f"{name}.usable"].is_valid().to_numpy(), np.bool_)
            codes = np.zeros((rows, 0, 0), np.uint8)
            if name in table.column_names:
                width = table[name].type.byte_width
                one = CODE_BYTES.get(algorithm_of(name), width)
                codes = byte_rows(table[name], width)[0].reshape(rows, width // one, one)
            usable = table[f"{name}.usable"].fill_null(False).to_numpy(zero_copy_only=False)
            quality = np.asarray(table[column].to_numpy(), np.float32)
            hashes[name] = HashColumn(codes, quality, np.asarray(usable, np.bool_), known)
            arrays |= {name, column, f"{name}.usable"}
    for name in table.column_names:
        if name.startswith("score."):
            values = table[name].fill_null(float("nan")).to_numpy()
            scores[name.removeprefix("score.")] = np.asarray(values, np.float32)
            arrays.add(name)
    digests, digested = {}, np.zeros(rows, np.bool_)
    for name, width in _WIDTHS.items():
        if name in table.column_names:
            digests[name], digested = byte_rows(table[name], width)
    embedding, embedded = _vectors(table)
    plain = table.select([name for name in table.column_names if name not in arrays])
    return ShardFeatures(plain, digests, digested, hashes, embedding, embedded, scores)


def withhold(table: pa.Table, indices: NDArray[np.int32]) -> tuple[pa.Table, pa.Table]:
    """Split an encoded table into (clear, sealed): of samples in `indices` only the identity stays in clear."""
    hidden = pc.is_in(table["index"], value_set=pa.array(indices, pa.int32()))
    sealed = table.filter(hidden)
    first = pa.array(np.diff(np.asarray(sealed["index"].to_numpy(), np.int64), prepend=-1) != 0)
    blank = sealed.filter(first).select(["shard", "index", "key"])
    columns: list[Any] = []
    for field in table.schema:
        if field.name in blank.column_names:
            columns.append(blank[field.name])
        elif field.name == "withheld":
            columns.append(pa.array(np.ones(blank.num_rows, np.bool_)))
        else:
            columns.append(pa.nulls(blank.num_rows, field.type))
    clear = pa.concat_tables([table.filter(pc.invert(hidden)), pa.table(columns, schema=table.schema)])
    order = np.argsort(np.asarray(clear["index"].to_numpy(), np.int64), kind="stable")
    return clear.take(pa.array(order)).combine_chunks(), sealed.combine_chunks()


def faulted_samples(table: pa.Table) -> dict[int, str]:
    """Return the first fault of every sample of an encoded table that has one; withheld ones show none."""
    found: dict[int, str] = {}
    faulty = table.filter(pc.or_(table["sample_fault"].is_valid(), table["fault"].is_valid()))
    columns = (faulty[name].to_pylist() for name in ("index", "sample_fault", "fault"))
    for index, sample_fault, fault in zip(*columns, strict=True):
        if (sample_fault or fault) and index not in found:
            found[index] = sample_fault or fault
    return found


def replace_samples(stored: ShardFeatures, fresh: ShardFeatures, indices: NDArray[np.int32]) -> ShardFeatures:
    """Return `stored` with the rows of the samples in `indices` taken from `fresh`."""
    old, new = encode_features(stored), encode_features(fresh)
    values = pa.array(indices, pa.int32())
    kept = old.filter(pc.invert(pc.is_in(old["index"], value_set=values)))
    both = pa.concat_tables([kept, new.filter(pc.is_in(new["index"], value_set=values))])
    order = np.argsort(np.asarray(both["index"].to_numpy(), np.int64), kind="stable")
    return decode_features(both.take(pa.array(order)).combine_chunks())


def fixed_binary(rows: NDArray[np.uint8], known: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return uint8 [N, width] as a column of bytes, null where not known."""
    data = pa.py_buffer(np.ascontiguousarray(rows).tobytes())
    validity = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
    return pa.Array.from_buffers(pa.binary(rows.shape[1]), len(rows), [validity, data])


def byte_rows(column: pa.ChunkedArray, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a column of bytes as uint8 [N, width], and which rows are not null (zeros where they are)."""
    if not column.null_count:
        known, filled = np.ones(len(column), np.bool_), column.combine_chunks()
    else:
        known = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
        filled = column.fill_null(bytes(width)).combine_chunks()
    array = filled.chunk(0) if isinstance(filled, pa.ChunkedArray) and filled.num_chunks else filled
    if len(column) == 0:
        return np.zeros((0, width), np.uint8), known
    start = array.offset * width
    raw = np.frombuffer(array.buffers()[1], np.uint8)[start : start + len(array) * width]
    return raw.reshape(len(array), width), known


def _vectors(table: pa.Table) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    if "embedding" not in table.column_names:
        return np.zeros((table.num_rows, 0), np.float16), np.zeros(table.num_rows, np.bool_)
    column = table["embedding"]
    known = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    dims = column.type.list_size
    vectors = np.full((len(known), dims), np.nan, np.float16)
    values = column.drop_null().combine_chunks().flatten()
    vectors[known] = np.asarray(values.to_numpy(zero_copy_only=False), np.float16).reshape(-1, dims)
    return vectors, known
