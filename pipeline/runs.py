"""A whole run: which shards are still to do, examine them, settle them, say how it ended.

Owns resuming, the bounds that refuse a release, and locks. Leaves one shard to `examine.py` and `settle.py`.

- Doing finished work again does nothing and says so.
- A shard is done when its commit is there and its input is the one that was committed. Size and mtime, kept in
  the journal, save reading every input again; where they differ the digest decides.
- `examine` takes the collection's lock shared, `settle` takes it alone; the kernel frees it when we die.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import canonical_json
from pipeline.crew import Crew, share
from pipeline.errors import InputError, RunError
from pipeline.executors.protocol import Outcome, Task, WorkerOptions
from pipeline.ingest.shards import ShardSource
from pipeline.mirroring import mirrored, open_bucket
from pipeline.run_profile import Profile
from pipeline.settle import read_commit
from pipeline.setup import Setup, begin


@dataclass(frozen=True, slots=True)
class Part:
    """Share i of n of the shards (from 1), for array jobs: every n-th shard of the sorted names."""

    index: int = 1
    count: int = 1

    def of(self, sources: Sequence[ShardSource]) -> tuple[ShardSource, ...]:
        """Return the shards of this part."""
        return tuple(sources[self.index - 1 :: self.count])


@dataclass(frozen=True, slots=True)
class Examined:
    """How an examine ended: shards done now and before, errors of those that could not be, and how fast it was."""

    done: int
    skipped: int
    errors: tuple[Outcome, ...]
    profile: Profile | None = None


@contextmanager
def lock(collection: Collection, *, alone: bool) -> Iterator[None]:
    """Hold the collection's lock and, to be alone in a collection that lives in a bucket, the claim there.

    Raises:
        RunError: another process holds it in a way that excludes us.
    """
    with (collection.journal / "lock").open("ab") as file:
        os.fchmod(file.fileno(), RESTRICTED_FILE_MODE)
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{collection.root}: another shardscrub is at work in this collection; wait for it to end"
            ) from None
        with mirrored(collection) if alone else nullcontext():
            yield


def examine_all(setup: Setup, options: WorkerOptions, *, workers: int, part: Part) -> Examined:
    """Examine every shard of `part` that is not examined yet.

    Raises:
        InputError: an examined shard's input has changed.
        RunError: a settle is under way in the collection.
    """
    setup.collection.make()
    with lock(setup.collection, alone=False):
        begin(setup)
        sources = part.of(setup.sources)
        bucket = open_bucket(setup.collection)
        if bucket is not None:
            bucket.begin([source.name for source in sources])
        waiting = [source for source in sources if not _is_done(setup, source)]
        settle = setup.collection.next_settle()
        tasks = [Task("examine", source.name, settle) for source in waiting]
        # Noted as each shard ends, with the state from before: a kill must not cost reading finished inputs again,
        # and a file that changes meanwhile must not pass for the one that was examined.
        states = {source.name: _state(source) for source in waiting}

        def note(outcome: Outcome) -> None:
            if not outcome.error and (bucket is None or bucket.add(outcome.shard)):
                _write_note(setup.collection, outcome.shard, states[outcome.shard])

        options = share(setup, options, workers) if tasks else options
        with Crew(setup, options, workers=workers) as crew:
            outcomes = crew.run(tasks, what="examine", on_done=note)
    errors = tuple(item for item in outcomes if item.error)
    return Examined(len(waiting) - len(errors), len(sources) - len(waiting), errors, crew.profile)


def retry(setup: Setup, options: WorkerOptions, *, workers: int, reasons: Sequence[str]) -> Examined:
    """Examine the quarantined samples with one of these fault reasons again, in every shard that has some."""
    with lock(setup.collection, alone=True):
        settle = setup.collection.next_settle()
        named = [shard for shard in setup.collection.committed_shards() if setup.source(shard) is not None]
        tasks = [Task("retry", shard, settle, reasons=tuple(reasons)) for shard in named]
        options = share(setup, options, workers) if tasks else options
        with Crew(setup, options, workers=workers) as crew:
            outcomes = crew.run(tasks, what="retry")
    errors = tuple(item for item in outcomes if item.error)
    return Examined(sum(item.samples for item in outcomes), len(tasks), errors, crew.profile)


def _is_done(setup: Setup, source: ShardSource) -> bool:
    collection = setup.collection
    if not collection.commit(source.name).exists():
        return False
    commit = read_commit(collection, source.name, setup.plan)
    note, state = _input_note(collection, source.name), _state(source)
    if note.exists() and note.read_bytes() == state:
        return True
    if source.opened().digests() == (commit.input_sha256, commit.sidecar_sha256):
        _write_note(collection, source.name, state)
        return True
    if commit.damage is None:  # a damaged shard that was replaced is examined again
        raise InputError(
            f"shard {source.name}: {source.place} or its sidecar is not what was examined; restore it, or give the "
            "new content a new name"
        )
    return False


def _input_note(collection: Collection, shard: str) -> Path:
    return collection.journal / f"input-{shard}.json"


def _write_note(collection: Collection, shard: str, state: bytes) -> None:
    durable.write(_input_note(collection, shard), state, replace=True, mode=RESTRICTED_FILE_MODE)


def _state(source: ShardSource) -> bytes:
    return canonical_json(dict(zip(("tar", "sidecar"), source.state(), strict=True)))
