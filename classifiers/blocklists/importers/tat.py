"""The hash list of Tech Against Terrorism, as JSON: a list of records, pages with `results`, or lines of either.

Owns which fields of a record are read. The category is the ideology; the newest record of an id is the one that
counts, and one that is marked as deleted takes the id back.

Fields: facebook/ThreatExchange, python-threatexchange, exchanges/clients/techagainstterrorism/api.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers import pages
from classifiers.blocklists.importers.protocol import ReadOptions

_VIDEOS = frozenset({"mp4", "m4v", "mov", "webm", "avi", "mkv", "mpg", "mpeg", "wmv", "flv", "3gp"})


class TatImporter:
    """Tech Against Terrorism."""

    name = "tat"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return head.lstrip()[:1] in (b"{", b"[") and b'"hash_digest"' in head and b'"ideology"' in head

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        return pages.newest(paths, _records, _take)


def _records(path: Path) -> Iterator[Any]:
    for member in pages.read_members(path):
        results = member.get("results") if isinstance(member, dict) else None
        yield from results if isinstance(results, list) else (member,)


def _take(record: object, gathered: pages.Gathered) -> pages.Version:
    fields = pages.fields_of(record)
    key, kind, deleted = fields.get("id"), fields.get("algorithm"), fields.get("deleted", False)
    time_s = pages.seconds_of(fields.get("updated_on"))
    if type(key) not in (int, str):
        raise pages.Unusable(pages.NO_VERSION)
    category = fields.get("ideology")
    if type(deleted) is not bool or not isinstance(category, str | None):
        raise pages.Unusable("a mark of deletion or an ideology that cannot be read")
    medium = str(fields.get("file_type")).lower().lstrip(".")
    if medium.startswith("video") or medium in _VIDEOS:
        gathered.note("skipped", "not an image")
    elif kind == "SHA512":
        gathered.note("skipped", "a kind of hash that is not matched")
    elif kind not in ("MD5", "SHA256", "PDQ"):
        gathered.note("rejected", "a kind of hash that this format does not know")
    elif not deleted:
        gathered.take(kind.lower(), category, fields.get("hash_digest"))
    return str(key), time_s, deleted
