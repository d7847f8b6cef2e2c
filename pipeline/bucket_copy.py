"""The folder of a collection as a working copy of what lies in its bucket: compared file by file, brought, put.

Owns what happens to a file that is not the same here and there. Leaves the order of writes there to `bucket.py`.

- Each file is compared with what it was when folder and bucket last agreed: what changed on one side goes to the
  other, what changed on both is refused. Only what a record says is destroyed or superseded is ever removed.
- A file that comes is the one that was put, by digest, or it does not stay; its time comes with it, for retention.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Collection as Names
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TypeVar

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.commits import ExamineCommit
from manifests.lifetime import destroyed_names
from manifests.records import canonical_json
from pipeline import bucket_names as names
from pipeline.bucket_names import CHECKPOINT, CURRENT, HEAD, Copies, Copy
from pipeline.errors import InputError
from pipeline.remote import Remote

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")

_AT_ONCE = 16


@dataclass(slots=True)
class WorkingCopy:
    """A folder, which has a name of its own, and a bucket.

    files: as they were when both last agreed. there: as the bucket has them. head: those of them that `head` names,
    by `lists`, in the state `head_state`.
    """

    home: Collection
    remote: Remote
    folder: str
    files: Copies = field(default_factory=dict)
    there: Copies = field(default_factory=dict)
    head: Copies = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    head_state: str = ""

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Keep other processes of this folder out, and keep in mind what folder and bucket agree on."""
        folder = os.open(self.home.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            record = json.loads(self.home.bucket_record.read_bytes())
            self.files = {name: Copy(*values) for name, values in record["files"].items()}
            yield
            record["files"] = {name: astuple(copy) for name, copy in self.files.items()}
            durable.write(self.home.bucket_record, canonical_json(record), replace=True, mode=RESTRICTED_FILE_MODE)
        finally:
            os.close(folder)

    def read(self, shards: Names[str] | None = None) -> None:
        """Learn what the bucket has: all that `head` names, and marks of other shards, all or those named."""
        state = self.remote.state(HEAD)
        self.head_state = state[1] if state else ""
        self.lists = names.decode_head(self.remote.read(HEAD), self.remote.place(HEAD)) if state else {}
        self.head = self._read_copies([names.list_key(*item) for item in self.lists.items()])
        named = () if shards is not None and not shards else self.remote.find("marks/*.json")
        wanted = set(named if shards is None else map(names.mark_of, shards)) - {
            names.mark_of(shard) for name in self.head if (shard := names.shard_of(name)) is not None
        }
        self.there = self.head | self._read_copies(sorted(wanted & set(named)))

    def _read_copies(self, keys: list[str]) -> Copies:
        read = zip(keys, each(self.remote.read, keys), strict=True)
        return {
            name: copy for key, data in read for name, copy in names.decode(data, self.remote.place(key)).items()
        }

    def bring(self, wanted: Iterable[str]) -> None:
        """Let these files be here what they are there, where they were not changed here."""
        fetched: list[str] = []
        gone: list[str] = []
        destroyed = destroyed_names(self.home)
        for name in wanted:
            ours, before, theirs = self.ours(name), self.files.get(name), self.there.get(name)
            if names.same(ours, theirs):
                self.files.pop(name, None)
                if ours is not None:
                    self.files[name] = ours
            elif names.same(before, theirs):
                if ours is None and name not in destroyed and not self._rewritten(name):
                    fetched.append(name)
            elif not names.same(ours, before) and not (before is None and self._is_first(name)):
                raise InputError(
                    f"{self.path(name)}: was changed here and in {self.remote.place()}; move the folder "
                    "away and pull, or restore the file"
                )
            else:
                (gone if theirs is None else fetched).append(name)
        each(self._fetch, (name for name in fetched if not names.is_last(name)))
        each(self._fetch, filter(names.is_last, fetched))
        destroyed = destroyed_names(self.home)
        for name in gone:
            if name in destroyed or names.marker_of(name) in self.there:  # else it is lost there, and goes up again
                self.path(name).unlink(missing_ok=True)
                self.files.pop(name)

    def put(self, item: tuple[str, Copy]) -> None:
        """Put a file of the folder, unless it is there."""
        name, copy = item
        key = names.key_of(name, copy)
        there = self.remote.state(key) if key != name else None
        if there is None or there[0] != copy.size:
            self.remote.put(key, self.path(name), if_absent=False)

    def path(self, name: str) -> Path:
        """Return where a file lies in the folder."""
        return self.home.current if name == CURRENT else self.home.path_of(name)

    def ours(self, name: str) -> Copy | None:
        """Return a file as it is in the folder, if it is."""
        return Copy.of(self.path(name), self.files.get(name))

    def _rewritten(self, name: str) -> bool:
        """Say whether what a file counts with was changed here, so that it may be superseded."""
        marker = names.marker_of(name)
        return marker is not None and not names.same(self.ours(marker), self.files.get(marker))

    def _is_first(self, name: str) -> bool:
        """Say whether a file is of a shard that another writer was first to examine."""
        marker = names.marker_of(name)
        if marker is None or marker == CHECKPOINT:
            return False
        path = self.path(marker)
        taken = not path.exists() or names.same(self.ours(marker), self.there.get(marker))
        return taken or not ExamineCommit.read(path).rewrites

    def _fetch(self, name: str) -> None:
        path, copy, public = (
            self.path(name),
            self.there[name],
            name.startswith("releases/") or names.is_public(name),
        )
        durable.make_folder(path.parent, mode=0o755 if public else RESTRICTED_FOLDER_MODE)
        key = names.key_of(name, copy)
        if self.remote.fetch(key, path, mode=0o644 if public else RESTRICTED_FILE_MODE) != copy.sha256:
            path.unlink()
            raise InputError(f"{self.remote.place(key)}: not what was put there; pull again, or restore the object")
        os.utime(path, ns=(copy.mtime_ns, copy.mtime_ns))
        self.files[name] = copy


def each(call: Callable[[ItemT], DoneT], items: Iterable[ItemT]) -> list[DoneT]:
    """Call for each item, several at a time; after an error nothing new is begun."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(call, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
