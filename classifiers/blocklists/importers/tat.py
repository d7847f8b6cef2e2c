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
from classifiers.blocklists.importers.pages import (
    NO_VERSION,
    NOT_A_RECORD,
    Gathered,
    Unusable,
    Version,
    newest,
    read_members,
    seconds_of,
)
from classifiers.blocklists.importers.protocol import ReadOptions

_ALGORITHMS = {"MD5": "md5", "SHA256": "sha256", "PDQ": "pdq"}
_VIDEOS = frozenset({"mp4", "m4v", "mov", "webm", "avi", "mkv", "mpg", "mpeg", "wmv", "flv", "3gp"})


class TatImporter:
    """Tech Against Terrorism."""

    name = "tat"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return head.lstrip()[:1] in (b"{", b"[") and b'"hash_digest"' in head and b'"ideology"' in head

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        return newest(paths, _records, _take)


def _records(path: Path) -> Iterator[Any]:
    for member in read_members(path):
        results = member.get("results") if isinstance(member, dict) else None
        yield from results if isinstance(results, list) else (member,)


def _take(record: object, gathered: Gathered) -> Version:
    if not isinstance(record, dict):
        raise Unusable(NOT_A_RECORD)
    key, kind, deleted = record.get("id"), record.get("algorithm"), record.get("deleted", False)
    time_s = seconds_of(record.get("updated_on"))
    if type(key) not in (int, str) or time_s is None:
        raise Unusable(NO_VERSION)
    category = record.get("ideology")
    if type(deleted) is not bool or not isinstance(category, str | None):
        raise Unusable("a mark of deletion or an ideology that cannot be read")
    medium = str(record.get("file_type")).lower().lstrip(".")
    if medium.startswith("video") or medium in _VIDEOS:
        gathered.note("skipped", "not an image")
    elif kind == "SHA512":
        gathered.note("skipped", "a kind of hash that is not matched")
    elif deleted:
        pass
    elif kind in ("MD5", "SHA256", "PDQ"):
        gathered.take(_ALGORITHMS[kind], category, record.get("hash_digest"))
    else:
        gathered.note("rejected", "a kind of hash that this format does not know")
    return str(key), time_s, deleted
