"""Files that python-threatexchange reads as `local_file`: `TYPE VALUE`, or bare values of a configured type.

The lines are those of facebook/ThreatExchange, exchanges/impl/file_api.py. A record is a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers.plain import (
    HASH_COLUMNS,
    check_algorithm,
    entries_by_algorithm,
    read_blocks,
    read_head,
    split,
)
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import make_entries

_MATCHED = (*HASH_COLUMNS, "url_md5")
_TYPES = (*_MATCHED, "video_md5", "video_sha256", "raw_text", "url", "vpdq", "pdq_ocr", "text_tlsh", "trend_query")


class ThreatExchangeImporter:
    """Values with their signal type; those of types that are not matched are skipped."""

    name = "threatexchange"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        names = read_head(head, " ").names
        return len(names) > 1 and names[0] in _TYPES

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        check_algorithm(options, _MATCHED)
        for path in paths:
            for number, block in read_blocks(path):
                table = split(block, number, " ", 1 if options.algorithm else 2, rest=True)
                if options.algorithm:
                    entries, notes = make_entries(table.lines, [(options.algorithm, table.columns[0])], None)
                else:
                    kinds, values = table.columns
                    entries, notes = entries_by_algorithm(table.lines, kinds, values, None, _MATCHED)
                if len(table.records):
                    yield Batch(path.name, table.records, tuple(entries), (*table.notes, *notes))
