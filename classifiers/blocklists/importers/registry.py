"""Which formats of lists there are, how one is found for a file, and what a folder stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from classifiers.plugins import IMPORTERS as PLUGINS
from classifiers.plugins import distributions_of, make_plugin

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
        ListError: the name is unknown, not just one importer recognises the file, or a plug-in is not usable.
    """
    if name in IMPORTERS:
        return IMPORTERS[name]
    if name != AUTO:
        return make_plugin(PLUGINS, name, (*IMPORTERS, AUTO), partial(_check_importer, name))
    head = head_of(paths[0])
    found = [importer for importer in IMPORTERS.values() if importer.recognises(head)]
    if len(found) != 1:
        what = " and ".join(importer.name for importer in found) or "no format"
        named = f"--format with one of {', '.join(IMPORTERS)}"
        raise ListError(f"{paths[0].name}: its beginning is that of {what}; give {named}")
    return found[0]


def name_format(importer: Importer) -> str:
    """Return what a stored list says of its format: the name, and whose it is where it is a plug-in's."""
    return " of ".join([importer.name, *distributions_of(PLUGINS, [importer.name], IMPORTERS)])


def _check_importer(name: str, factory: Callable[[], Importer]) -> Importer:
    importer = factory()
    if importer.name != name or not callable(importer.read):
        raise ValueError(f"expected an importer with read() and the name {name!r}, found {importer.name!r}")
    return importer


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
