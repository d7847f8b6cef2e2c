"""What is said of lists: counts, dates and digests of whole sets; never an entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from classifiers.blocklists.algorithms import WIDTHS, ListError
from classifiers.blocklists.entries import sort_rows
from classifiers.blocklists.stored import StoredList
from pipeline.lists.manifest import ListManifest, utc_now
from pipeline.lists.store import ListStore

UNSAFE_STAMP = "unsafe_plain_lists"


def reason_lines(reasons: Mapping[str, int], places: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for every reason for which records or values were not taken, with its first places."""
    return [
        f"  {name}: {count}, first at {', '.join(places.get(name, ())) or 'places that are not kept'}"
        for name, count in sorted(reasons.items())
    ]


def manifest_lines(manifest: ListManifest, places: Mapping[str, Sequence[str]]) -> list[str]:
    """Return everything that the manifest of one version says."""
    fates = ", ".join(f"{count} {name}" for name, count in sorted(manifest.fates.items()))
    stated = "" if manifest.stated_count is None else f", {manifest.stated_count} stated"
    lines = [
        f"list      {manifest.name}, {manifest.purpose}, format {manifest.format}, imported {manifest.imported_at}",
        f"from      {manifest.received_from or '-'}; agreement {manifest.agreement or '-'}; "
        f"uses {', '.join(manifest.permitted_uses) or '-'}; territory {manifest.territory or '-'}; "
        f"expires {manifest.expires or '-'}; contact {manifest.contact or '-'}",
        f"records   {manifest.records}{stated}: {manifest.taken} taken{fates and ', ' + fates}; "
        f"{manifest.duplicates} values were there twice",
        *reason_lines(manifest.reasons, places),
        f"entries   {_counts(manifest.entries)}; canaries {_counts(manifest.canaries)}",
    ]
    for name, counts in manifest.entries_by_effect.items():
        lines.append(f"effect    {name}: {_counts(counts)}")
    for name, counts in manifest.entries_by_category.items():
        lines.append(f"category  {name!r} -> {manifest.effects[name]}: {_counts(counts)}")
    return [*lines, f"set       {manifest.set_digest}"]


def import_days(store: ListStore) -> dict[str, str]:
    """Return the day on which each version that stands in the store was imported, by id@version."""
    standing = [name for name in store.ids() if store.withdrawn(name) is None]
    every = [store.manifest(name, version) for name in standing for version in store.versions(name)]
    return {one.name: one.imported_at[:10] for one in every}


def stamps_of(manifests: Iterable[ListManifest]) -> tuple[str, ...]:
    """Return a stamp for every version whose entries are not encrypted."""
    return tuple(f"{UNSAFE_STAMP}: {manifest.name}" for manifest in manifests if not manifest.encrypted)


def shown(store: ListStore, list_id: str | None) -> tuple[list[ListManifest], list[str]]:
    """Return the newest versions of all lists, or all versions of one, and what is printed of them.

    Raises:
        ListError: there is no such list, or a manifest is damaged.
    """
    names = store.ids() if list_id is None else (list_id,)
    gone = [item for item in map(store.withdrawn, names) if item is not None]
    rest = [name for name in names if name not in {item.id for item in gone}]
    if list_id is None:
        manifests = [store.newest(name) for name in rest if store.versions(name)]
    else:
        manifests = [manifest for name in rest for manifest in store.manifests(name)]
    lines = _table(manifests) if manifests or list_id is None else []
    if list_id is not None and manifests:
        lines += manifest_lines(manifests[-1], {})
    return manifests, lines + [f"{item.id}  withdrawn {item.withdrawn_at}: {item.why}" for item in gone]


def split_name(text: str) -> tuple[str, int | None]:
    """Return the list and the version of `id@version`; None, the newest, where there is an id only.

    Raises:
        ListError: the version is no number.
    """
    list_id, at, version = text.partition("@")
    if at and not version.isdecimal():
        raise ListError(f"{text!r}: expected id@version, or an id")
    return list_id, int(version) if at else None


def destroyed_lines(store: ListStore, list_id: str, version: int | None = None) -> list[str]:
    """Return a line for every file of a version, or of all versions, that destroying would overwrite."""
    return [
        f"destroys  {path}: {path.lstat().st_size} bytes"
        for number, folder in store.version_folders(list_id).items()
        if version in (None, number)
        for path in sorted(folder.iterdir())
    ]


def difference_lines(first: StoredList, second: StoredList) -> list[str]:
    """Count, by algorithm, the entries that only the first, only the second, or both lists hold."""
    lines = []
    for name in sorted({*first.rows, *second.rows}):
        none = np.zeros((0, WIDTHS[name]), np.uint8)
        sides = [item.rows.get(name, none) for item in (first, second)]
        marks = np.repeat(np.array([1, 2], np.uint64), [len(side) for side in sides])
        _, found = sort_rows(np.concatenate(sides), marks)
        _, left, right, both = np.bincount(found.astype(np.int64), minlength=4).tolist()
        lines.append(f"{name}: only in the first {left}, only in the second {right}, in both {both}")
    return lines


def _table(manifests: Sequence[ListManifest]) -> list[str]:
    now = utc_now()
    rows = [("LIST", "PURPOSE", "EFFECTS", "ENTRIES", "FROM", "EXPIRES", "IMPORTED", "DAYS AGO")]
    for item in manifests:
        effects = ",".join(name for name, counts in item.entries_by_effect.items() if counts)
        expires = (item.expires or "-") + (" (past)" if item.expired(now.date()) else "")
        about = (item.received_from or "-", expires, item.imported_at, str(item.age_days(now)))
        rows.append((item.name, item.purpose, effects, _counts(item.entries), *about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _counts(counts: Mapping[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in counts.items()) or "none"
