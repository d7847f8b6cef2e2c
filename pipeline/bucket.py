"""A collection that lives in a bucket: what counts between machines lies there, a folder is a working copy of it.

Owns the order of writes there, and who wins. Leaves to `bucket_names.py` what counts and how objects are named, to
`bucket_copy.py` which side of a file goes to the other.

- An examined shard counts once its mark is put, if absent, after its files. Of two writers one wins; the other
  takes the winner's files in place of its own.
- All else (settle, retry, review, destruction, publication) is done under a claim, put if absent: files, `head`,
  which names all that counts and goes before marks, plain copies of log and `current`; then what nothing names is
  removed. Whoever was killed in between goes on where its folder lies.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection as Names
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import FilesError, canonical_json
from pipeline import bucket_names as names
from pipeline.bucket_copy import WorkingCopy, each
from pipeline.bucket_names import BEGUN, CLAIM, HEAD, Copies
from pipeline.errors import BusyError, InputError, RunError, ScrubError
from pipeline.remote import Remote, RemoteConfig

_UPLOAD_ENDS_S = 7 * 86400.0


@dataclass(slots=True)
class Bucket(WorkingCopy):
    """One collection's folder and its bucket. resumed: the claim was this folder's already; it may be ahead."""

    resumed: bool = False

    @classmethod
    def open(cls, home: Collection) -> Bucket:
        """Return the bucket that the folder names."""
        record = json.loads(home.bucket_record.read_bytes())
        return cls(home, Remote.connect(record["url"], RemoteConfig(**record["remote"])), record["folder"])

    def join(self) -> None:
        """Bring what a run needs to know before it begins; nothing where the collection is not begun there.

        Raises:
            InputError: the folder is that of another collection, or contradicts the bucket.
        """
        for name in BEGUN:
            data = self.remote.read(name)
            if data is not None:
                self._take_begun(name, data)
        self.pull(light=True)

    def begin(self, shards: Names[str]) -> None:
        """Begin the collection in the bucket, unless it is; learn what is examined, and put what only we have."""
        for name in BEGUN:
            if not self.remote.put(name, self.home.root / name, if_absent=True):
                self._take_begun(name, self.remote.read(name) or b"")
        self.pull(light=True, shards=shards)
        ours = set(self.home.committed_shards()) & set(shards)
        for shard in sorted(shard for shard in ours if names.commit_of(shard) not in self.there):
            self.add(shard)

    def pull(self, *, light: bool = False, shards: Names[str] | None = None) -> None:
        """Bring what the folder lacks.

        light: releases, features, sealed files only where they are here; shards of no settle only if named.

        Raises:
            InputError: a file was changed here and there, or an object is not what it should be.
        """
        with self.agreeing():
            self.read(() if light and shards is None else shards)
            wanted = {*self.files, *self.there}
            if light:
                lacking = {name for name in self.there if names.is_heavy(name) and not self.path(name).exists()}
                wanted -= lacking
            self.bring(wanted)

    def add(self, shard: str) -> bool:
        """Put an examined shard; False where another writer's is there, which then is taken.

        One that was there before and was examined anew goes up with all else that changed here.
        """
        if names.commit_of(shard) in self.files:
            return True
        ours = {name: copy for name in names.shard_files(self.home, shard) if (copy := self.ours(name)) is not None}
        each(self.put, ours.items())
        if self.remote.put(names.mark_of(shard), names.encode(ours), if_absent=True):
            return True
        with self.agreeing():
            self.read([shard])
            theirs = {name: copy for name, copy in self.there.items() if names.shard_of(name) == shard}
            for key in _keys(ours) - _keys(theirs):
                self.remote.remove(key)
            self.bring(theirs)
        return False

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the claim to change what is there: bring the folder up to date, then the bucket.

        Raises:
            BusyError: another folder holds it.
        """
        self._claim()
        try:
            self.pull()
        except BaseException:
            if not self.resumed:
                with suppress(RunError):
                    self.remote.remove(CLAIM)
            raise
        try:
            yield
        except BaseException:
            with suppress(ScrubError, FilesError, OSError):  # what was withheld by now must not stay there in clear
                self._push()
            raise
        self._push()

    def _claim(self) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        mine = canonical_json({"folder": self.folder, "node": platform.node(), "since": since})
        while not self.remote.put(CLAIM, mine, if_absent=True):
            data = self.remote.read(CLAIM)
            if data is None:  # it was given back in between
                continue
            about = json.loads(data)
            self.resumed = about["folder"] == self.folder
            if self.resumed:
                return
            raise BusyError(
                f"{self.remote.place(CLAIM)}: {about['node']} has been changing this collection since "
                f"{about['since']}; let it end. If it was killed, run again there, and it goes on; if its folder "
                "is lost, remove this object"
            )

    def _push(self) -> None:
        """Put all that changed, let `head` name it, remove what nothing names; give the claim back."""
        with self.agreeing():
            ours = {name: copy for name in names.all_files(self.home) if (copy := self.ours(name)) is not None}
            if self.resumed or names.digests(ours) != names.digests(self.head):
                each(self.put, [one for one in ours.items() if not names.same(self.there.get(one[0]), one[1])])
                self._put_head(ours)
                self._sweep()
            self.files = ours
            self.remote.remove(CLAIM)

    def _put_head(self, ours: Copies) -> None:
        groups: dict[str, Copies] = {}
        for name, copy in ours.items():
            groups.setdefault(names.list_of(name), {})[name] = copy
        data = {group: names.encode(copies) for group, copies in groups.items()}
        named = {group: hashlib.sha256(each).hexdigest() for group, each in data.items()}
        for group in sorted(group for group in named if named[group] != self.lists.get(group)):
            self.remote.put(names.list_key(group, named[group]), data[group], if_absent=False)
        head = canonical_json({"schema": 1, "kind": "head", "lists": named}) + b"\n"
        if not self.remote.put(HEAD, head, if_absent=not self.head_state, expected=self.head_state):
            raise RunError(
                f"{self.remote.place(HEAD)}: another folder changed this collection, though {self.home.root} held "
                "the claim; move that folder away and pull"
            )
        fresh = [
            name
            for name in ours
            if names.is_public(name) and (self.resumed or not names.same(self.head.get(name), ours[name]))
        ]
        each(self._copy_public, (name for name in fresh if not names.is_last(name)))
        each(self._copy_public, filter(names.is_last, fresh))

    def _copy_public(self, name: str) -> None:
        self.remote.put(name, self.path(name), if_absent=False)

    def _sweep(self) -> None:
        """Remove what nothing names: superseded, destroyed, or left by the killed. Uploads may be under way."""
        found = self.remote.find()
        self.read()  # after the listing: what was put since is not in it
        keep = {HEAD, CLAIM, *BEGUN, *(names.list_key(*item) for item in self.lists.items()), *_keys(self.there)}
        keep |= {name for name in self.there if names.is_public(name)}
        for key in found:
            shard = names.shard_of(key)
            under_way = shard is not None and names.commit_of(shard) not in self.there
            if key not in keep and not key.startswith("marks/") and not under_way:
                self.remote.remove(key)
        self.remote.abort_uploads(older_than_s=_UPLOAD_ENDS_S)

    def _take_begun(self, name: str, data: bytes) -> None:
        path = self.home.root / name
        if path.exists() and path.read_bytes() != data and self.home.committed_shards():
            raise InputError(
                f"{path}: not that of {self.remote.place()}, which holds another collection; name another `bucket` "
                "or another folder"
            )
        durable.write(path, data, replace=True, mode=RESTRICTED_FILE_MODE)


def _keys(copies: Copies) -> set[str]:
    return {names.key_of(name, copy) for name, copy in copies.items()}
