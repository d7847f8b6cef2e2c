"""Saved answers of StopNCII.org, as JSON: one page a file, a list of pages, or pages one after the other.

Owns which fields of a record are read, and that a page holds as many records as it says.

- A hash counts while its status is Active or Received: Received is what a person has handed in, before anybody else
  has looked at it, and to wait with it would leave that person without help.
- Withdrawn and Deleted take a hash back. The newest record of a hash is the one that counts.

Fields: facebook/ThreatExchange, python-threatexchange, exchanges/clients/stopncii/api.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers import pages
from classifiers.blocklists.importers.protocol import ReadOptions

_ALGORITHMS = {"ImagePDQ": "pdq", "ImageMD5": "md5"}
_DELETED = {"Active": False, "Received": False, "Withdrawn": True, "Deleted": True}


class StopNciiImporter:
    """StopNCII.org."""

    name = "stopncii"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return head.lstrip()[:1] in (b"{", b"[") and b'"hashRecords"' in head

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        is_last: list[bool] = []
        return pages.newest(paths, partial(_records, is_last), _take, is_last)


def _records(is_last: list[bool], path: Path) -> Iterator[Any]:
    for number, page in enumerate(pages.read_members(path), 1):
        records = page.get("hashRecords") if isinstance(page, dict) else None
        if not isinstance(records, list):
            raise ListError(f"{path.name}: page {number}: expected a list of hash records; get the page anew")
        if page.get("count", len(records)) != len(records):
            raise ListError(f"{path.name}: page {number}: holds {len(records)} records, not as many as it says")
        is_last.append(page.get("hasMoreRecords") is not True)
        yield from records


def _take(record: object, gathered: pages.Gathered) -> pages.Version:
    fields = pages.fields_of(record)
    kind, value, status = (fields.get(name) for name in ("signalType", "hashValue", "hashStatus"))
    time_s = pages.seconds_of(fields.get("lastModtimestamp"))
    if not isinstance(kind, str) or not isinstance(value, str):
        raise pages.Unusable(pages.NO_VERSION)
    if not isinstance(status, str) or status not in _DELETED:
        raise pages.Unusable("a status that this format does not know")
    if kind not in _ALGORITHMS:
        gathered.note("skipped", "a kind of hash that is not of images")
    elif not pages.is_value(_ALGORITHMS[kind], value):
        raise pages.Unusable("a hash that is not as many hexadecimal digits as its kind has")
    elif not _DELETED[status]:
        gathered.take(_ALGORITHMS[kind], None, value)
    return f"{kind} {value.lower()}", time_s, _DELETED[status]
