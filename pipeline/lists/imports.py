"""Importing a list: somebody's files in, a new version in the store out, or a refusal and nothing stored.

Leaves formats to `classifiers.blocklists.importers`, effects to `categories`, writing to `store`.

- What is cheap to refuse is refused before the files are read.
- A list that is incomplete beyond the tolerance is refused: a part of a list that looks whole is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.registry import files_of, find_importer, name_format
from manifests.records import digest_json
from pipeline.errors import InputError
from pipeline.ingest.input_files import digest_of
from pipeline.lists.categories import effects_of, known_effects
from pipeline.lists.manifest import About, ListManifest
from pipeline.lists.report import reason_lines
from pipeline.lists.store import ListStore


@dataclass(frozen=True, slots=True)
class Imported:
    """A stored version, and the first lines of every reason for which a record or value was not taken."""

    manifest: ListManifest
    places: Mapping[str, tuple[str, ...]]


def import_list(
    store: ListStore,
    list_id: str,
    paths: Sequence[Path],
    about: About,
    *,
    format_name: str = "auto",
    algorithm: str = "",
    category_map: Path | None = None,
    effect: str = "",
    stated_count: int | None = None,
    tolerance: float = 0.0,
) -> Imported:
    """Read files that together are one list, and store them as its next version.

    Args:
        store: where to.
        list_id: the list.
        paths: files and folders.
        about: what the user says of the list.
        format_name: one of the importers, or "auto".
        algorithm: of the values, where the files do not say.
        category_map: file that maps native categories to effects.
        effect: of all entries, for a list without categories.
        stated_count: how many records the owner says there are.
        tolerance: the share of the stated count, else of all records, that may be missing.

    Raises:
        ListError: a file is not usable, nothing is left to match, or the store refuses.
        ConfigError: a category has no effect.
        InputError: more records are missing than is tolerated; nothing was stored.
    """
    store.ready(list_id)
    known = known_effects(category_map, effect)
    files = files_of(paths)
    delivery = delivery_of(str(digest_of(path)) for path in files)
    importer = find_importer(format_name, files)
    collected = collect(importer.read(files, ReadOptions(algorithm)))
    _require_complete(collected, stated_count, tolerance)
    manifest = store.add(
        list_id,
        collected,
        about,
        effects_of(collected, known),
        format_name=name_format(importer),
        stated_count=stated_count,
        tolerance=tolerance,
        delivery=delivery,
    )
    return Imported(manifest, collected.places)


def delivery_of(digests: Iterable[str]) -> str:
    """Return the digest by which a delivery is known, from the SHA-256 of its files in any order."""
    return digest_json(sorted(digests))


def _require_complete(collected: Collected, stated_count: int | None, tolerance: float) -> None:
    if stated_count is not None:
        whole, off = stated_count, abs(stated_count - collected.taken)
        found = f"expected {stated_count} records as stated, found {collected.records} and took {collected.taken}"
    else:
        whole, off = collected.records, collected.fates.get("rejected", 0)
        found = f"{off} of {collected.records} records were rejected"
    if off > tolerance * whole:
        refusal = (
            f"{found}; the tolerance is {tolerance:g} of {whole}. Nothing was stored: ask the owner of the list, "
            "or say with --tolerance which share may be off"
        )
        raise InputError("\n".join([refusal, *reason_lines(collected.reasons, collected.places)]))
