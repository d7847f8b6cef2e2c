"""One worker: builds its tools once and does task after task.

Owns turning a task into calls of `examine.py` and `settle.py`, and every error into an outcome. Started in
process by the inline executor, or as `python -m pipeline.worker OPTIONS TASKS_FD ANSWERS_FD PARENT`.

- Before its first shard a worker must find the canaries; each later shard is committed only after it found them.
- An unexpected error is reported by its type and place only: its text may hold what must not be printed. The
  whole of it, but for its text, goes to the restricted journal.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE
from manifests.decisions import ConservationError
from manifests.features import faulted_samples
from manifests.keyed import KnownKeys, read_secret
from manifests.leaks import NotKept, find_shard_leaks, find_unkept, read_unkept, write_unkept
from manifests.records import FilesError
from manifests.schema import read
from pipeline.errors import CanaryError, DeviceError, ExitCode, RunError, ScrubError
from pipeline.examine import Examiner, examine_shard, retry_samples
from pipeline.examiners import make_examiner
from pipeline.executors.protocol import OnRows, Outcome, Task, WorkerOptions
from pipeline.hits import decode_hits
from pipeline.resize import open_encoder
from pipeline.reviews import read_reviews
from pipeline.settle import Settler, judge_shard, read_commit, settle_shard
from pipeline.setup import Setup, load_setup
from pipeline.spread import Spread, merge, read_around, read_spread, working

_PR_SET_PDEATHSIG = 1


class Worker:
    """Does tasks, one at a time."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._setup: Setup | None = None
        self._examiner: Examiner | None = None
        self._settling: Settler | None = None  # tasks of a kind come together, and of one settle
        self._settling_kind = ""
        self._unkept: tuple[KnownKeys, KnownKeys] | None = None
        self._stack = ExitStack()

    def close(self) -> None:
        """End what it started."""
        self._stack.close()

    def do(self, task: Task, on_rows: OnRows) -> Outcome:
        """Do one task; whatever goes wrong is in the outcome."""
        try:
            samples = self._do(task, on_rows)
            spent = self._examiner.clock.take() if self._examiner else {}
            return Outcome(task.shard, samples=samples, spent=spent)
        except ScrubError as error:
            fatal = isinstance(error, CanaryError | DeviceError)
            return Outcome(task.shard, error=str(error), exit_code=error.exit_code, fatal=fatal)
        except (FilesError, ConservationError) as error:
            return Outcome(task.shard, error=str(error), exit_code=ExitCode.FAILED)
        except OSError as error:
            text = f"shard {task.shard}: {os.strerror(error.errno) if error.errno else type(error).__name__}"
            return Outcome(task.shard, error=f"{text}{_where(error)}", exit_code=ExitCode.FAILED)
        except Exception as error:  # noqa: BLE001 - the boundary of a shard: reported by type, recorded in full
            return Outcome(task.shard, error=self._record(task, error), exit_code=ExitCode.FAILED)

    def _ready(self) -> Setup:
        if self._setup is None:
            self._setup = load_setup(self._options)
        return self._setup

    def _settler(self, task: Task) -> Settler:
        setup = self._ready()
        if self._settling is None or self._settling_kind != task.kind:
            self._settling_kind = task.kind
            around = read_around(setup.collection, task.settle)
            resizes = task.kind == "settle" and task.release and setup.plan.decide.resize
            self._settling = Settler(
                setup.collection,
                setup.plan,
                setup.config.members,
                setup.decider,
                task.settle,
                task.release,
                setup.config.release.shards,
                read_spread(setup.collection, task.settle) if task.kind == "settle" else Spread(merge([])),
                read_secret(setup.collection),
                around.found,
                around.hides,
                read_reviews(setup.collection),
                self._stack.enter_context(open_encoder(setup)) if resizes else None,
            )
        return self._settling

    def _do(self, task: Task, on_rows: OnRows) -> int:
        setup = self._ready()
        if task.kind in ("judge", "settle", "scan"):
            samples = self._settle(task, setup)
            on_rows(samples)
            return samples
        if self._examiner is None:
            self._examiner = self._stack.enter_context(make_examiner(setup, on_rows, self._options))
            self._examiner.canaries.check(self._examiner.models, self._examiner.decoder, setup.decider)
        source = setup.source(task.shard)
        if source is None:
            raise RunError(f"shard {task.shard}: not named by the configuration's [[input]]")
        if task.kind == "examine":
            return examine_shard(source, self._examiner, settle=task.settle).samples
        return self._retry(task, setup)

    def _settle(self, task: Task, setup: Setup) -> int:
        folder = working(setup.collection, task.settle)
        if task.kind == "scan":
            if self._unkept is None:
                self._unkept = NotKept.join(read_unkept(path) for path in sorted(folder.glob("*.unkept"))).known()
            leaks = list(find_shard_leaks(setup.collection, task.settle, task.shard, self._unkept))
            if leaks:
                raise RunError("\n".join(leaks) + "\nthe release would hold what is not kept")
            return 0
        hits = decode_hits(task.hits)
        if task.kind == "judge":
            return judge_shard(task.shard, hits, self._settler(task))
        samples = settle_shard(task.shard, setup.source(task.shard), hits, self._settler(task)).samples
        if task.release:
            write_unkept(folder / f"{task.shard}.unkept", find_unkept(setup.collection, task.settle, task.shard))
        return samples

    def _retry(self, task: Task, setup: Setup) -> int:
        assert self._examiner is not None
        source = setup.source(task.shard)
        assert source is not None
        commit = read_commit(setup.collection, task.shard, setup.plan)
        table = read(setup.collection.examined / commit.features.name, sha256=commit.features.sha256)
        faults = faulted_samples(table)
        indices = np.array(sorted(i for i, kind in faults.items() if kind in task.reasons), np.int32)
        if len(indices):
            retry_samples(source, self._examiner, indices=indices, commit=commit, settle=task.settle)
        return len(indices)

    def _record(self, task: Task, error: Exception) -> str:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
        if self._setup is None:
            return f"shard {task.shard}: internal error ({place})"
        path = self._setup.collection.journal / f"error-{task.kind}-{task.shard}.txt"
        text = "".join(_trace(error))
        durable.write(path, text.encode("utf-8", "replace"), replace=True, mode=RESTRICTED_FILE_MODE)
        return f"shard {task.shard}: internal error ({place}); {path} holds the details (restricted)"


def _trace(error: BaseException | None) -> Iterator[str]:
    """Yield where an error came from, without its words: they may be those of a sample that is to be withheld."""
    while error is not None:
        yield from (*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n")
        error = error.__cause__ or error.__context__


def _where(error: OSError) -> str:
    return f": {error.filename}" if isinstance(error.filename, str) else ""


def die_with(parent: int) -> None:
    """Let the kernel kill this process when `parent` dies, and leave interrupts to it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(ExitCode.FAILED)  # it died before it could be watched
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle


def _serve(options: WorkerOptions, tasks_fd: int, answers_fd: int) -> None:
    with (
        os.fdopen(tasks_fd, "rb") as tasks,
        os.fdopen(answers_fd, "wb") as answers,
        closing(Worker(options)) as worker,
    ):

        def answer(value: object) -> None:
            answers.write(json.dumps(value).encode() + b"\n")
            answers.flush()

        for line in tasks:
            raw = json.loads(line)
            task = Task(**{**raw, "reasons": tuple(raw["reasons"])})
            outcome = worker.do(task, lambda rows: answer({"rows": rows}))
            answer({**asdict(outcome), "exit_code": int(outcome.exit_code)})


def main(arguments: list[str]) -> None:
    """Serve tasks over pipes until they end."""
    given, tasks_fd, answers_fd, parent = arguments
    die_with(int(parent))
    options = WorkerOptions.read(given)
    _serve(options, int(tasks_fd), int(answers_fd))


if __name__ == "__main__":
    main(sys.argv[1:])
