"""Checking lists in the store: files, digests, modes, leftovers, expiry, withdrawal; and those of a collection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from manifests.collection import Collection
from manifests.commits import RecordError
from pipeline.lists import folders
from pipeline.lists.manifest import FILE_MODE, utc_now
from pipeline.lists.store import ListStore


def check_store(store: ListStore, list_id: str | None = None) -> tuple[list[str], list[str]]:
    """Check one list, or the whole store.

    Returns:
        What is in order, and the problems, each with what to do.

    Raises:
        ListError: there is no such list.
    """
    notes: list[str] = []
    if list_id is not None:
        store.require_list(list_id)
        problems = []
    else:
        problems = [*_modes([store.root, *store.root.iterdir()])]
        problems += _strangers(store.root, {folders.LOCK, *store.ids()})
    for name in (list_id,) if list_id is not None else store.ids():
        home = store.home(name)
        versions = folders.folders_in(home, folders.VERSION)
        problems += _modes(home.rglob("*") if list_id is None else [home, *home.rglob("*")])
        problems += _strangers(home, {folders.WITHDRAWN, *(path.name for path in versions)})
        try:
            gone = store.withdrawn(name)
            if gone is None:
                for folder in versions:
                    notes += _check_version(store, name, folder, problems)
            else:
                notes.append(f"{name}: withdrawn {gone.withdrawn_at}: {gone.why}")
                if versions:
                    problems.append(f"{home}: the withdrawal did not finish; run `lists withdraw {name}` again")
        except ListError as error:
            problems.append(str(error))
    return notes, problems


def _check_version(store: ListStore, list_id: str, folder: Path, problems: list[str]) -> Iterator[str]:
    if not folders.was_whole(folder):
        problems.append(f"{folder}: an import that did not finish; the next import of this list sweeps it")
        return
    if (folder / folders.REMOVED).exists():
        problems += _strangers(folder, {folders.REMOVED})
        yield f"{list_id}@{int(folder.name)}: removed"
        return
    try:
        manifest, stored = store.read(list_id, int(folder.name))
    except ListError as error:
        problems.append(str(error))
        return
    problems += _strangers(folder, {folders.MANIFEST, folders.ENTRIES[manifest.sealed]})
    if manifest.expired(utc_now().date()):
        problems.append(f"{manifest.name}: expired {manifest.expires}; import a newer one, or remove it")
    yield f"{manifest.name}: {sum(map(len, stored.rows.values()))} entries as imported"


def _modes(paths: Iterable[Path]) -> Iterator[str]:
    for path in sorted(paths):
        wanted = folders.FOLDER_MODE if path.is_dir() else FILE_MODE
        mode = path.lstat().st_mode & 0o777
        if mode != wanted:
            yield f"{path}: expected mode {wanted:04o}, found {mode:04o}; chmod it"


def _strangers(folder: Path, known: set[str]) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield f"{path}: does not belong there; the next import or removal sweeps what a killed one left"


def matched_lists(store_root: Path, collection: Collection) -> tuple[list[str], list[str]]:
    """Say of every list that the newest settle of a collection was matched with, what became of it since.

    Returns:
        One line a list, and the problems: a version whose set is not the one that was matched.

    Raises:
        RecordError: nothing is settled there.
    """
    notes: list[str] = []
    problems: list[str] = []
    store = ListStore(store_root)
    numbers = collection.closed_settles()
    if not numbers:
        raise RecordError(f"{collection.root}: nothing is settled here yet")
    plan = json.loads((collection.settled(numbers[-1]) / "plan.json").read_bytes())
    for item in plan["decide"]["lists"]:
        name = f"list {item['id']}@{item['version']}"
        gone = store.withdrawn(item["id"])
        if gone is not None:
            notes.append(f"{name}: withdrawn {gone.withdrawn_at} ({gone.why}); settle again without it")
        elif item["version"] not in store.versions(item["id"]):
            notes.append(f"{name}: not in the store any more")
        elif store.manifest(item["id"], item["version"]).set_digest != item["set_digest"]:
            problems.append(f"{name}: the store holds another set of entries than the one that was matched")
        else:
            newest = store.newest(item["id"]).version
            newer = "" if newest == item["version"] else f", which has @{newest} too"
            notes.append(f"{name}: in the store{newer}")
    return notes, problems
