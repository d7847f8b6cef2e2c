"""Which formats of lists there are, how one is found for a file, and what a folder stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.importers.digest_table import DigestTableImporter
from classifiers.blocklists.importers.icse import IcseImporter
from classifiers.blocklists.importers.ncmec import NcmecImporter
from classifiers.blocklists.importers.pages import head_of
from classifiers.blocklists.importers.plain import PlainImporter
from classifiers.blocklists.importers.protocol import Importer
from classifiers.blocklists.importers.stopncii import StopNciiImporter
from classifiers.blocklists.importers.tat import TatImporter
from classifiers.blocklists.importers.threatexchange import ThreatExchangeImporter
from classifiers.blocklists.importers.urls import UrlsImporter
from classifiers.blocklists.importers.vics import VicsImporter

AUTO = "auto"

_ALL: tuple[Importer, ...] = (
    PlainImporter(),
    DigestTableImporter(),
    NcmecImporter(),
    VicsImporter(),
    IcseImporter(),
    ThreatExchangeImporter(),
    StopNciiImporter(),
    TatImporter(),
    UrlsImporter(),
)
IMPORTERS: Mapping[str, Importer] = MappingProxyType({importer.name: importer for importer in _ALL})


def find_importer(name: str, paths: Sequence[Path]) -> Importer:
    """Return the importer of a name, or for "auto" the one that recognises the first file.

    Raises:
        ListError: the name is unknown, or not just one importer recognises the file.
    """
    named = f"--format with one of {', '.join(IMPORTERS)}"
    if name != AUTO:
        if name not in IMPORTERS:
            raise ListError(f"expected {named}, found another name")
        return IMPORTERS[name]
    head = head_of(paths[0])
    found = [importer for importer in IMPORTERS.values() if importer.recognises(head)]
    if len(found) != 1:
        what = " and ".join(importer.name for importer in found) or "no format"
        raise ListError(f"{paths[0].name}: its beginning is that of {what}; give {named}")
    return found[0]


def files_of(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files that paths stand for: a folder stands for those in it that are not hidden, sorted by name.

    Raises:
        ListError: there is none.
        OSError: a path cannot be looked at.
    """
    found: list[Path] = []
    for path in paths:
        path.stat()  # or what is missing would be taken for a file
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        else:
            found.append(path)
    if not found:
        raise ListError("expected files of a list, found none; name them, or a folder that holds them")
    return tuple(dict.fromkeys(found))
