"""Where the time of a worker goes: seconds by stage, and what the device did meanwhile.

Owns the clock. Leaves adding up and advice to `profile`. Times are the journal's: they are in no identity.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

COUNTS = ("images", "batches", "device_s", "waiting")
Item = TypeVar("Item")

# In the order in which an image meets them.
STAGES = (
    "start", "inventory", "digests", "read", "decode", "hash", "view", "nets", "embed", "heads", "match",
    "canaries", "write",
)  # fmt: skip


@dataclass(slots=True)
class StageClock:
    """Seconds by stage; a stage inside another stops the outer one's clock. One a worker, one thread.

    images: whose views were embedded. Where another process holds the model, device_s are its seconds of forward
    passes for this worker, and waiting the batches that stood behind one of this worker's, summed over `batches`.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    images: int = 0
    batches: int = 0
    device_s: float = 0.0
    waiting: int = 0
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for a stage."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; the time that they take to come counts for a stage."""
        source = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def device(self, busy_s: float, waiting: int) -> None:
        """Note a forward pass in another process."""
        self.batches += 1
        self.device_s += busy_s
        self.waiting += waiting

    def take(self) -> dict[str, float]:
        """Return all that was counted, and begin at 0."""
        counts = {
            "images": self.images,
            "batches": self.batches,
            "device_s": self.device_s,
            "waiting": self.waiting,
        }
        taken = {**self.seconds, **counts}
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.images = self.batches = self.waiting = 0
        self.device_s = 0.0
        return taken

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
