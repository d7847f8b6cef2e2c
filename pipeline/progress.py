"""How far a run is: a bar with rate and time left on a terminal, plain lines elsewhere.

Knows counts of samples and shards, nothing about any of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 10.0


class Ticker(Protocol):
    """Takes counts as they come."""

    def rows(self, count: int) -> None:
        """So many samples more were handled."""
        ...

    def shard(self) -> None:
        """One shard more is done."""
        ...


class PlainProgress:
    """A line every few seconds."""

    def __init__(self, what: str, shards: int, out: TextIO) -> None:
        self._what, self._total, self._out = what, shards, out
        self._shards = self._rows = 0
        self._began = self._printed = time.monotonic()

    def rows(self, count: int) -> None:
        """So many samples more were handled."""
        self._rows += count
        if time.monotonic() - self._printed >= PLAIN_INTERVAL_S:
            self._line()

    def shard(self) -> None:
        """One shard more is done."""
        self._shards += 1
        if self._shards == self._total or time.monotonic() - self._printed >= PLAIN_INTERVAL_S:
            self._line()

    def _line(self) -> None:
        self._printed = time.monotonic()
        elapsed = self._printed - self._began
        rate = self._rows / elapsed if elapsed > 0 else 0.0
        left = elapsed / self._shards * (self._total - self._shards) if self._shards else 0.0
        done = f"{self._what}: {self._shards}/{self._total} shards, {self._rows} rows"
        self._out.write(f"{done}, {rate:.1f}/s, {left:.0f} s left\n")
        self._out.flush()


@contextmanager
def show_progress(what: str, shards: int, out: TextIO) -> Iterator[Ticker]:
    """Show progress over `shards` shards on `out` while the block runs."""
    if not out.isatty():
        yield PlainProgress(what, shards, out)
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=out)) as bar:
        yield _BarProgress(bar, bar.add_task(what, total=shards, rate=""))


class _BarProgress:
    """A bar over shards with the rate of rows beside it."""

    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar, self._task = bar, task
        self._rows, self._began = 0, time.monotonic()

    def rows(self, count: int) -> None:
        """So many samples more were handled."""
        self._rows += count
        self._bar.update(self._task, rate=f"{self._rows / max(time.monotonic() - self._began, 1e-9):.1f} rows/s")

    def shard(self) -> None:
        """One shard more is done."""
        self._bar.advance(self._task)
