"""The shard `_canary`: pictures that every list must find, sent down the path that real shards take.

Owns the check. It has a tar in memory of the canary pictures of all lists, indexes it, takes digests, decodes in
the isolated decoder, hashes and searches, with the same code, processes and memory as for a shard; only the
embedder is left out. Nothing of it reaches an output or a count.

- Every canary of every list must be hit, at its distance, in its own list; one within no list's radius is left out.
- A miss names the list and the algorithm. It stops the run: what else was missed cannot be known.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.lists import HashList
from classifiers.hashes.digests import DIGEST_WIDTHS
from pipeline.commit import Decider
from pipeline.config import MembersConfig
from pipeline.decode import Decoder
from pipeline.errors import CanaryError
from pipeline.ingest.samples import take_inventory
from pipeline.ingest.shards import ShardSource
from pipeline.matching import find_hits, gather_queries
from pipeline.measure import digest_members, measure
from pipeline.sheet import Models

NAME = "_canary"


class CanaryShard:
    """The canaries of some lists as a shard in memory; close it when the worker ends."""

    def __init__(self, lists: Sequence[HashList]) -> None:
        self._expected = list(expected_hits(lists))
        self._fd = os.memfd_create(NAME, os.MFD_CLOEXEC)
        with os.fdopen(os.dup(self._fd), "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for number, (_, _, canary) in enumerate(self._expected):
                info = tarfile.TarInfo(f"{number:06d}.png")
                info.size = len(canary.image)
                tar.addfile(info, io.BytesIO(canary.image))

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)

    def check(self, models: Models, decoder: Decoder, decider: Decider) -> None:
        """Send the shard through the path of a worker.

        Raises:
            CanaryError: a canary was missed.
        """
        source = ShardSource(NAME, Path(f"/proc/self/fd/{self._fd}"), None)
        rows = digest_members(source, take_inventory(source, MembersConfig()))
        light = replace(models, embedder=None, heads=(), nets=(), terms=None)
        features = measure(source, rows, light, decoder, on_rows=lambda _: None)
        found = find_hits(gather_queries(features, decider.lists), decider.lists, decider.search)
        check_found(self._expected, found.canaries, decider.lists)


def expected_hits(lists: Sequence[HashList]) -> Iterator[tuple[int, int, Canary]]:
    """Yield (place of the list, number of the entry, canary) of every canary that its list must find."""
    for place, source in enumerate(lists):
        for algorithm, column in source.columns.items():
            mine = sorted((one for one in source.canaries if one.algorithm == algorithm), key=lambda one: one.entry)
            for number, canary in enumerate(mine, start=column.stored):
                if algorithm in DIGEST_WIDTHS or canary.distance <= source.radius_of(algorithm):
                    yield place, number, canary


def check_found(expected: Sequence[tuple[int, int, Canary]], hits: pa.Table, lists: Sequence[HashList]) -> None:
    """Refuse to go on unless row i of `hits` holds the i-th expected canary.

    Raises:
        CanaryError: naming the list, the algorithm and the distance, and no entry.
    """
    columns = (hits[name].to_pylist() for name in ("row", "list", "algorithm", "entry", "distance"))
    found = {
        (row, place, algorithm, entry, bits or 0)
        for row, place, algorithm, entry, bits in zip(*columns, strict=True)
    }
    for row, (place, number, canary) in enumerate(expected):
        if (row, place, canary.algorithm, number, canary.distance) not in found:
            raise CanaryError(
                f"list {lists[place].list_id!r}: its {canary.algorithm} canary at a distance of {canary.distance} "
                "was missed: pictures are not hashed or matched here as they were where the list was imported. "
                "Nothing more is done; compare the versions with constraints.txt, or import the list again here"
            )
