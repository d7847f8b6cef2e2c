"""The rows of one shard and what fills them: the models of a plan, and the growing columns of a shard.

Owns the layout of the feature table as it is measured. Leaves the pass over bytes and pixels to `measure`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.blocklists.url_forms import canonical_url
from classifiers.hashes.digests import DIGEST_WIDTHS
from classifiers.image.protocol import PixelNet
from classifiers.signals import Classifier, Embedder, HashCode
from classifiers.text.terms import TermMatcher
from manifests.features import HashColumn, ShardFeatures
from manifests.records import FaultKind
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.samples import Sample, SampleMember
from pipeline.metadata import MetadataColumn


@dataclass(frozen=True, slots=True)
class Models:
    """The hashes, the embedder, the heads and the terms of a plan; without an embedder there are no heads."""

    hashes: PictureHashes
    embedder: Embedder | None
    heads: tuple[Classifier, ...]
    nets: tuple[PixelNet, ...]
    terms: TermMatcher | None
    batch: int
    metadata: tuple[MetadataColumn, ...] = ()

    def with_batch(self, batch: int) -> Models:
        """Return these models for batches of another size."""
        if self.embedder is None or batch == self.batch:
            return self
        return replace(self, embedder=self.embedder.with_batch(batch), batch=batch)


@dataclass(frozen=True, slots=True, repr=False)
class Rows:
    """The rows of a shard before any pixel: one for each examined member, or one for a sample without any.

    digests: uint8 [R, width] by algorithm. digested: bool [R].
    """

    shard: str
    rows: tuple[tuple[Sample, SampleMember | None], ...]
    digests: dict[str, NDArray[np.uint8]]
    digested: NDArray[np.bool_]


class Sheet:
    """The growing columns of one shard."""

    def __init__(self, count: int, dims: int, models: Models) -> None:
        self.fault: list[FaultKind | None] = [None] * count
        self.format: list[str | None] = [None] * count
        self.width: list[int | None] = [None] * count
        self.height: list[int | None] = [None] * count
        self.hashes = {
            name: HashColumn.empty(count, kind.variants, kind.code_bytes)
            for name, kind in models.hashes.columns.items()
        }
        self.embedding = np.full((count, dims), np.nan, np.float16)
        names = [head.name for head in models.heads] + [net.name for net in models.nets]
        self.scores = {name: np.full(count, np.nan, np.float32) for name in names}

    def put_code(self, row: int, name: str, code: HashCode) -> None:
        """Store the codes of one kind and view."""
        column = self.hashes[name]
        column.codes[row], column.usable[row], column.hashable[row] = code.codes, code.usable, True
        if code.quality is not None:
            column.quality[row] = code.quality

    def put_score(self, row: int, name: str, score: np.float32) -> None:
        """Store a score; one that is no number is a fault of the row."""
        if np.isfinite(score):
            self.scores[name][row] = score
        else:
            self.fault[row] = FaultKind.NO_SCORE

    def features(self, rows: Rows) -> ShardFeatures:
        """Return all columns of the shard."""
        samples = [sample for sample, _ in rows.rows]
        items = [item for _, item in rows.rows]
        first = [row == 0 or samples[row - 1] is not sample for row, sample in enumerate(samples)]
        faults = [fault or (item.fault if item else None) for fault, item in zip(self.fault, items, strict=True)]
        count = len(samples)
        table = pa.table(
            {
                "shard": pa.array([rows.shard] * count, pa.string()),
                "index": pa.array([sample.index for sample in samples], pa.int32()),
                "key": pa.array([sample.key for sample in samples], pa.string()),
                "withheld": pa.array([False] * count, pa.bool_()),
                "role": pa.array([item.role if item else "none" for item in items], pa.string()),
                "member": pa.array([item.member.extension if item else None for item in items], pa.string()),
                "offset": pa.array([item.member.offset if item else None for item in items], pa.int64()),
                "size": pa.array([item.member.size if item else None for item in items], pa.int64()),
                **{
                    name: pa.array(
                        [
                            getattr(s, name) if is_first else None
                            for s, is_first in zip(samples, first, strict=True)
                        ],
                        pa.string(),
                    )
                    for name in ("url", "caption", "metadata")
                },
                "url_uid": pa.array(
                    [_url_uid(s.url) if is_first else None for s, is_first in zip(samples, first, strict=True)],
                    pa.binary(16),
                ),
                "sample_fault": pa.array([sample.fault for sample in samples], pa.string()),
                "fault": pa.array(faults, pa.string()),
                "hash_source": pa.array(_hash_sources(rows), pa.string()),
                **{
                    f"crawl_{name}": pa.array(
                        [
                            sample.crawl.get(name) if is_first else None
                            for sample, is_first in zip(samples, first, strict=True)
                        ],
                        pa.binary(width),
                    )
                    for name, width in DIGEST_WIDTHS.items()
                },
                "format": pa.array(self.format, pa.string()),
                "width": pa.array(self.width, pa.int32()),
                "height": pa.array(self.height, pa.int32()),
            }
        )
        embedded = np.zeros(count, np.bool_)
        if self.embedding.shape[1]:
            embedded = np.asarray(~np.isnan(self.embedding).any(axis=1), np.bool_)
        return ShardFeatures(table, rows.digests, rows.digested, self.hashes, self.embedding, embedded, self.scores)


def _url_uid(url: str | None) -> bytes | None:
    return None if not url else hashlib.sha256((canonical_url(url) or url).encode()).digest()[:16]


def _hash_sources(rows: Rows) -> list[str | None]:
    """Say where each row's digests come from: the bytes at hand, the crawl alone, or bytes that were re-encoded."""
    sources: list[str | None] = []
    for row, (sample, _) in enumerate(rows.rows):
        if not rows.digested[row]:
            sources.append("crawl" if sample.crawl else None)
            continue
        same = all(rows.digests[name][row].tobytes() == value for name, value in sample.crawl.items())
        sources.append("bytes" if same else "reencoded")
    return sources
