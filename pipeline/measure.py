"""What a shard's bytes and pixels give: digests first, then hashes, embeddings and scores in fixed batches.

Owns the pass over the bytes and the pass over the pixels. Decides nothing.

- Batches have fixed boundaries: row i is in batch i // size, whatever became of its neighbours. A faulted row
  keeps its place as a blank view whose results are dropped, so its neighbours' bits never depend on it.
- Trying some samples again puts them at the same place of the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.blocklists.url_forms import canonical_url
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from classifiers.image.protocol import PixelNet
from classifiers.signals import Classifier, Embedder, HashCode
from classifiers.text.terms import TermMatcher
from manifests.features import HashColumn, ShardFeatures
from manifests.records import FaultKind
from manifests.tars import read_member
from pipeline.decode import Decoder
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.samples import Inventory, Sample, SampleMember
from pipeline.ingest.shards import ShardSource
from pipeline.metadata import MetadataColumn

TEXTS = ("caption", "url")  # what terms are looked for in; every row of a sample has its sample's scores


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


def digest_members(source: ShardSource, inventory: Inventory) -> Rows:
    """Take MD5, SHA-1 and SHA-256 of every examined member, as it lies in the shard."""
    rows: list[tuple[Sample, SampleMember | None]] = []
    for sample in inventory.samples:
        rows += [(sample, item) for item in sample.examined] or [(sample, None)]
    count = len(rows)
    digests = {name: np.zeros((count, width), np.uint8) for name, width in DIGEST_WIDTHS.items()}
    digested = np.zeros(count, np.bool_)
    if not source.missing and not source.is_table:
        with source.path.open("rb") as file:
            for row, (_, item) in enumerate(rows):
                if item is not None:
                    taken = take_digests(read_member(file, item.member))
                    for name, values in digests.items():
                        values[row] = np.frombuffer(getattr(taken, name), np.uint8)
                    digested[row] = True
    return Rows(source.name, tuple(rows), digests, digested)


def measure(
    source: ShardSource,
    rows: Rows,
    models: Models,
    decoder: Decoder,
    *,
    on_rows: Callable[[int], None],
    only: frozenset[int] | None = None,
) -> ShardFeatures:
    """Decode, hash, embed and score the rows of a shard; `only` limits it to some sample indices."""
    count = len(rows.rows)
    dims = 0 if models.embedder is None else models.embedder.dims
    sheet = _Sheet(count, dims, models)
    if models.terms is not None:
        samples = [sample for sample, _ in rows.rows]
        captions = models.terms.score_texts([sample.screened for sample in samples])
        urls = models.terms.score_urls([sample.url for sample in samples])
        for where, scores in zip(TEXTS, (captions, urls), strict=True):
            sheet.scores |= {f"{where}.{concept}": values for concept, values in scores.items()}
    for item in models.metadata:
        values = [item.score(sample.record.get(item.column)) for sample, _ in rows.rows]
        sheet.scores[item.signal] = np.array(values, np.float32)
    for start in range(0, count, models.batch):
        stop = min(start + models.batch, count)
        wanted = [
            row
            for row in range(start, stop)
            if _is_decodable(*rows.rows[row]) and (only is None or rows.rows[row][0].index in only)
        ]
        if wanted:
            _measure_batch(source, rows, models, decoder, sheet, (start, stop), wanted)
        on_rows(stop - start)
    return sheet.features(rows)


class _Sheet:
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


def _measure_batch(
    source: ShardSource,
    rows: Rows,
    models: Models,
    decoder: Decoder,
    sheet: _Sheet,
    bounds: tuple[int, int],
    wanted: Sequence[int],
) -> None:
    start, stop = bounds
    views: NDArray[np.uint8] | None = None
    seen: list[int] = []
    seen_by: dict[str, list[NDArray[np.uint8]]] = {net.name: [] for net in models.nets}
    thumbnails: dict[int, bytes] = {}
    images = _read(source, rows, wanted, models.hashes, thumbnails)
    for row, picture in zip(wanted, decoder.decode(images), strict=True):
        if isinstance(picture, FaultKind):
            sheet.fault[row] = picture
            continue
        sheet.format[row], sheet.width[row], sheet.height[row] = picture.format, picture.width, picture.height
        for name, code in models.hashes.of_picture(picture):
            sheet.put_code(row, name, code)
        if models.embedder is not None:
            view = models.embedder.view(picture.pixels)
            if views is None:
                views = np.zeros((stop - start, *view.shape), np.uint8)
            views[row - start] = view
        for net in models.nets:
            seen_by[net.name].append(net.view(picture.pixels))
        seen.append(row)
    for row, name, code in models.hashes.of_thumbnails(thumbnails, decoder):
        sheet.put_code(row, name, code)
    for net in models.nets if seen else ():
        for row, score in zip(seen, net.score(np.stack(seen_by[net.name])), strict=True):
            sheet.put_score(row, net.name, score)
    if models.embedder is None or views is None:
        return
    embedding = models.embedder.embed(views)
    scores = {head.name: head.score(embedding) for head in models.heads}
    for row in seen:
        if np.isfinite(embedding[row - start]).all():
            sheet.embedding[row] = embedding[row - start]
        else:
            sheet.fault[row] = FaultKind.NO_SCORE
        for name, values in scores.items():
            sheet.put_score(row, name, values[row - start])


def _read(
    source: ShardSource, rows: Rows, wanted: Sequence[int], hashes: PictureHashes, thumbnails: dict[int, bytes]
) -> Iterator[bytes]:
    """Yield the bytes of each row, leaving the thumbnails found in them in `thumbnails`."""
    with source.path.open("rb") as file:
        for row in wanted:
            item = rows.rows[row][1]
            assert item is not None
            data = read_member(file, item.member)
            thumbnail = hashes.find_thumbnail(data)
            if thumbnail is not None:
                thumbnails[row] = thumbnail
            yield data


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


def _is_decodable(sample: Sample, item: SampleMember | None) -> bool:
    return item is not None and item.role == "image" and item.fault is None
