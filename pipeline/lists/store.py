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

import pyrage

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.canaries import make_canaries
from classifiers.blocklists.entries import Collected
from classifiers.blocklists.stored import Effect, StoredList, decode_list, encode_list, set_digest
from manifests import durable
from pipeline.lists.categories import keep_matched
from pipeline.lists.folders import (
    ENTRIES,
    FOLDER_MODE,
    LIST_ID,
    MANIFEST,
    REMOVED,
    VERSION,
    WITHDRAWN,
    destroy,
    folders_in,
    last_set_digest,
    locked,
    sweep,
    was_whole,
)
from pipeline.lists.keys import read_key
from pipeline.lists.manifest import (
    FILE_MODE,
    About,
    Gone,
    ListManifest,
    Withdrawn,
    read_record,
    utc_now,
    write_record,
)


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
        return tuple(sorted(path.name for path in folders_in(self.root) if LIST_ID.fullmatch(path.name)))

    def withdrawn(self, list_id: str) -> Withdrawn | None:
        """Return what a withdrawn list left behind; None for a list that is not withdrawn."""
        path = self.home(list_id) / WITHDRAWN
        return read_record(path, Withdrawn) if path.exists() else None

    def versions(self, list_id: str) -> tuple[int, ...]:
        """Return the versions of a list that are whole and not removed, ascending."""
        folders = folders_in(self.home(list_id), VERSION)
        there = (path for path in folders if (path / MANIFEST).exists() and not (path / REMOVED).exists())
        return tuple(sorted(int(path.name) for path in there))

    def manifest(self, list_id: str, version: int) -> ListManifest:
        """Read the manifest of one version.

        Raises:
            ListError: the list is withdrawn, there is no such version, or the manifest is damaged.
        """
        self._require_standing(list_id)
        known = self.versions(list_id)
        if version not in known:
            has = ", ".join(map(str, known)) or "none"
            raise ListError(f"list {list_id!r} in {self.root}: no version {version}; it has {has}")
        path = self.folder(list_id, version) / MANIFEST
        found = read_record(path, ListManifest)
        if (found.id, found.version) != (list_id, version):
            raise ListError(f"{path}: is the manifest of {found.name}; restore the right one from a backup")
        return found

    def manifests(self, list_id: str) -> tuple[ListManifest, ...]:
        """Read the manifests of all versions, ascending; errors as `manifest`."""
        return tuple(self.manifest(list_id, version) for version in self.versions(list_id))

    def newest(self, list_id: str) -> ListManifest:
        """Read the manifest of the newest version; errors as `manifest`, also where there is none."""
        self.require_list(list_id)
        self._require_standing(list_id)
        versions = self.versions(list_id)
        if not versions:
            raise ListError(f"list {list_id!r}: {self.root} has no version of it any more; import it again")
        return self.manifest(list_id, versions[-1])

    def read(self, list_id: str, version: int | None = None) -> tuple[ListManifest, StoredList]:
        """Read one version, by default the newest, and check it against its manifest.

        Raises:
            ListError: there is none, it was changed on disk, or the key does not open it.
        """
        manifest = self.newest(list_id) if version is None else self.manifest(list_id, version)
        path = self.folder(list_id, manifest.version) / ENTRIES[manifest.sealed]
        what = f"list {manifest.name}: {path}"
        again = "restore it from a backup, or remove this version and import the list again"
        if not manifest.sealed and not self.plain:
            raise ListError(f"{what}: its entries are not encrypted; to read it, allow unsafe_plain_lists")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ListError(f"{what}: no such file; {again}") from None
        if hashlib.sha256(data).hexdigest() != manifest.file_sha256:
            raise ListError(f"{what}: changed on disk since it was imported; {again}")
        if manifest.sealed:
            try:
                data = pyrage.decrypt(data, [read_key(self.key, store=self.root)])
            except pyrage.DecryptError:
                raise ListError(f"{what}: {self.key} is not the key that it was imported with") from None
        try:
            stored = decode_list(data)
        except ListError as error:
            raise ListError(f"{what}: {error}; {again}") from None
        facts = (set_digest(stored.rows), _counts(stored), dict(stored.effects), _canary_counts(stored))
        if facts != (manifest.set_digest, manifest.entries, manifest.effects, manifest.canaries):
            raise ListError(f"{what}: does not agree with its {MANIFEST}: one was changed on disk; {again}")
        return manifest, stored

    def ready(self, list_id: str) -> None:
        """Make sure that a version of `list_id` can be added, before a long import begins.

        Raises:
            ListError: the id is not one, the list is withdrawn, or the key is not usable.
        """
        self._require_standing(list_id)
        if not self.plain:
            read_key(self.key, store=self.root)

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
    ) -> ListManifest:
        """Store an import as the next version of a list, with canaries of its own.

        Raises:
            ListError: as `ready`, or nothing is left to match.
        """
        self.ready(list_id)
        matched = keep_matched(collected, effects)
        home = self.home(list_id)
        durable.make_folder(home, mode=FOLDER_MODE)
        with locked(self.root):
            self._require_standing(list_id)
            sweep(home)
            version = 1 + max((int(path.name) for path in folders_in(home, VERSION)), default=0)
            seed = hashlib.sha256(f"{list_id}@{version}".encode()).digest()
            canaries = make_canaries(sorted(matched.rows), int.from_bytes(seed[:8], "big"))
            stored = StoredList(matched.rows, matched.masks, collected.categories, effects, canaries)
            data = encode_list(stored)
            if not self.plain:
                data = pyrage.encrypt(data, [read_key(self.key, store=self.root).to_public()])
            manifest = ListManifest(
                **asdict(about),
                id=list_id,
                version=version,
                imported_at=utc_now().isoformat(),
                format=format_name,
                sealed=not self.plain,
                entries=_counts(stored),
                entries_by_category=matched.by_category,
                entries_by_effect=matched.by_effect,
                effects=dict(effects),
                records=collected.records,
                taken=collected.taken,
                fates=dict(collected.fates),
                reasons=dict(collected.reasons),
                duplicates=collected.duplicates,
                stated_count=stated_count,
                tolerance=float(tolerance),
                set_digest=set_digest(stored.rows),
                file_sha256=hashlib.sha256(data).hexdigest(),
                file_bytes=len(data),
                canaries=_canary_counts(stored),
            )
            folder = self.folder(list_id, version)
            durable.make_folder(folder, mode=FOLDER_MODE)
            durable.write(folder / ENTRIES[manifest.sealed], data, replace=False, mode=FILE_MODE)
            write_record(folder / MANIFEST, manifest)
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
        with locked(self.root):
            if not (folder / REMOVED).exists():
                write_record(folder / REMOVED, Gone(version, last_set_digest(folder)))
            destroy(folder, keep=REMOVED)

    def withdraw(self, list_id: str, why: str) -> Withdrawn:
        """Destroy a list, all versions of it, and leave word of that; its id stays used.

        A list that is withdrawn already keeps its first record; what is left of its versions is destroyed.

        Raises:
            ListError: there is no such list.
        """
        home = self.require_list(list_id)
        with locked(self.root):
            record = self.withdrawn(list_id)
            if record is None:
                folders = [path for path in folders_in(home, VERSION) if was_whole(path)]
                gone = tuple(Gone(int(path.name), last_set_digest(path)) for path in folders)
                record = Withdrawn(list_id, utc_now().isoformat(), why, gone)
                write_record(home / WITHDRAWN, record)
            for folder in folders_in(home, VERSION):
                destroy(folder)
            durable.sweep(home)
        return record

    def home(self, list_id: str) -> Path:
        """Return the folder of a list.

        Raises:
            ListError: the id is not one.
        """
        if not LIST_ID.fullmatch(list_id):
            raise ListError(f"list id {list_id!r}: expected {LIST_ID.pattern}")
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


def _counts(stored: StoredList) -> dict[str, int]:
    return {name: len(rows) for name, rows in sorted(stored.rows.items())}


def _canary_counts(stored: StoredList) -> dict[str, int]:
    return dict(Counter(item.algorithm for item in stored.canaries))
