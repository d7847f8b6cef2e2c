"""Tables of a crawl: img2dataset's sidecar beside a tar, or a table of digests with no images at all.

Owns reading rows and the digests that a crawl recorded. Leaves joining rows with members to `samples.py`.

- A sidecar's rows count where their status is success. A table without a status column counts whole.
- A digest column is known by its name (`md5`, `sha1`, `sha256`, or `hash`) and its values by their length in hex;
  LAION's numeric `hash` is a hash of the URL and is no digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from classifiers.hashes.digests import DIGEST_WIDTHS
from pipeline.ingest.sources import ShardSource

_COLUMNS = (*DIGEST_WIDTHS, "hash")
_BY_LENGTH = {2 * width: name for name, width in DIGEST_WIDTHS.items()}
_HEX = re.compile(r"[0-9a-fA-F]*")


def read_sidecar(source: ShardSource) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Return the rows that count by key, and what is wrong with the table, if anything."""
    if source.sidecar is None or source.table is None:
        return {}, None
    name = source.sidecar.name
    try:
        table = pq.ParquetFile(source.table).read(use_threads=False)
        listed = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError):  # also text that is not UTF-8, impossible dates
        return {}, f"the sidecar {name} is not a readable Parquet table"
    columns = set(table.column_names)
    if source.is_table and not columns & set(_COLUMNS):
        return {}, f"the table {name} has none of the digest columns {', '.join(_COLUMNS)}"
    if not source.is_table and not {"key", "status"} <= columns:
        return {}, (
            f"the sidecar {name} lacks the columns key and status of img2dataset; "
            'move it, or set sidecar = "none" in its [[input]]'
        )
    rows: dict[str, dict[str, Any]] = {}
    damage = None
    for number, row in enumerate(listed):
        if "status" not in columns or row["status"] == "success":
            key = str(row["key"]) if "key" in columns else f"{number:09d}"
            if key in rows:
                damage = f"the sidecar {name} promises one key twice"
            rows[key] = row
    return rows, damage


def crawl_digests(row: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the digests that a row records, by algorithm; a value that is no digest is none."""
    found: dict[str, bytes] = {}
    for column in _COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and _HEX.fullmatch(value) and len(value) in _BY_LENGTH:
            algorithm = _BY_LENGTH[len(value)]
            if column in (algorithm, "hash"):
                found.setdefault(algorithm, bytes.fromhex(value))
    return found
