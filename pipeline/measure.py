"""What a shard's bytes and pixels give: digests first, then hashes, embeddings and scores in fixed batches.

Owns the pass over the bytes and the pass over the pixels. Decides nothing.

- Batches have fixed boundaries: row i is in batch i // size, whatever became of its neighbours. A faulted row
  keeps its place as a blank view whose results are dropped, so its neighbours' bits never depend on it.
- While a device is at one batch the next is decoded and hashed; a batch ends before the one after the next begins.
- Trying some samples again puts them at the same place of the same batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from classifiers.signals import Embedder, Embeddings, Overlapped
from manifests.features import ShardFeatures
from manifests.records import FaultKind
from manifests.tars import read_member
from pipeline.decode import Decoder
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.samples import Inventory, Sample, SampleMember
from pipeline.ingest.shards import ShardSource
from pipeline.sheet import Models, Rows, Sheet
from pipeline.stages import StageClock

TEXTS = ("caption", "url")  # what terms are looked for in; every row of a sample has its sample's scores


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
    clock: StageClock | None = None,
) -> ShardFeatures:
    """Decode, hash, embed and score the rows of a shard; `only` limits it to some sample indices."""
    clock = clock or StageClock()
    begun: deque[_Begun] = deque()
    count = len(rows.rows)
    dims = 0 if models.embedder is None else models.embedder.dims
    sheet = Sheet(count, dims, models)
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
            begun.append(_begin_batch(source, rows, models, decoder, sheet, (start, stop), wanted, clock))
        if len(begun) > 1:  # the device is at one batch while the views of the next are made
            _finish_batch(begun.popleft(), models, sheet, clock)
        on_rows(stop - start)
    while begun:
        _finish_batch(begun.popleft(), models, sheet, clock)
    return sheet.features(rows)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch whose views were made: where it starts, the rows that were seen, and what waits for embeddings."""

    start: int
    seen: tuple[int, ...]
    embeddings: Callable[[], Embeddings] | None


def _begin_batch(
    source: ShardSource,
    rows: Rows,
    models: Models,
    decoder: Decoder,
    sheet: Sheet,
    bounds: tuple[int, int],
    wanted: Sequence[int],
    clock: StageClock,
) -> _Begun:
    """Do all that a batch needs of the host, and send its views to the device."""
    start, stop = bounds
    views: NDArray[np.uint8] | None = None
    seen: list[int] = []
    seen_by: dict[str, list[NDArray[np.uint8]]] = {net.name: [] for net in models.nets}
    thumbnails: dict[int, bytes] = {}
    images = clock.each("read", _read(source, rows, wanted, models.hashes, thumbnails))
    for row, picture in zip(wanted, clock.each("decode", decoder.decode(images)), strict=True):
        if isinstance(picture, FaultKind):
            sheet.fault[row] = picture
            continue
        sheet.format[row], sheet.width[row], sheet.height[row] = picture.format, picture.width, picture.height
        with clock.stage("hash"):
            for name, code in models.hashes.of_picture(picture):
                sheet.put_code(row, name, code)
        with clock.stage("view"):
            if models.embedder is not None:
                view = models.embedder.view(picture.pixels)
                if views is None:
                    views = np.zeros((stop - start, *view.shape), np.uint8)
                views[row - start] = view
            for net in models.nets:
                seen_by[net.name].append(net.view(picture.pixels))
        seen.append(row)
    with clock.stage("hash"):
        for row, name, code in models.hashes.of_thumbnails(thumbnails, decoder):
            sheet.put_code(row, name, code)
    embeddings = None
    if models.embedder is not None and views is not None:
        clock.images += len(seen)
        with clock.stage("embed"):
            embeddings = _embed(models.embedder, views)
    with clock.stage("nets"):
        for net in models.nets if seen else ():
            for row, score in zip(seen, net.score(np.stack(seen_by[net.name])), strict=True):
                sheet.put_score(row, net.name, score)
    return _Begun(start, tuple(seen), embeddings)


def _embed(embedder: Embedder, views: NDArray[np.uint8]) -> Callable[[], Embeddings]:
    """Begin to embed a batch; an embedder that cannot overlap has done it by then."""
    if isinstance(embedder, Overlapped):
        return embedder.start(views)
    rows = embedder.embed(views)
    return lambda: rows


def _finish_batch(begun: _Begun, models: Models, sheet: Sheet, clock: StageClock) -> None:
    """Wait for a batch's embeddings, and score them."""
    if begun.embeddings is None:
        return
    with clock.stage("embed"):
        embedding = begun.embeddings()
    with clock.stage("heads"):
        scores = {head.name: head.score(embedding) for head in models.heads}
    for row in begun.seen:
        if np.isfinite(embedding[row - begun.start]).all():
            sheet.embedding[row] = embedding[row - begun.start]
        else:
            sheet.fault[row] = FaultKind.NO_SCORE
        for name, values in scores.items():
            sheet.put_score(row, name, values[row - begun.start])


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


def _is_decodable(sample: Sample, item: SampleMember | None) -> bool:
    return item is not None and item.role == "image" and item.fault is None
