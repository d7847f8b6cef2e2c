"""Saved answers of the hash sharing of NCMEC (version 2), as XML: any number of pages, in any order.

Owns which elements are read, that a page holds as many records as it says, and that no document type or entity is.

- MD5, SHA-1 and PDQ of images are entries; their category is the classification. Other fingerprints, those that are
  a reference to the server, and videos are counted and not matched; no reference is kept.
- A deletion takes back what has its kind, member and id. Only the newest of those counts, whatever the order.

Elements: report.cybertip.org/hashsharing/v2 (documentation); facebook/ThreatExchange, exchanges/clients/ncmec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import iterparse

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers import pages
from classifiers.blocklists.importers.protocol import ReadOptions

Event: TypeAlias = tuple[str, Element]

_MATCHED = frozenset({"md5", "sha1", "pdq"})
_SECTIONS = frozenset({"images", "videos"})


class NcmecImporter:
    """NCMEC hash sharing, version 2."""

    name = "ncmec"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return head.lstrip().startswith(b"<") and b"queryResult" in head and b"hashsharing" in head

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        is_last: list[bool] = []
        return pages.newest(paths, partial(_records, is_last), _take, is_last)


def _records(is_last: list[bool], path: Path) -> Iterator[Element]:
    has_next = False
    depth = found = 0
    section = Element("")
    for event, element in _events(path):
        tag = _tag(element)
        if event == "start":
            depth += 1
            if depth == 1 and tag != "queryresult":
                raise ListError(f"{path.name}: expected a queryResult of NCMEC, found another document")
            if depth == 2:
                section, found = element, 0
                if tag not in _SECTIONS | {"paging"}:
                    raise ListError(f"{path.name}: expected images, videos and paging, found another section")
            continue
        if tag == "next":
            has_next = bool(_text(element))
        if depth == 3 and _tag(section) in _SECTIONS:
            found += 1
            yield element
            del section[:]  # or a long page would stay in memory
        if depth == 2 and tag in _SECTIONS and section.get("count", "0") != str(found):
            raise ListError(f"{path.name}: {tag}: holds {found} records, not as many as its count; get it anew")
        depth -= 1
    is_last.append(not has_next)


def _events(path: Path) -> Iterator[Event]:
    """Parse a file, without the words of the parser, which hold parts of it."""
    with path.open("rb") as file:
        events = iterparse(file, events=("start", "end"), forbid_dtd=True)
        while True:
            try:
                event = next(events)
            except StopIteration:
                return
            except ParseError as error:
                line = error.position[0]
                raise ListError(f"{path.name}: line {line}: not well-formed XML, or it ends too early") from None
            except (ValueError, LookupError):
                raise ListError(f"{path.name}: XML with a document type, entities or an unknown encoding") from None
            yield event


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2].lower()


def _take(record: Element, gathered: pages.Gathered) -> pages.Version:
    tag = _tag(record)
    kind = tag.removeprefix("deleted")
    fields = {_tag(child): child for child in record}
    key, member = _text(fields.get("id")), fields.get("member", Element("")).get("id")
    time_s = pages.seconds_of(_text(fields.get("timestamp")))
    if kind not in ("image", "video"):
        raise pages.Unusable("neither an image, nor a video, nor a deletion")
    if not key or not member:
        raise pages.Unusable(pages.NO_VERSION)
    if kind == "video":
        gathered.note("skipped", "not an image")
    elif tag == "image":
        _take_fingerprints(record, _text(fields.get("classification")) or None, gathered)
    return f"{kind} {member}\n{key}", time_s, tag != kind


def _take_fingerprints(record: Element, category: str | None, gathered: pages.Gathered) -> None:
    fingerprints = [value for child in record if _tag(child) == "fingerprints" for value in child]
    for value in fingerprints:
        if _tag(value) in _MATCHED and "href" not in value.attrib:
            gathered.take(_tag(value), category, _text(value))
        else:
            gathered.note("skipped", "a kind of fingerprint that is not matched")
    if not fingerprints:
        gathered.note("rejected", pages.NO_VALUE)


def _text(element: Element | None) -> str:
    return "" if element is None else (element.text or "").strip()
