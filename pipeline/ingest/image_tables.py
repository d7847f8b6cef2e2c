"""Tables with images in them: img2dataset's `parquet` layout, those of Hugging Face datasets, and any other.

Owns which column is what, and what becomes of rows. A row is a sample: its image, its caption as text, all other
columns as JSON. Other columns of bytes are neither judged nor released.

- Streamed: one row group at a time, some rows of it in memory; and the keys of the whole table.
- Every row is a sample but one without an image that says itself that its download failed. A row without a key,
  one whose key others have too, and one with a value that cannot be read, each is a sample with a fault; a row
  group that cannot be read is damage, and its rows are samples that are missing.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from manifests.records import FaultKind
from manifests.tars import sniff
from pipeline.errors import InputError
from pipeline.ingest.sample_tar import SampleTar, name_key
from pipeline.input_config import ColumnsConfig

_USUAL: Final = {
    "image": ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes"),
    "url": ("url", "URL"),
    "caption": ("caption", "TEXT", "text", "txt"),
    "key": ("key", "__key__"),
    "uid": ("uid",),
}
_EXPECTED: Final = {"image": "bytes, or a struct with a field `bytes`", "key": "text or whole numbers"}
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)  # also text that is not UTF-8, odd dates
_ROWS, _BUFFER = 64, 1 << 20


def holds_images(path: Path) -> bool | None:
    """Say whether a table has a column of images under a usual name; None where it cannot be read."""
    try:
        schema = pq.read_schema(path)
    except _UNREADABLE:
        return None
    return any(name in _USUAL["image"] and _is_image(kind) for name, kind in _types(schema).items())


def read_table(path: Path, columns: ColumnsConfig, tar: SampleTar) -> None:
    """Write every row into `tar`.

    Raises:
        InputError: a column is not there, or not of the type that it should be.
        OSError: the disk is full.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=_BUFFER)
        names = _find_columns(_types(file.schema_arrow), columns)
    except _UNREADABLE:
        tar.damage = "the table is not readable Parquet"
        return
    keys = _take_keys(file, names.get("key"), tar)
    begin, tar.rows = 0, True
    for group in range(file.num_row_groups):
        row, end = begin, begin + file.metadata.row_group(group).num_rows
        for batch in _batches(file, group, _wanted(file.schema_arrow, names), tar):
            for values in _rows(batch, names["image"]):
                _write(tar, keys[row], values, names)
                row += 1
        tar.promised += keys[row:end]
        begin = end


def _types(schema: pa.Schema) -> dict[str, pa.DataType]:
    return dict(zip(schema.names, schema.types, strict=True))


def _find_columns(kinds: dict[str, pa.DataType], columns: ColumnsConfig) -> dict[str, str]:
    """Return the column of each part; only the image must be there."""
    found: dict[str, str] = {}
    for part, usual in _USUAL.items():
        named = getattr(columns, part)
        name = named or next(
            (name for name in usual if name in kinds and (part != "image" or _is_image(kinds[name]))), ""
        )
        if name not in kinds and (named or part == "image"):
            raise InputError(
                f"expected a column {named or ' or '.join(usual)!r} for {part}, found {', '.join(kinds)}; "
                f"name it in [[input]] columns.{part}, or give tables with other columns an [[input]] of their own"
            )
        if name and not _fits(part, kinds[name]):
            raise InputError(
                f"column {name!r}: expected {_EXPECTED.get(part, 'text')}, found {kinds[name]}; name "
                f"another in [[input]] columns.{part}, or give tables of this form an [[input]] of their own"
            )
        if name:
            found[part] = name
    return found


def _fits(part: str, kind: pa.DataType) -> bool:
    if part == "image":
        return _is_image(kind)
    return _is_text(kind) or types.is_null(kind) or (part == "key" and types.is_integer(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_image(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    inner = [kind.value_type] if types.is_dictionary(kind) else [kind.field(i).type for i in range(kind.num_fields)]
    return _is_bytes(kind) or types.is_fixed_size_binary(kind) or any(map(_holds_bytes, inner))


def _wanted(schema: pa.Schema, names: dict[str, str]) -> list[str]:
    return [name for name, kind in _types(schema).items() if name == names["image"] or not _holds_bytes(kind)]


def _batches(file: pq.ParquetFile, group: int, columns: list[str], tar: SampleTar) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, up to where it cannot be read any more."""
    try:
        yield from file.iter_batches(_ROWS, row_groups=[group], columns=columns, use_threads=False)
    except _UNREADABLE:
        tar.damage = f"row group {group} of the table cannot be read to its end"


def _take_keys(file: pq.ParquetFile, column: str | None, tar: SampleTar) -> list[str]:
    """Return a key for every row, each once; a row whose own will not do has its number in it, and a fault."""
    if column is None:
        return [f"{row:09d}" for row in range(file.metadata.num_rows)]
    own: list[str | None] = []
    for group in range(file.num_row_groups):
        end = len(own) + file.metadata.row_group(group).num_rows
        for batch in _batches(file, group, [column], tar):
            own += [None if value is None else name_key(str(value)) for value in _values(batch.column(0))]
        own += [None] * (end - len(own))
    times, keys = Counter(own), []
    for row, key in enumerate(own):
        if key is None or not key.rpartition("/")[2]:
            key = f"%row{row:09d}"
            tar.faults[key] = FaultKind.BAD_NAME
        elif times[key] > 1:
            key = f"{key}%row{row:09d}"
            tar.faults[key] = FaultKind.AMBIGUOUS
        keys.append(key)
    return keys


def _rows(batch: pa.RecordBatch, image: str) -> Iterator[dict[str, Any]]:
    images = batch.column(image)
    columns = {name: _values(batch.column(name)) for name in batch.schema.names if name != image}
    columns[image] = (pc.struct_field(images, "bytes") if types.is_struct(images.type) else images).to_pylist()
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column; an exception stands for one that cannot be read."""
    if _is_text(column.type):  # not all that is stored as text is UTF-8
        texts = column.dictionary_decode() if types.is_dictionary(column.type) else column
        values = pc.cast(pc.cast(texts, pa.large_string()), pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "replace") for value in values]
    try:
        values = column.to_pylist()
    except _UNREADABLE:
        values = [_value(item) for item in column]
    # What is missing is NaN where pandas wrote it.
    return [None if isinstance(value, float) and value != value else value for value in values]


def _value(item: pa.Scalar) -> object:
    try:
        return item.as_py()
    except _UNREADABLE as error:
        return error


def _write(tar: SampleTar, key: str, values: dict[str, Any], names: dict[str, str]) -> None:
    image = values.pop(names["image"])
    if image is None and values.get("status") not in (None, "success"):
        tar.faults.pop(key, None)
        return
    caption = values.pop(names.get("caption", ""), None)
    if any(isinstance(value, Exception) for value in values.values()):
        tar.faults[key] = FaultKind.UNDECODABLE
        values = {name: value for name, value in values.items() if not isinstance(value, Exception)}
    parts = {part: values.pop(names[part]) for part in ("url", "key", "uid") if part in names}
    # A column that bears the name of another one's part keeps its values under a name of its own.
    record = {f"{name}_" if name in (*parts, "caption") else name: value for name, value in values.items()} | parts
    if image is not None:
        _add(tar, key, (sniff(image) or "jpeg").replace("jpeg", "jpg"), image)
    if caption is not None:
        _add(tar, key, "txt", caption.encode())
    _add(tar, key, "json", json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "replace"))


def _add(tar: SampleTar, key: str, extension: str, data: bytes) -> None:
    tar.add(key, extension, len(data), io.BytesIO(data))
