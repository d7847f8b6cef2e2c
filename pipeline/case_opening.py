"""Sealed files into one readable file of records, for the people who hold a key.

Owns what stands in a record. Leaves the envelope to `manifests.cases`, the account to `manifests.case_access`.

- Nothing is shown: records go to one file that only its owner can read, and that is not there before.
- The access record is written before that file appears.
- `detected_at` is when the sealed file was written (its modification time): no table of ours holds a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import durable
from manifests.case_access import append_access, read_access_record
from manifests.cases import SealError, open_sealed, recipients_of
from manifests.records import canonical_json
from pipeline.errors import ConfigError, VerificationError
from pipeline.sealing import PRESERVED

_DIGESTS = {f"{crawl}{name}" for crawl in ("", "crawl_") for name in ("md5", "sha1", "sha256")} | {"url_uid"}


def open_cases(
    files: Sequence[Path], *, identity: Path, out: Path, by: str, why: str, record: Path, with_features: bool
) -> tuple[int, int]:
    """Write the records of sealed files to `out` (JSON lines, 0600); returns how many files and records.

    Raises:
        ConfigError: `by` or `why` says nothing, `out` exists, or `identity` holds no key; nothing was written.
        VerificationError: a file cannot be opened with this key, or was changed; nothing was written.
        RecordError: the chain of the access record is broken; nothing was written.
    """
    for name, text in (("--by", by), ("--why", why)):
        if not text.strip() or not text.isprintable():
            raise ConfigError(f"{name}: expected words on one line, for the access record")
    refuse_to_replace(out)
    secret = identity.read_text(encoding="utf-8", errors="replace")
    if not recipients_of(secret):
        raise ConfigError(f"{identity}: holds no age identity (a line AGE-SECRET-KEY-...)")
    for folder in (out.parent, record.parent):
        durable.make_folder(folder, mode=0o700)
    read_access_record(record)
    opened: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    with durable.create(out, replace=False, mode=0o600) as file:
        for path in dict.fromkeys(files):
            data, written_at = path.read_bytes(), datetime.fromtimestamp(path.stat().st_mtime, UTC)
            try:
                table = open_sealed(data, identity=secret, source=str(path))
            except SealError as error:
                raise VerificationError(f"{error}; the key is another's, or the file was changed") from None
            sealed = {"name": path.name, "sha256": hashlib.sha256(data).hexdigest()}
            made_under = json.loads((table.schema.metadata or {}).get(b"shardscrub", b"{}"))
            about = {"sealed": sealed, "detected_at": written_at.isoformat(timespec="seconds"), **made_under}
            for row in (table if with_features else table.drop_columns(_pictures(table.schema))).to_pylist():
                line = canonical_json({**about, **{name: _plain(value) for name, value in row.items()}}) + b"\n"
                digest.update(line)
                file.write(line)
            opened.append({**sealed, "records": table.num_rows})
        count = sum(item["records"] for item in opened)
        entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by, "why": why, "files": opened}
        append_access(record, {**entry, "records": count, "output_sha256": digest.hexdigest()})
    return len(opened), count


def refuse_to_replace(out: Path) -> None:
    """Refuse a file that exists.

    Raises:
        ConfigError: it does.
    """
    if os.path.lexists(out):
        raise ConfigError(f"{out}: exists already; nothing is written over")


def _pictures(columns: pa.Schema) -> list[str]:
    """Return the columns that are a picture, or are one to who can invert them: embedding and codes."""
    binary = {field.name for field in columns if pa.types.is_fixed_size_binary(field.type)}
    return [name for name in columns.names if name in ("embedding", PRESERVED) or name in binary - _DIGESTS]


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    return value
