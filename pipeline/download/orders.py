"""The rows of the tables in the order of their download: which are asked for, and in which shard.

Owns what is settled before anything is contacted, and the order files, from which shards are joined again.

- Rows are numbered through all tables, in the order of the tables' names.
- A URL that is listed, or none, is never handed on. Rows whose URLs have one canonical form are fetched once, for
  the first of them; the others are `duplicate`, and name it.
- The same tables and lists give the same orders: a start after a kill makes them anew and finds them alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifiers.blocklists.url_match import read_urls
from manifests import durable, schema
from manifests.collection import RESTRICTED_FILE_MODE
from pipeline.download.fetched import Failure
from pipeline.screen_tables import MAX_TEXT_BYTES, Table, read_batches, text_column
from pipeline.url_screen import UrlScreen

_UID_BYTES = 16
SETTLED = (None, Failure.BAD_URL, Failure.LISTED, Failure.DUPLICATE)  # what a code stands for; None: asked for
_BAD, _LISTED, _DUPLICATE = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Rows:
    """What is settled of N rows beforehand.

    code: int8 N, a place in `SETTLED`. uid: FixedSizeBinary(16), null without a URL. first: int64 N, the number of
    the first row with the same URL. tables: names, each with its number of rows.
    """

    code: NDArray[np.int8]
    uid: pa.Array
    first: NDArray[np.int64]
    tables: tuple[tuple[str, int], ...]


def settle_rows(tables: Sequence[Table], screen: UrlScreen) -> Rows:
    """Read the URLs of all tables.

    Raises:
        InputError: a table cannot be read.
    """
    codes, uids, counts = [np.zeros(0, np.int8)], [np.zeros((0, _UID_BYTES), np.uint8)], []
    for table in tables:
        count = 0
        for batch in _batches(table):
            urls = text_column(batch, table.url, mend=False)
            long = pc.greater(pc.fill_null(pc.binary_length(urls), 0), MAX_TEXT_BYTES)
            forms = read_urls(pc.if_else(long, pa.scalar(None, urls.type), urls))
            codes.append(np.where(~forms.usable, _BAD, np.where(screen.find(forms), _LISTED, 0)).astype(np.int8))
            uids.append(np.ascontiguousarray(forms.digests()[:, :_UID_BYTES]))
            count += batch.num_rows
        counts.append((table.name, count))
    code, every = np.concatenate(codes), np.concatenate(uids)
    uid = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_UID_BYTES), len(code), [None, pa.py_buffer(every)])
    places = uid.dictionary_encode().indices.to_numpy().astype(np.int64)
    # Numbered as they appear: a place above all before it is the first of its kind.
    firsts = np.flatnonzero(np.diff(np.maximum.accumulate(places), prepend=-1) > 0) if len(places) else places
    first = firsts[places]
    numbers = np.arange(len(code))
    code[(code == 0) & (first != numbers)] = _DUPLICATE
    uid = pc.if_else(pa.array(code == _BAD), pa.scalar(None, uid.type), uid)
    return Rows(code, uid, np.where(code == _DUPLICATE, first, numbers), tuple(counts))


def _batches(table: Table) -> Iterator[pa.RecordBatch]:
    for part in table.parts:
        yield from read_batches(table, part)


def first_orders(tables: Sequence[Table], rows: Rows) -> Iterator[pa.Table]:
    """Yield all rows that are asked for, as `write_orders` takes them."""
    first = 0
    for table in tables:
        for batch in _batches(table):
            wanted = np.flatnonzero(rows.code[first : first + batch.num_rows] == 0)
            yield _order(table, batch.take(pa.array(wanted)), first + wanted)
            first += batch.num_rows


def write_orders(chunks: Iterable[pa.Table], folder: Path, first: int, most: int) -> int:
    """Write orders from number `first` on, each of `most` rows of one table at most; returns how many.

    chunks: of one table each, those of a table together.
    """
    count, waiting = first, None
    for fresh in filter(len, chunks):
        chunk = fresh
        if waiting is not None and waiting["table"][0] == fresh["table"][0]:
            chunk = pa.concat_tables([waiting, fresh])
        elif waiting is not None:
            _write_order(folder, count, waiting)
            count += 1
        while len(chunk) > most:
            _write_order(folder, count, chunk.slice(0, most))
            chunk, count = chunk.slice(most), count + 1
        waiting = chunk
    if waiting is not None:
        _write_order(folder, count, waiting)
        count += 1
    return count - first


def _order(table: Table, batch: pa.RecordBatch, numbers: NDArray[np.int64]) -> pa.Table:
    """Return rows as orders have them: number, table, url and caption, and all other columns as one struct."""
    texts = {"url": text_column(batch, table.url, mend=False), "caption": pa.nulls(len(numbers), pa.large_string())}
    if table.caption is not None:
        texts["caption"] = text_column(batch, table.caption, mend=True)
    others = [name for name in batch.schema.names if name not in (table.url, table.caption)]
    struct = (
        pa.StructArray.from_arrays([batch[name] for name in others], others) if others else pa.nulls(len(numbers))
    )
    name = pa.array([table.name] * len(numbers), pa.string())
    return pa.table({"number": pa.array(numbers), "table": name, **texts, "columns": struct})


def order_path(folder: Path, shard: int) -> Path:
    """Return the place of an order file."""
    return folder / f"{shard:05d}.parquet"


def _write_order(folder: Path, shard: int, rows: pa.Table) -> None:
    """Write the order file of one shard; one that is there already must be the same."""
    data = schema.encode(rows.combine_chunks())
    durable.write(order_path(folder, shard), data, replace=False, mode=RESTRICTED_FILE_MODE)


@lru_cache(maxsize=2)  # img2dataset is at one shard at a time
def read_order_urls(folder: Path, shard: int) -> list[str]:
    """Return the URLs of an order."""
    urls: list[str] = pq.read_table(order_path(folder, shard), columns=["url"])["url"].to_pylist()
    return urls
