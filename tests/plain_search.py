"""Looking for what was withheld in bytes that lie in clear: exactly, and by likeness."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"
CODE_BYTES, NEAR_BITS, NEAR_COSINE = 32, 31, 0.99


@dataclass(frozen=True, slots=True)
class Marks:
    """What must stand nowhere: exact spellings, PDQ codes (uint8 [N, 32]) and embeddings (float32 [N, D])."""

    exact: frozenset[bytes]
    codes: np.ndarray
    vectors: np.ndarray


def spellings(data: bytes) -> set[bytes]:
    return {data, data.hex().encode(), data.hex().upper().encode()}


def marks_of(rows: Sequence[Mapping[str, object]], images: Sequence[bytes] = ()) -> Marks:
    """Everything that opened sealed records say of their samples, and pieces of the pictures themselves."""
    exact: set[bytes] = set()
    codes, vectors = [], []
    for row in rows:
        for name in ("url", "caption"):
            exact |= {str(row[name]).encode()} if row[name] else set()
        if row["url"]:
            exact |= spellings(hashlib.sha256(str(row["url"]).encode()).digest()[:16])
        for name in ("md5", "sha1", "sha256"):
            exact |= spellings(row[name]) if row[name] else set()
        exact |= spellings(row["sha256"][:16]) if row["sha256"] else set()
        for name, value in row.items():
            if name.startswith("pdq:") and isinstance(value, bytes):
                codes += [value[at : at + CODE_BYTES] for at in range(0, len(value), CODE_BYTES)]
        if row.get("embedding") is not None:
            vectors.append(np.array(row["embedding"], np.float32))
            exact |= {vectors[-1].tobytes(), vectors[-1].astype(np.float16).tobytes()}
    for code in codes:
        exact |= spellings(code)
    for image in images:
        exact |= {image[at : at + 48] for at in range(len(image) // 3, len(image) - 48, 1 + len(image) // 8)}
    return Marks(
        frozenset(exact),
        np.frombuffer(b"".join(codes), np.uint8).reshape(-1, CODE_BYTES),
        np.array(vectors, np.float32).reshape(len(vectors), -1),
    )


def find(marks: Marks, data: bytes) -> set[bytes]:
    """Return the marks that stand in a file's bytes, or in its pages, statistics and dictionaries unpacked."""
    found = {mark for mark in marks.exact if mark in data}
    if not data.startswith(MAGIC):
        return found
    try:
        file = pq.ParquetFile(io.BytesIO(data))
    except pa.ArrowException:
        return found
    for values in _values(file, data):
        packed = b"\n".join(value.encode() if isinstance(value, str) else value for value in values)
        found |= {mark for mark in marks.exact if mark in packed}
    for column in file.read().columns:
        found |= _near(marks, column)
    return found


def _values(file: pq.ParquetFile, data: bytes) -> Iterator[list[str | bytes]]:
    names = file.schema_arrow.names
    texts = [name for name in names if pa.types.is_string(file.schema_arrow.field(name).type)]
    # Read so, a column comes with the dictionary that its pages hold, used by rows or not.
    with_dictionaries = pq.ParquetFile(io.BytesIO(data), read_dictionary=texts)
    yield list((file.schema_arrow.metadata or {}).values())
    for group in range(file.num_row_groups):
        for column in with_dictionaries.read_row_group(group).columns:
            for chunk in column.chunks:
                plain = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
                yield [value for value in plain.to_pylist() if isinstance(value, (str, bytes))]
        for place in range(file.metadata.num_columns):
            told = file.metadata.row_group(group).column(place).statistics
            if told is not None and told.has_min_max:
                yield [value for value in (told.min, told.max) if isinstance(value, (str, bytes))]


def _near(marks: Marks, column: pa.ChunkedArray) -> set[bytes]:
    if pa.types.is_fixed_size_binary(column.type) and column.type.byte_width % CODE_BYTES == 0 and len(marks.codes):
        stored = b"".join(value for value in column.to_pylist() if value is not None)
        others = np.frombuffer(stored, np.uint8).reshape(-1, 1, CODE_BYTES)
        bits = np.bitwise_count(others ^ marks.codes[None]).sum(axis=2, dtype=np.int64)
        return {marks.codes[code].tobytes() for code in np.flatnonzero((bits <= NEAR_BITS).any(axis=0))}
    if pa.types.is_fixed_size_list(column.type) and len(marks.vectors):
        kept = np.array([value for value in column.to_pylist() if value is not None], np.float32)
        if len(kept) and kept.shape[1] == marks.vectors.shape[1]:
            lengths = np.linalg.norm(kept, axis=1)[:, None] * np.linalg.norm(marks.vectors, axis=1)[None]
            near = (kept @ marks.vectors.T / lengths > NEAR_COSINE).any(axis=0)
            return {marks.vectors[one].tobytes() for one in np.flatnonzero(near)}
    return set()
