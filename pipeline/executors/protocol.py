"""What an executor is: a way to do one task on many shards.

- Every shard handed in comes out in exactly one `Outcome`, in any order.
- An error is an outcome: the other shards go on, and the caller decides the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pipeline.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with one shard. `reasons` are the quarantine reasons that a retry takes up."""

    kind: Literal["examine", "settle", "retry"]
    shard: str
    settle: int
    release: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task; `error` is empty where it was done."""

    shard: str
    samples: int = 0
    error: str = ""
    exit_code: ExitCode = ExitCode.FINISHED


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker process is started with: the configuration and what the command line overrides."""

    config: Path
    device: str = "auto"


OnRows = Callable[[int], None]


class Executor(Protocol):
    """Runs tasks; `on_rows` is told how many samples more were handled."""

    def run(self, tasks: Sequence[Task], on_rows: OnRows) -> Iterator[Outcome]:
        """Do every task, yielding its outcome as it ends."""
        ...
