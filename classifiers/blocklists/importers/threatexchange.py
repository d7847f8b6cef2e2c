"""Files that python-threatexchange reads as `local_file`: lines `TYPE VALUE`.

The lines are those of facebook/ThreatExchange, exchanges/impl/file_api.py. A record is a line. Files of bare
values are read as `plain` or `urls`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers.plain import HASH_COLUMNS, first_names, read_tables, split_by_algorithm
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import make_batch

_MATCHED = (*HASH_COLUMNS, "url_md5")
_TYPES = (*_MATCHED, "video_md5", "video_sha256", "raw_text", "url", "vpdq", "pdq_ocr", "text_tlsh", "trend_query")


class ThreatExchangeImporter:
    """Values with their signal type; those of types that are not matched are skipped."""

    name = "threatexchange"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        names = first_names(head, " ")
        return len(names) > 1 and names[0] in _TYPES

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        names = ("type", "value")
        for path in paths:
            for table in read_tables(path, lambda _: False, lambda _: names, " ".join(names)):
                columns, skipped = split_by_algorithm(table.columns["type"], table.columns["value"], _MATCHED)
                yield make_batch(path.name, table, columns, None, skipped)
