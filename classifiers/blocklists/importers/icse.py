"""The CSV of Interpol's ICSE database: `MD5;SHA1;PhotoDNA;Image ID;...;Media Type;Baseline`.

The columns are those that sepinf-inc/IPED reads (HashDBTool.java). A record is a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.entries import Batch, Note
from classifiers.blocklists.importers.plain import Table, read_head, read_tables
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Cells, make_entries, read_labels

PHOTODNA = "PhotoDNA is licensed and not matched"
NOT_AN_IMAGE = "not an image"
_NEEDED = ("md5", "sha1", "photodna", "media type", "baseline")


class IcseImporter:
    """MD5 and SHA-1 of images, with `Baseline` as the category."""

    name = "icse"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return _is_header(read_head(head, ";").names)

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        for path in paths:
            for names, table in read_tables(path, _is_header, lambda _: "", ";", ", ".join(_NEEDED)):
                yield _read_table(path.name, table, names)


def _is_header(names: Sequence[str]) -> bool:
    return set(_NEEDED) <= set(names)


def _read_table(file: str, table: Table, names: Sequence[str]) -> Batch:
    video = _holds_video(table.columns[names.index("media type")])
    notes = [*table.notes, *(Note("skipped", NOT_AN_IMAGE, line) for line in table.lines[video].tolist())]
    images = table.take(~video)
    md5, sha1, photodna, _, baseline = (images.columns[names.index(name)] for name in _NEEDED)
    licensed = photodna.lengths > 0
    notes += [Note("skipped", PHOTODNA, line) for line in images.lines[licensed].tolist()]
    rows = ~licensed | (md5.lengths > 0) | (sha1.lengths > 0)
    codes, texts = read_labels(baseline.take(rows))
    categories = codes, [f"Baseline={text}" if text else "" for text in texts]
    found = make_entries(images.lines[rows], [("md5", md5.take(rows)), ("sha1", sha1.take(rows))], categories)
    return Batch(file, table.records, tuple(found[0]), (*notes, *found[1]))


def _holds_video(media_types: Cells) -> NDArray[np.bool_]:
    codes, texts = read_labels(media_types)
    return np.isin(codes, [code for code, text in enumerate(texts) if "video" in text.lower()])
