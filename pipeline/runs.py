"""A whole run: which shards are still to do, examine them, settle them, say how it ended.

Owns resuming, the bounds that refuse a release, and locks. Leaves one shard to `examine.py` and `settle.py`.

- Doing finished work again does nothing and says so.
- A shard is done when its commit is there and its input is the one that was committed. Size and mtime, kept in
  the journal, save reading every input again; where they differ the digest decides.
- `examine` takes the collection's lock shared, `settle` takes it alone; the kernel frees it when we die.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from classifiers.blocklists.shared import share_indexes
from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import canonical_json
from pipeline.errors import CanaryError, InputError, RunError
from pipeline.executors.inline import InlineExecutor
from pipeline.executors.processes import ProcessesExecutor
from pipeline.executors.protocol import Executor, Outcome, Task, WorkerOptions
from pipeline.ingest.shards import ShardSource
from pipeline.progress import show_progress
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
    """How an examine ended: shards done now and before, and the errors of those that could not be."""

    done: int
    skipped: int
    errors: tuple[Outcome, ...]


@contextmanager
def lock(collection: Collection, *, alone: bool) -> Iterator[None]:
    """Hold the collection's lock.

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
        waiting = [source for source in sources if not _is_done(setup, source)]
        settle = setup.collection.next_settle()
        tasks = [Task("examine", source.name, settle) for source in waiting]
        # Noted as each shard ends, with the state from before: a kill must not cost reading finished inputs again,
        # and a file that changes meanwhile must not pass for the one that was examined.
        states = {source.name: _state(source) for source in waiting}

        def note(outcome: Outcome) -> None:
            if not outcome.error:
                _write_note(setup.collection, outcome.shard, states[outcome.shard])

        options = _with_indexes(setup, options, workers) if tasks else options
        with Crew(setup, options, workers=workers) as crew:
            outcomes = crew.run(tasks, what="examine", on_done=note)
    errors = tuple(item for item in outcomes if item.error)
    return Examined(len(waiting) - len(errors), len(sources) - len(waiting), errors)


def retry(setup: Setup, options: WorkerOptions, *, workers: int, reasons: Sequence[str]) -> Examined:
    """Examine the quarantined samples with one of these fault reasons again, in every shard that has some."""
    with lock(setup.collection, alone=False):
        settle = setup.collection.next_settle()
        named = [shard for shard in setup.collection.committed_shards() if setup.source(shard) is not None]
        tasks = [Task("retry", shard, settle, reasons=tuple(reasons)) for shard in named]
        options = _with_indexes(setup, options, workers) if tasks else options
        with Crew(setup, options, workers=workers) as crew:
            outcomes = crew.run(tasks, what="retry")
    errors = tuple(item for item in outcomes if item.error)
    return Examined(sum(item.samples for item in outcomes), len(tasks), errors)


def _with_indexes(setup: Setup, options: WorkerOptions, workers: int) -> WorkerOptions:
    """Return options with the indexes that shard by shard searches need, built once for all workers."""
    if setup.plan.examine.device != "cpu":
        return options  # there the codes are compared on the device
    return replace(options, index_fd=share_indexes(setup.decider.lists, threads=workers))


class Crew:
    """The workers of a run, on as many processes as are asked for; they stay from one kind of task to the next."""

    def __init__(self, setup: Setup, options: WorkerOptions, *, workers: int) -> None:
        self.collection = setup.collection
        self._executor: Executor = InlineExecutor(options)
        if workers > 1:
            self._executor = ProcessesExecutor(options, workers=workers, journal=self.collection.journal)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.close()

    def run(
        self, tasks: Sequence[Task], *, what: str, on_done: Callable[[Outcome], None] = lambda _: None
    ) -> tuple[Outcome, ...]:
        """Do every task, and note in the journal how it went.

        Raises:
            CanaryError: a worker missed a canary; nothing that it matched can be trusted.
        """
        if not tasks:
            return ()
        began, outcomes = time.time(), []
        with show_progress(what, len(tasks), sys.stderr) as progress:
            for outcome in self._executor.run(tasks, progress.rows):
                if outcome.fatal:
                    raise CanaryError(outcome.error)
                outcomes.append(outcome)
                on_done(outcome)
                progress.shard()
        _write_journal(self.collection, what, began, outcomes)
        return tuple(outcomes)


def _write_journal(collection: Collection, what: str, began: float, outcomes: Sequence[Outcome]) -> None:
    began_text = datetime.fromtimestamp(began, UTC).strftime("%Y%m%dT%H%M%S%fZ")
    entry = {
        "what": what,
        "began": began_text,
        "seconds": round(time.time() - began, 3),
        "host": platform.node(),
        "pid": os.getpid(),
        "shards": len(outcomes),
        "samples": sum(item.samples for item in outcomes),
        "errors": [asdict(item) for item in outcomes if item.error],
    }
    path = collection.journal / f"{began_text}-{what}-{os.getpid()}.json"
    durable.write(path, canonical_json(entry) + b"\n", replace=True, mode=RESTRICTED_FILE_MODE)


def _is_done(setup: Setup, source: ShardSource) -> bool:
    collection = setup.collection
    if not collection.commit(source.name).exists():
        return False
    commit = read_commit(collection, source.name, setup.plan)
    note, state = _input_note(collection, source.name), _state(source)
    if note.exists() and note.read_bytes() == state:
        return True
    if (
        _digest_or_none(source.path) == commit.input_sha256
        and _digest_or_none(source.sidecar) == commit.sidecar_sha256
    ):
        _write_note(collection, source.name, state)
        return True
    if commit.damage is None:  # a damaged shard that was replaced is examined again
        raise InputError(
            f"shard {source.name}: {source.path} or its sidecar is not what was examined; restore it, or give the "
            "new content a new name"
        )
    return False


def _input_note(collection: Collection, shard: str) -> Path:
    return collection.journal / f"input-{shard}.json"


def _write_note(collection: Collection, shard: str, state: bytes) -> None:
    durable.write(_input_note(collection, shard), state, replace=True, mode=RESTRICTED_FILE_MODE)


def _state(source: ShardSource) -> bytes:
    state = {}
    for name, path in (("tar", source.path), ("sidecar", source.sidecar)):
        stat = path.stat() if path is not None and path.is_file() else None
        state[name] = None if stat is None else [stat.st_size, stat.st_mtime_ns]
    return canonical_json(state)


def _digest_or_none(path: Path | None) -> str | None:
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
