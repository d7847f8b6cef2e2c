"""Features without pictures: tables as an examine makes them, from a few words for each row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from classifiers.hashes.digests import DIGEST_WIDTHS
from manifests.features import HashColumn, ShardFeatures

PDQ = "pdq:fullres.oriented"
DIMS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `content` stands for the bytes of the member (None: not read); `code` for its PDQ code."""

    index: int
    role: str = "image"
    content: bytes | None = b"picture"
    member: str | None = "jpg"
    sample_fault: str | None = None
    fault: str | None = None
    code: bytes | None = bytes(range(32))
    usable: bool = True
    scores: dict[str, float] = field(default_factory=dict)
    withheld: bool = False


def key_of(index: int) -> str:
    return f"k{index:03d}"


def make_features(rows: Sequence[Row], *, scores: Sequence[str] = (), dims: int = DIMS) -> ShardFeatures:
    """Return the columns of one shard; rows of one sample stand together, samples ascend."""
    count = len(rows)
    first = [number == 0 or rows[number - 1].index != row.index for number, row in enumerate(rows)]
    shown = [not row.withheld for row in rows]

    def texts(values: Sequence[str | None]) -> pa.Array:
        return pa.array([value if show else None for value, show in zip(values, shown, strict=True)], pa.string())

    def numbers(value: int, kind: pa.DataType) -> pa.Array:
        return pa.array([value if show else None for show in shown], kind)

    table = pa.table(
        {
            "shard": pa.array(["s"] * count, pa.string()),
            "index": pa.array([row.index for row in rows], pa.int32()),
            "key": pa.array([key_of(row.index) for row in rows], pa.string()),
            "withheld": pa.array([row.withheld for row in rows], pa.bool_()),
            "role": texts([row.role for row in rows]),
            "member": texts([row.member for row in rows]),
            "offset": numbers(512, pa.int64()),
            "size": numbers(100, pa.int64()),
            "url": texts([f"u{row.index}" if one else None for row, one in zip(rows, first, strict=True)]),
            "url_uid": pa.array(
                [
                    hashlib.sha256(b"u%d" % row.index).digest()[:16] if one and not row.withheld else None
                    for row, one in zip(rows, first, strict=True)
                ],
                pa.binary(16),
            ),
            "caption": texts([f"c{row.index}" if one else None for row, one in zip(rows, first, strict=True)]),
            "metadata": texts([None] * count),
            "sample_fault": texts([row.sample_fault for row in rows]),
            "fault": texts([row.fault for row in rows]),
            "hash_source": texts(["bytes" if row.content is not None else None for row in rows]),
            **{f"crawl_{name}": pa.nulls(count, pa.binary(width)) for name, width in DIGEST_WIDTHS.items()},
            "format": texts(["jpeg"] * count),
            "width": numbers(8, pa.int32()),
            "height": numbers(6, pa.int32()),
        }
    )
    read = [row.content is not None and not row.withheld for row in rows]
    digests = {}
    for name, width in DIGEST_WIDTHS.items():
        digests[name] = np.zeros((count, width), np.uint8)
        for number, row in enumerate(rows):
            if read[number]:
                digest = hashlib.new(name, row.content or b"", usedforsecurity=False).digest()
                digests[name][number] = np.frombuffer(digest, np.uint8)
    hashes = HashColumn.empty(count, 8, 32)
    embedding = np.full((count, dims), np.nan, np.float16)
    for number, row in enumerate(rows):
        if row.code is not None and not row.withheld:
            hashes.codes[number] = np.frombuffer(row.code, np.uint8)
            hashes.quality[number], hashes.usable[number], hashes.hashable[number] = 90, row.usable, True
            embedding[number] = np.frombuffer(row.code[:DIMS], np.uint8)[:dims] / 255
    columns = {
        name: np.array([np.nan if row.withheld else row.scores.get(name, np.nan) for row in rows], np.float32)
        for name in scores
    }
    embedded = ~np.isnan(embedding).any(axis=1) if dims else np.zeros(count, np.bool_)
    return ShardFeatures(table, digests, np.array(read, np.bool_), {PDQ: hashes}, embedding, embedded, columns)
