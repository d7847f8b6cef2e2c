"""The JSON of Project VIC (VICS) and of CAID: media with MD5 and SHA-1, by the gigabyte.

Owns which fields of a record are read. Leaves to the user which categories are taken: they are a national
scale, and material that is not pertinent is in the same file.

- The model is named by the first key: `odata.metadata` in 1.x, `@odata.context` in 2.0; of a file of cases every
  case is read.
- PhotoDNA, inline or under `AlternativeHashes`, is counted and not matched; nor are media whose type is a video.

Fields: sepinf-inc/IPED, iped-engine, hashdb/HashDBTool.java; the specification itself is not public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers import pages
from classifiers.blocklists.importers.protocol import ReadOptions

_MODEL = re.compile(rb'"(?:odata\.metadata|@odata\.context)"\s*:\s*"[^"]*#(Media|Cases)\b')
_PREFIXES = {b"Media": "value.item", b"Cases": "value.item.Media.item"}
_TYPES = ("MimeType", "ContentType", "MediaType")


class VicsImporter:
    """Project VIC (VICS) 1.x and 2.0, and CAID, as JSON."""

    name = "vics"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        return _MODEL.search(head) is not None

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        for path in paths:
            model = _MODEL.search(pages.head_of(path))
            if not model:
                raise ListError(f"{path.name}: expected JSON that begins with the name of a VICS model, found none")
            yield from pages.batches(path, pages.read_json(path, _PREFIXES[model[1]]), _take)


def _take(record: object, gathered: pages.Gathered) -> None:
    fields = pages.fields_of(record)
    if any(str(fields.get(name)).lower().startswith("video") for name in _TYPES):
        return gathered.note("skipped", "not an image")
    category = fields.get("Category")
    if category is not None and type(category) is not int:
        raise pages.Unusable("a category that is not a whole number")
    others = fields.get("PhotoDNA") or fields.get("AlternativeHashes")
    if others:
        gathered.note("skipped", "PhotoDNA and other alternative hashes are not matched")
    found = [name for name in ("MD5", "SHA1") if fields.get(name) not in (None, "")]
    for name in found:
        gathered.take(name.lower(), None if category is None else str(category), fields[name])
    if not found and not others:
        gathered.note("rejected", pages.NO_VALUE)
