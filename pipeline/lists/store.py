"""The list store: STORE/<id>/<version>/ with a manifest and the entries, encrypted with age.

Owns the folders, their order of writing and destroying, and every check on reading. Leaves what is said of lists to
`report`, and matching to the run.

- A version is there once its manifest is; a folder without one is swept by the next import of that list.
- Entries reach the disk encrypted to the store's key, unless the store is told to keep them plain.
- A number is never used twice: a removed version leaves `removed.json`, a withdrawn list `withdrawn.json`. Both are
  written before anything is destroyed, so that a killed removal is finished by running it again.
- Readable and writable by their owner only: folders 0700, files 0600.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyrage

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.canaries import make_canaries
from classifiers.blocklists.entries import Collected
from classifiers.blocklists.stored import Effect, StoredList, decode_list, encode_list, set_digest
from manifests import durable
from pipeline.lists import folders
from pipeline.lists.categories import count_categories, keep_matched
from pipeline.lists.folders import FILE_MODE, FOLDER_MODE, MANIFEST, REMOVED, WITHDRAWN
from pipeline.lists.manifest import About, ListManifest, Removed, Withdrawn, read_record, utc_now


@dataclass(frozen=True, slots=True)
class ListStore:
    """A store of lists.

    root: its folder. key: the age identity file that opens it, outside of it; None for what needs no entries.
    plain: write entries unencrypted, and read such ones.
    """

    root: Path
    key: Path | None = None
    plain: bool = False

    def ids(self) -> tuple[str, ...]:
        """Return the lists of the store, withdrawn ones included, sorted."""
        return tuple(path.name for path in folders.folders_in(self.root, folders.LIST_ID))

    def withdrawn(self, list_id: str) -> Withdrawn | None:
        """Return what a withdrawn list left behind; None for a list that is not withdrawn."""
        path = self.home(list_id) / WITHDRAWN
        return read_record(path, Withdrawn) if path.exists() else None

    def version_folders(self, list_id: str) -> dict[int, Path]:
        """Return the folders of versions by number, ascending, leftovers and removed versions included."""
        found = folders.folders_in(self.home(list_id), folders.VERSION)
        return dict(sorted((int(path.name), path) for path in found))

    def versions(self, list_id: str) -> tuple[int, ...]:
        """Return the versions of a list that are whole and not removed, ascending."""
        return tuple(n for n, path in self.version_folders(list_id).items() if folders.is_standing(path))

    def manifest(self, list_id: str, version: int | None = None) -> ListManifest:
        """Read the manifest of one version, by default the newest.

        Raises:
            ListError: the list is withdrawn, there is no such list or version, or the manifest is damaged.
        """
        self.require_list(list_id)
        self._require_standing(list_id)
        known = self.versions(list_id)
        wanted = max(known, default=1) if version is None else version
        if wanted not in known:
            has = ", ".join(map(str, known)) or "none any more: import it again"
            raise ListError(f"list {list_id!r} in {self.root}: no version {wanted}; it has {has}")
        path = self.folder(list_id, wanted) / MANIFEST
        found = read_record(path, ListManifest)
        if (found.id, found.version) != (list_id, wanted):
            raise ListError(f"{path}: is the manifest of {found.name}; restore the right one from a backup")
        return found

    def manifests(self, list_id: str) -> tuple[ListManifest, ...]:
        """Read the manifests of all versions, ascending; errors as `manifest`, also where there is none."""
        return tuple(self.manifest(list_id, version) for version in self.versions(list_id) or (None,))

    def newest(self, list_id: str) -> ListManifest:
        """Read the manifest of the newest version; errors as `manifest`."""
        return self.manifest(list_id)

    def read(self, list_id: str, version: int | None = None) -> tuple[ListManifest, StoredList]:
        """Read one version, by default the newest, and check it against its manifest.

        Raises:
            ListError: there is none, it was changed on disk, or the key does not open it.
        """
        manifest = self.manifest(list_id, version)
        path = self.folder(list_id, manifest.version) / folders.ENTRIES[manifest.encrypted]
        what = f"list {manifest.name}: {path}"
        if not manifest.encrypted and not self.plain:
            raise ListError(f"{what}: its entries are not encrypted; to read it, allow unsafe_plain_lists")
        keys = [folders.read_key(self.key, store=self.root)] if manifest.encrypted else []
        try:
            if not path.is_file():
                raise ListError("no such file")
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != manifest.file_sha256:
                raise ListError("changed on disk since it was imported")
            if keys:
                data = pyrage.decrypt(data, keys)
            stored = decode_list(data)
            if any(getattr(manifest, name) != value for name, value in _facts(stored).items()):
                raise ListError(f"does not agree with its {MANIFEST}: one was changed on disk")
        except pyrage.DecryptError:
            raise ListError(f"{what}: {self.key} is not the key that it was imported with") from None
        except ListError as error:
            again = "restore it from a backup, or remove this version and import the list again"
            raise ListError(f"{what}: {error}; {again}") from None
        return manifest, stored

    def ready(self, list_id: str) -> None:
        """Make sure that a version of `list_id` can be added, before a long import begins.

        Raises:
            ListError: the id is not one, the list is withdrawn, or the key is not usable.
        """
        self._require_standing(list_id)
        if not self.plain:
            folders.read_key(self.key, store=self.root)

    def add(
        self,
        list_id: str,
        collected: Collected,
        about: About,
        effects: Mapping[str, Effect],
        *,
        format_name: str,
        stated_count: int | None = None,
        tolerance: float = 0.0,
        delivery: str = "",
    ) -> ListManifest:
        """Store an import as the next version of a list, with canaries of its own.

        Raises:
            ListError: as `ready`, or nothing is left to match.
        """
        self.ready(list_id)
        matched = keep_matched(collected, effects)
        home = self.home(list_id)
        durable.make_folder(home, mode=FOLDER_MODE)
        with folders.locked(self.root):
            self._require_standing(list_id)
            folders.sweep(home)
            version = 1 + max(self.version_folders(list_id), default=0)
            seed = hashlib.sha256(f"{list_id}@{version}".encode()).digest()
            canaries = make_canaries(sorted(matched.rows), int.from_bytes(seed[:8], "big"))
            stored = StoredList(matched.rows, matched.masks, collected.categories, effects, canaries)
            data = encode_list(stored)
            if not self.plain:
                data = pyrage.encrypt(data, [folders.read_key(self.key, store=self.root).to_public()])
            manifest = ListManifest(
                **asdict(about),
                **_facts(stored),
                id=list_id,
                version=version,
                imported_at=utc_now().isoformat(),
                format=format_name,
                encrypted=not self.plain,
                entries_by_category=count_categories(collected),
                entries_by_effect=matched.by_effect,
                records=collected.records,
                taken=collected.taken,
                fates=dict(collected.fates),
                reasons=dict(collected.reasons),
                duplicates=collected.duplicates,
                stated_count=stated_count,
                tolerance=float(tolerance),
                file_sha256=hashlib.sha256(data).hexdigest(),
                delivery=delivery,
            )
            folder = self.folder(list_id, version)
            durable.make_folder(folder, mode=FOLDER_MODE)
            entries = folder / folders.ENTRIES[manifest.encrypted]
            durable.write(entries, data, replace=False, mode=FILE_MODE)
            manifest.write(folder / MANIFEST, replace=False, mode=FILE_MODE)
        return manifest

    def remove(self, list_id: str, version: int) -> None:
        """Destroy one version; its number stays used.

        Raises:
            ListError: the list is withdrawn, or has no such version.
        """
        self._require_standing(list_id)
        folder = self.folder(list_id, version)
        if not folder.is_dir():
            raise ListError(f"list {list_id!r} in {self.root}: no version {version}")
        with folders.locked(self.root):
            if not (folder / REMOVED).exists():
                left = Removed(version, folders.last_set_digest(folder))
                left.write(folder / REMOVED, replace=False, mode=FILE_MODE)
            folders.destroy(folder, keep=REMOVED)

    def withdraw(self, list_id: str, why: str) -> Withdrawn:
        """Destroy a list, all versions of it, and leave word of that; its id stays used.

        A list that is withdrawn already keeps its first record; what is left of its versions is destroyed.

        Raises:
            ListError: there is no such list.
        """
        home = self.require_list(list_id)
        with folders.locked(self.root):
            record = self.withdrawn(list_id)
            every = self.version_folders(list_id)
            if record is None:
                whole = {str(n): path for n, path in every.items() if folders.was_whole(path)}
                digests = {n: folders.last_set_digest(path) for n, path in whole.items()}
                record = Withdrawn(list_id, utc_now().isoformat(), why, digests)
                record.write(home / WITHDRAWN, replace=False, mode=FILE_MODE)
            for folder in every.values():
                folders.destroy(folder)
            durable.sweep(home)
        return record

    def home(self, list_id: str) -> Path:
        """Return the folder of a list.

        Raises:
            ListError: the id is not one.
        """
        if not folders.LIST_ID.fullmatch(list_id):
            raise ListError(f"list id {list_id!r}: expected {folders.LIST_ID.pattern}")
        return self.root / list_id

    def require_list(self, list_id: str) -> Path:
        """Return the folder of a list that the store has, withdrawn or not.

        Raises:
            ListError: it has no such list.
        """
        home = self.home(list_id)
        if not home.is_dir():
            known = ", ".join(self.ids()) or "no list"
            raise ListError(f"list {list_id!r}: {self.root} has no such list; it has {known}")
        return home

    def folder(self, list_id: str, version: int) -> Path:
        """Return the folder of a version."""
        return self.home(list_id) / f"{version:04d}"

    def _require_standing(self, list_id: str) -> None:
        record = self.withdrawn(list_id)
        if record is not None:
            raise ListError(
                f"list {list_id!r} was withdrawn on {record.withdrawn_at} ({record.why}): it is not read or "
                "imported any more; a list that takes its place needs another id"
            )


def _facts(stored: StoredList) -> dict[str, Any]:
    """Return what the manifest of a version says of what its entries file holds."""
    return {
        "entries": {name: len(rows) for name, rows in sorted(stored.rows.items())},
        "effects": dict(stored.effects),
        "canaries": dict(Counter(item.algorithm for item in stored.canaries)),
        "set_digest": set_digest(stored.rows),
    }
