"""The workers of a run: how many there are, what they share, how they did.

Owns what is made once for all workers (indexes of lists, processes that hold the model) and the journal's note.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import TracebackType

from classifiers.blocklists.shared import share_indexes
from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE
from manifests.records import canonical_json
from pipeline.errors import RunError
from pipeline.executors.inline import InlineExecutor
from pipeline.executors.processes import ProcessesExecutor
from pipeline.executors.protocol import Executor, Outcome, Task, WorkerOptions
from pipeline.progress import show_progress
from pipeline.run_profile import Profile
from pipeline.setup import Setup


def share(setup: Setup, options: WorkerOptions, workers: int) -> WorkerOptions:
    """Return options with what the workers of an examine share.

    On a GPU, or where it is asked for, one process a device holds the model for them; where codes are compared by
    the workers, the indexes of the lists are built once.
    """
    plan = setup.plan.examine
    if plan.embedder and workers > 1 and (plan.device == "cuda" or setup.config.run.share_model):
        devices = 1
        if plan.device == "cuda":
            import torch  # noqa: PLC0415 - a second that a run without a GPU does without

            devices = torch.cuda.device_count()
        options = replace(options, share=-(-workers // devices), devices=devices)
    if plan.device == "cpu" or options.share:
        options = replace(options, index_fd=share_indexes(setup.decider.lists, threads=workers))
    return options


class Crew:
    """The workers of a run, on as many processes as are asked for; they stay from one kind of task to the next.

    profile: where the time of the last kind went, if it was one that keeps account of it.
    """

    def __init__(self, setup: Setup, options: WorkerOptions, *, workers: int) -> None:
        self.collection = setup.collection
        self.profile: Profile | None = None
        self._workers, self._devices = workers, options.devices
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
            RunError: a worker missed a canary, or lost the model; no shard can be done.
        """
        if not tasks:
            return ()
        began, outcomes = time.time(), []
        with show_progress(what, len(tasks), sys.stderr) as progress:
            for outcome in self._executor.run(tasks, progress.rows):
                if outcome.fatal:
                    error = RunError(outcome.error)
                    error.exit_code = outcome.exit_code
                    raise error
                outcomes.append(outcome)
                on_done(outcome)
                progress.shard()
        if any(item.spent for item in outcomes):
            workers = min(self._workers, len(tasks))
            wall_s = time.time() - began
            self.profile = Profile.of(outcomes, wall_s=wall_s, workers=workers, devices=self._devices)
        self._write_journal(what, began, outcomes)
        return tuple(outcomes)

    def _write_journal(self, what: str, began: float, outcomes: Sequence[Outcome]) -> None:
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
            "profile": None if self.profile is None else self.profile.record(),
        }
        path = self.collection.journal / f"{began_text}-{what}-{os.getpid()}.json"
        durable.write(path, canonical_json(entry) + b"\n", replace=True, mode=RESTRICTED_FILE_MODE)
