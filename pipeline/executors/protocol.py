"""What an executor is: a way to do one task on many shards.

- Every shard handed in comes out in exactly one `Outcome`, in any order.
- An error is an outcome: the other shards go on, and the caller decides the exit code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pipeline.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with one shard. `reasons` are the quarantine reasons that a retry takes up.

    hits: the list hits of a shard to settle, as an Arrow stream in base64; it passes through a pipe and is
    written nowhere.
    """

    kind: Literal["examine", "judge", "settle", "scan", "retry"]
    shard: str
    settle: int
    release: bool = False
    reasons: tuple[str, ...] = ()
    hits: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task; `error` is empty where it was done. `fatal` means that no other may be done.

    spent: seconds by stage and counts of the worker's clock since its last task (`stages.StageClock`).
    """

    shard: str
    samples: int = 0
    error: str = ""
    exit_code: ExitCode = ExitCode.FINISHED
    fatal: bool = False
    spent: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is started with: the configuration, what the command line overrides, and the run's lists.

    policy: another policy, a file or a profile. lists: those that are used, `id` or `id@version`, in the place of
    the configured ones. shards: whether tars are written. from_stored: the input may be gone.
    lists_fd, index_fd: shared memory (`classifiers.blocklists.shared`); None before the lists are read, and where
    no list needs an index. readable: whether the run found a key that opens what it seals; None before it looked.
    share: how many workers use one process that holds the model; 0: each its own. devices: such processes, one a
    GPU. device_fd: a worker's connection to its process.
    """

    config: Path
    device: str = "auto"
    policy: str = ""
    lists: tuple[str, ...] = ()
    shards: bool | None = None
    from_stored: bool = False
    lists_fd: int | None = None
    index_fd: int | None = None
    readable: bool | None = None
    device_fd: int | None = None
    share: int = 0
    devices: int = 0

    @classmethod
    def read(cls, text: str) -> WorkerOptions:
        """Return the options that `text` spells."""
        raw = json.loads(text)
        return cls(**{**raw, "config": Path(raw["config"]), "lists": tuple(raw["lists"])})

    @property
    def text(self) -> str:
        """The options as a worker process is told them."""
        return json.dumps({**asdict(self), "config": str(self.config)})

    @property
    def fds(self) -> tuple[int, ...]:
        """What a worker process must inherit."""
        return tuple(fd for fd in (self.lists_fd, self.index_fd, self.device_fd) if fd is not None)


OnRows = Callable[[int], None]


class Executor(Protocol):
    """Runs tasks, as often as it is asked to; `on_rows` is told how many samples more were handled."""

    def run(self, tasks: Sequence[Task], on_rows: OnRows) -> Iterator[Outcome]:
        """Do every task, yielding its outcome as it ends."""
        ...

    def close(self) -> None:
        """End its workers."""
        ...
