"""Tables of a crawl before anything is downloaded: LAION's, DataComp's or anybody's, as Parquet, CSV or JSON lines.

Owns which column says what, and reading rows in batches of bounded size. Leaves deciding them to `screen.py`.

- A column is found by the names that LAION, DataComp and img2dataset give it, or named in `[screen]`.
- The rows of a table lie in parts, by the table alone: row groups of a million rows together, or a whole text file.
- An error names the file and the column, and never a value of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import Rows
from classifiers.hashes.digests import DIGEST_WIDTHS
from pipeline.config import ScreenConfig
from pipeline.errors import ConfigError, InputError
from pipeline.metadata import MetadataColumn

MAX_TEXT_BYTES = 1 << 20  # of one URL or caption; a row with more has a fault
_PART_ROWS = 1_000_000
_BATCH_ROWS, _BATCH_BYTES = 65_536, 64 << 20
_BLOCK_BYTES = 16 << 20  # of a text file: the longest line that can be read
_CSV = (".csv", ".tsv")
_SUFFIXES = (".parquet", *_CSV, ".jsonl")
_URL, _CAPTION = ("url", "URL"), ("caption", "TEXT", "text")
_DIGESTS = (*DIGEST_WIDTHS, "hash")
_BY_LENGTH = {2 * width: name for name, width in DIGEST_WIDTHS.items()}
_NAME = re.compile(r"[^/\\~\x00-\x1f\ud800-\udfff.][^/\\~\x00-\x1f\ud800-\udfff]*")
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdefABCDEF", np.uint8)] = [*range(16), *range(10, 16)]


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the rows of a table. groups: row groups of Parquet, else empty. first: number of the first row."""

    number: int
    groups: tuple[int, ...] = ()
    first: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """One table. caption: None where there is none. digests: columns of them. metadata: what the policy reads."""

    path: Path
    columns: pa.Schema
    url: str
    caption: str | None
    digests: tuple[str, ...]
    parts: tuple[Part, ...]
    metadata: tuple[MetadataColumn, ...] = ()

    @property
    def name(self) -> str:
        """The table's name in every output."""
        return self.path.stem


def find_tables(paths: Sequence[Path], screen: ScreenConfig) -> tuple[Table, ...]:
    """Open every table and find its columns.

    Raises:
        ConfigError: one is not there, no table, or lacks a column.
    """
    found: dict[str, Table] = {}
    for path in paths:
        if not path.is_file() or path.suffix not in _SUFFIXES or not _NAME.fullmatch(path.stem):
            raise ConfigError(f"{path}: expected a file with a plain name, one of {', '.join(_SUFFIXES)}")
        table = _find_columns(path, screen)
        other = found.setdefault(table.name, table)
        if other is not table:
            raise ConfigError(f"two tables are named {table.name!r}: {other.path} and {path}; rename one")
    return tuple(found[name] for name in sorted(found))


def _find_columns(path: Path, screen: ScreenConfig) -> Table:
    with _naming(path):
        columns = _schema(path)
    if len(set(columns.names)) < len(columns.names):
        raise ConfigError(f"{path}: two columns have one name; rename one")

    def pick(key: str, named: str, usual: Sequence[str]) -> str | None:
        found = next((one for one in ((named,) if named else usual) if one in columns.names), None)
        if found is None and (named or key == "url"):
            raise ConfigError(
                f"{path}: no column {named or ' or '.join(usual)}; it has {', '.join(columns.names[:20])}: "
                f"name the right one with `{key}` under [screen]"
            )
        if found is not None and not is_text(columns.field(found).type):
            found = f"{found}: expected text in UTF-8, found {columns.field(found).type}"
            raise ConfigError(f"{path}: column {found}; rewrite it")
        return found

    url, caption = pick("url", screen.url, _URL), pick("caption", screen.caption, _CAPTION)
    for name in screen.digests:
        if name not in columns.names:
            raise ConfigError(f"{path}: no column {name}, which `digests` under [screen] names")
    usual = (one for one in _DIGESTS if one in columns.names and not pa.types.is_integer(columns.field(one).type))
    assert url is not None  # `pick` refuses
    return Table(path, columns, url, caption, screen.digests or tuple(usual), _parts(path))


def with_metadata(table: Table, metadata: Sequence[MetadataColumn], *, captions: bool) -> Table:
    """Return the table with the scores that a policy reads, which it must have, and captions where it reads these.

    Raises:
        ConfigError: a column is not there, or not of the kind that `[[metadata]]` says.
    """
    if captions and table.caption is None:
        raise ConfigError(
            f"{table.path}: no column {' or '.join(_CAPTION)}, and the policy reads captions; name the right one "
            "with `caption` under [screen]"
        )
    for item in metadata:
        named = item.column in table.columns.names
        kind = table.columns.field(item.column).type if named else "no such column"
        untyped = table.path.suffix in _CSV
        if not named or not (untyped or (is_text(kind) if item.words else _is_number(kind))):
            raise ConfigError(
                f"{table.path}: column {item.column}: expected {'text' if item.words else 'numbers'}, as "
                f"[[metadata]] says, found {kind}; correct [[metadata]], or the table"
            )
    return replace(table, metadata=tuple(metadata))


def _schema(path: Path) -> pa.Schema:
    if path.suffix == ".parquet":
        return pq.read_schema(path)
    with _open_csv(path, ()) if path.suffix in _CSV else _open_json(path, ()) as reader:
        return reader.schema


def _parts(path: Path) -> tuple[Part, ...]:
    if path.suffix != ".parquet":
        return (Part(0),)
    parts: list[Part] = []
    groups: list[int] = []
    with _naming(path), pq.ParquetFile(path) as file:
        first = rows = 0
        for group in range(file.num_row_groups):
            groups.append(group)
            rows += file.metadata.row_group(group).num_rows
            if rows >= _PART_ROWS or group + 1 == file.num_row_groups:
                parts.append(Part(len(parts), tuple(groups), first))
                first, rows, groups = first + rows, 0, []
    return tuple(parts) or (Part(0),)


def read_batches(table: Table, part: Part) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part, the columns as they lie in the table.

    Raises:
        InputError: the file cannot be read further, or its rows are too large.
    """
    texts = [name for name in (table.url, table.caption, *table.digests) if name is not None]
    with _naming(table.path):
        if table.path.suffix == ".parquet":
            yield from _parquet_batches(table, part, texts)
            return
        is_csv = table.path.suffix in _CSV
        opened = _open_csv(table.path, table.columns.names, table) if is_csv else _open_json(table.path, texts)
        with opened as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(start, _BATCH_ROWS)


def _parquet_batches(table: Table, part: Part, texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(table.path) as file:
        largest = 1
        for group in part.groups:
            about = file.metadata.row_group(group)
            for place in range(about.num_columns):
                column = about.column(place)
                mean = column.total_uncompressed_size // max(1, about.num_rows)
                if column.path_in_schema in texts and mean > MAX_TEXT_BYTES:
                    raise InputError(
                        f"{table.path}: row group {group}, column {column.path_in_schema}: {mean >> 20} MiB a row "
                        f"are no texts; cut them to {MAX_TEXT_BYTES >> 20} MiB, or take the rows out"
                    )
            largest = max(largest, about.total_byte_size // max(1, about.num_rows))
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))
        yield from file.iter_batches(batch_size=rows, row_groups=list(part.groups), use_threads=False)


def _open_csv(path: Path, columns: Sequence[str], table: Table | None = None) -> pyarrow.csv.CSVStreamingReader:
    numbers = {item.column for item in table.metadata if not item.words} if table else set()
    types = {name: pa.float64() if name in numbers else pa.string() for name in columns}
    return pyarrow.csv.open_csv(
        path,
        pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True),
        pyarrow.csv.ConvertOptions(column_types=types),
    )


def _open_json(path: Path, texts: Sequence[str]) -> pyarrow.json.JSONStreamingReader:
    types = pa.schema([(name, pa.string()) for name in texts])
    return pyarrow.json.open_json(
        path,
        pyarrow.json.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pyarrow.json.ParseOptions(explicit_schema=types),
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say of an error of Arrow's which file it is about; its own message may quote a value."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{path}: cannot be read as {path.suffix.lstrip('.')} ({type(error).__name__}): rewrite it, with "
            f"one type throughout each column, texts in UTF-8, lines of {_BLOCK_BYTES >> 20} MiB at most"
        ) from None


def text_column(batch: pa.RecordBatch, name: str, *, mend: bool) -> pa.Array:
    """Return a column of texts as large strings; what is no UTF-8 is null, or mended with U+FFFD."""
    column = batch.column(name).cast(pa.large_string()).cast(pa.large_binary())
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([_decode(one, mend=mend) for one in column.to_pylist()], pa.large_string())


def _decode(raw: bytes | None, *, mend: bool) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="replace") if mend and raw is not None else None


def score_column(batch: pa.RecordBatch, item: MetadataColumn) -> NDArray[np.float32]:
    """Return what `item.score` says of every row."""
    column = batch.column(item.column)
    if item.words:
        texts = text_column(batch, item.column, mend=False)
        places = pc.index_in(texts, pa.array(item.words, pa.large_string()))
        column = pa.array(item.scores, pa.float64()).take(places)
    values = np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False))
    with np.errstate(invalid="ignore"):
        return np.where((values >= 0) & (values <= 1), values, np.nan).astype(np.float32)


def digest_columns(batch: pa.RecordBatch, table: Table) -> Iterator[tuple[str, NDArray[np.int64], Rows]]:
    """Yield by algorithm the rows that have a digest, and the digests: hex, or raw bytes, known by their length."""
    for name in table.digests:
        column = batch.column(name)
        if pa.types.is_fixed_size_binary(column.type) or pa.types.is_binary(column.type):
            column, scale = column.cast(pa.large_binary()), 1
        else:
            column, scale = batch.column(name).cast(pa.large_string()).cast(pa.large_binary()), 2
        lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        for length, algorithm in _BY_LENGTH.items():
            rows = np.flatnonzero(lengths * 2 == length * scale)
            if len(rows) and name not in DIGEST_WIDTHS.keys() - {algorithm}:
                chosen = column if len(rows) == len(column) else column.take(pa.array(rows))
                offsets = np.frombuffer(chosen.buffers()[1], np.int64)[chosen.offset :]
                data = np.frombuffer(chosen.buffers()[2], np.uint8)[offsets[0] : offsets[len(rows)]]
                data = data.reshape(len(rows), -1)
                if scale == 2:
                    nibbles = _NIBBLE[data]
                    good = (nibbles < 16).all(axis=1)
                    rows, nibbles = rows[good], nibbles[good]
                    data = np.bitwise_or(nibbles[:, ::2] << np.uint8(4), nibbles[:, 1::2])
                yield algorithm, rows, data


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds texts."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))
