"""The CSV of Interpol's ICSE database: `MD5;SHA1;PhotoDNA;Image ID;...;Media Type;Baseline`.

The columns are those that sepinf-inc/IPED reads (HashDBTool.java). A record is a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.compute as pc

from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers.plain import Names, first_names, read_tables
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Table, make_batch

PHOTODNA = "PhotoDNA is licensed and not matched"
NOT_AN_IMAGE = "not an image"
_NEEDED = ("md5", "sha1", "photodna", "media type", "baseline")


class IcseImporter:
    """MD5 and SHA-1 of images, with `Baseline` as the category."""

    name = "icse"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return _is_header(first_names(head, ";"))

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        for path in paths:
            for table in read_tables(path, _is_header, lambda _: (), ", ".join(_NEEDED), ";"):
                yield _make_batch(path.name, table)


def _is_header(names: Names) -> bool:
    return set(_NEEDED) <= set(names)


def _make_batch(file: str, table: Table) -> Batch:
    md5, sha1, photodna, media_type, baseline = (table.columns[name] for name in _NEEDED)
    video = pc.match_substring(media_type, "video", ignore_case=True)
    columns = [("md5", pc.if_else(video, "", md5)), ("sha1", pc.if_else(video, "", sha1))]
    categories = pc.if_else(pc.equal(baseline, ""), "", pc.binary_join_element_wise("Baseline=", baseline, ""))
    skipped = {NOT_AN_IMAGE: video, PHOTODNA: pc.and_not(pc.not_equal(photodna, ""), video)}
    return make_batch(file, table, columns, categories, skipped)
