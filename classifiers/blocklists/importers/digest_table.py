"""Parquet tables with columns of digests or codes, as LAION and DataComp publish them.

- A record is a row; its number is that of the row in the file, from 1.
- Values are text in any spelling, or bytes. Other columns are not read; `uid` of DataComp is no digest of ours.
- A file is read by batches of rows; memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers.plain import HASH_COLUMNS
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Table, make_batch

BATCH_ROWS = 1 << 16
_TEXT_OR_BYTES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_null,
)


class DigestTableImporter:
    """Columns named after their algorithms, and `category`."""

    name = "parquet"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return head.startswith(b"PAR1")

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        for path in paths:
            with path.open("rb") as file:
                try:
                    yield from _read_file(path.name, pq.ParquetFile(file, page_checksum_verification=True))
                except (pa.ArrowException, OSError, UnicodeDecodeError):
                    raise ListError(f"{path.name}: expected a whole Parquet file, found a damaged one") from None


def _read_file(name: str, file: pq.ParquetFile) -> Iterator[Batch]:
    places = {column.lower(): column for column in file.schema_arrow.names}
    found = [algorithm for algorithm in HASH_COLUMNS if algorithm in places]
    if not found or len(places) < len(file.schema_arrow.names):
        raise ListError(f"{name}: expected columns, each named once, and among them {', '.join(HASH_COLUMNS)}")
    wanted = [*found, *(["category"] if "category" in places else [])]
    rows = 0
    for part in file.iter_batches(BATCH_ROWS, columns=[places[column] for column in wanted]):
        cells = {column: _cells(name, column, part.column(places[column])) for column in wanted}
        table = Table(np.arange(rows + 1, rows + 1 + part.num_rows, dtype=np.int64), cells)
        columns = [(algorithm, cells[algorithm]) for algorithm in found]
        yield make_batch(name, table, columns, cells.get("category"), raw=True)
        rows += part.num_rows
    if rows != file.metadata.num_rows:
        raise ListError(f"{name}: expected {file.metadata.num_rows} rows, found {rows}; the file is damaged")


def _cells(file: str, column: str, values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not any(is_kind(values.type) for is_kind in _TEXT_OR_BYTES):
        raise ListError(f"{file}: expected text or bytes in column {column}, found another type")
    return values.cast(pa.large_binary()).fill_null(b"")
