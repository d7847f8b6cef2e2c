"""The plainest executor: one shard after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.executors.protocol import OnRows, Outcome, Task, WorkerOptions
from pipeline.worker import Worker


class InlineExecutor:
    """Runs tasks in this process, in order."""

    def __init__(self, options: WorkerOptions) -> None:
        self._worker = Worker(options)

    def run(self, tasks: Sequence[Task], on_rows: OnRows) -> Iterator[Outcome]:
        """Do every task, yielding its outcome as it ends."""
        for task in tasks:
            yield self._worker.do(task, on_rows)

    def close(self) -> None:
        """End what the worker started."""
        self._worker.close()
