"""Checking lists in the store: files, digests, modes, leftovers, expiry, withdrawal; and those of a collection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from manifests.collection import Collection
from pipeline.lists import folders
from pipeline.lists.manifest import utc_now
from pipeline.lists.store import ListStore
from pipeline.status import newest_close


def check_store(store: ListStore, list_id: str | None = None) -> tuple[list[str], list[str]]:
    """Check one list, or the whole store.

    Returns:
        What is in order, and the problems, each with what to do.

    Raises:
        ListError: there is no such list.
    """
    top, names = (store.root, store.ids()) if list_id is None else (store.require_list(list_id), (list_id,))
    notes: list[str] = []
    problems = [*_modes([top, *top.rglob("*")])]
    if list_id is None:
        problems += _strangers(store.root, {folders.LOCK, *names})
    for name in names:
        home, every = store.home(name), store.version_folders(name)
        problems += _strangers(home, {folders.WITHDRAWN, *(path.name for path in every.values())})
        try:
            gone = store.withdrawn(name)
        except ListError as error:
            problems.append(str(error))
            continue
        if gone is None:
            for version, folder in every.items():
                notes += _check_version(store, f"{name}@{version}", folder, problems)
            continue
        notes.append(f"{name}: withdrawn {gone.withdrawn_at}: {gone.why}")
        if every:
            problems.append(f"{home}: the withdrawal did not finish; run `lists withdraw {name}` again")
    return notes, problems


def _check_version(store: ListStore, name: str, folder: Path, problems: list[str]) -> Iterator[str]:
    if not folders.was_whole(folder):
        problems.append(f"{folder}: an import that did not finish; the next import of this list sweeps it")
        return
    if (folder / folders.REMOVED).exists():
        problems += _strangers(folder, {folders.REMOVED})
        yield f"{name}: removed"
        return
    try:
        manifest, stored = store.read(folder.parent.name, int(folder.name))
    except ListError as error:
        problems.append(str(error))
        return
    problems += _strangers(folder, {folders.MANIFEST, folders.ENTRIES[manifest.encrypted]})
    if manifest.expired(utc_now().date()):
        problems.append(f"{name}: expired {manifest.expires}; import a newer one, or remove it")
    yield f"{name}: {sum(map(len, stored.rows.values()))} entries as imported"


def _modes(paths: Iterable[Path]) -> Iterator[str]:
    for path in sorted(paths):
        wanted = folders.FOLDER_MODE if path.is_dir() else folders.FILE_MODE
        mode = path.lstat().st_mode & 0o777
        if mode != wanted:
            yield f"{path}: expected mode {wanted:04o}, found {mode:04o}; chmod it"


def _strangers(folder: Path, known: set[str]) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield f"{path}: does not belong there; the next import or removal sweeps what a killed one left"


def matched_lists(store: ListStore, collection: Collection) -> tuple[list[str], list[str]]:
    """Say of every list that the newest settle of a collection was matched with, what became of it since.

    Returns:
        One line a list, and the problems: a version whose set is not the one that was matched.

    Raises:
        ConfigError: nothing is settled there.
        ListError: what the store says of one of them is damaged.
    """
    notes: list[str] = []
    problems: list[str] = []
    plan = json.loads((collection.settled(newest_close(collection).number) / "plan.json").read_bytes())
    for item in plan["decide"]["lists"]:
        name = f"list {item['id']}@{item['version']}"
        gone = store.withdrawn(item["id"])
        versions = store.versions(item["id"])
        if gone is not None:
            notes.append(f"{name}: withdrawn {gone.withdrawn_at} ({gone.why}); settle again without it")
        elif item["version"] not in versions:
            notes.append(f"{name}: not in the store any more")
        elif store.manifest(item["id"], item["version"]).set_digest != item["set_digest"]:
            problems.append(f"{name}: the store holds another set of entries than the one that was matched")
        else:
            newer = "" if versions[-1] == item["version"] else f", which has @{versions[-1]} too"
            notes.append(f"{name}: in the store{newer}")
    return notes, problems
