"""How fast an examine was, and what held it back.

Owns the sums over workers, the name of the bottleneck and the advice. Times stand in the journal and on the
console; they are in no identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from pipeline.executors.protocol import Outcome
from pipeline.stages import COUNTS, STAGES

_MODEL_BOUND = 0.85  # from this share of the model's own pace on, only a faster model or device helps
_ADVICE = {
    "read": "input comes slowly: put the shards on a faster disk, or give more workers",
    "inventory": "input comes slowly: put the shards on a faster disk, or give more workers",
    "digests": "input comes slowly: put the shards on a faster disk, or give more workers",
    "decode": "give more workers; smaller pictures, where they can be had, decode faster",
    "hash": "give more workers, or take fewer [hashes] kinds and views in a new collection",
    "view": "give more workers",
    "nets": "pixel nets run on the workers' cores: give more workers, or leave a [[net]] out in a new collection",
    "heads": "give more workers",
    "match": "give more workers, or a machine with more memory bandwidth: long lists wait for memory",
    "canaries": "make the shards larger: canaries are sent through before each of them is committed",
    "write": "put the collection on a faster disk, or make the shards larger",
    "start": "starting took the longest: give more shards to one run",
    "embed": "the model: a GPU, bf16, a larger [embedder] batch or a smaller model, in a new collection",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """Seconds of an examine, by stage and summed over its workers.

    samples: that were handled; images: whose views were embedded. wall_s: from the first task to the last.
    devices: processes that held the model for several workers; 0 where each worker held its own. device_s: seconds
    of forward passes there; waiting: the mean number of batches that stood behind one of them.
    """

    wall_s: float
    workers: int
    devices: int
    samples: int
    images: int
    seconds: dict[str, float]
    device_s: float
    waiting: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, wall_s: float, workers: int, devices: int) -> Profile:
        """Add up what the workers measured."""
        spent = {name: sum(item.spent.get(name, 0.0) for item in outcomes) for name in (*STAGES, *COUNTS)}
        images, batches, device_s, waiting = (spent.pop(name) for name in COUNTS)
        samples = sum(item.samples for item in outcomes)
        depth = waiting / batches if batches else 0.0
        return cls(wall_s, workers, devices, samples, int(images), spent, device_s, depth)

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.wall_s if self.wall_s else 0.0

    @property
    def share(self) -> float | None:
        """What part of the pace that the model alone kept here the whole reached; None without a model.

        1 means that forward passes were under way all the time: on every device, or in every worker.
        """
        busy = self.device_s if self.devices else self.seconds["embed"]
        lanes = self.devices or self.workers
        return min(1.0, busy / (lanes * self.wall_s)) if self.images and self.wall_s else None

    @property
    def bottleneck(self) -> str:
        """The stage that takes the most of what sets the pace."""
        if self.share is not None and self.share >= _MODEL_BOUND:
            return "embed"
        # Where a device has workers, "embed" is only their waiting for it.
        host = {name: spent for name, spent in self.seconds.items() if not (self.devices and name == "embed")}
        return max(host, key=lambda name: host[name])

    def summary(self, price_per_hour: float) -> Iterator[str]:
        """Yield the pace in a line or two."""
        share = "" if self.share is None else f", {self.share:.0%} of the model's own pace here"
        yield f"pace      {self.rate:.1f} images/s with {self.workers} workers{share}"
        if price_per_hour and self.rate:
            cost = price_per_hour / 3600 / self.rate * 1e6
            yield f"cost      {cost:.2f} for a million images at {price_per_hour:.2f} an hour"

    def lines(self) -> Iterator[str]:
        """Yield where the time went, for a person."""
        total = self.wall_s * self.workers
        yield f"{'stage':<12}{'seconds':>10}{'share':>8}{'us/image':>12}"
        for name, spent in self.seconds.items():
            each = spent / self.samples * 1e6 if self.samples else 0.0
            yield f"{name:<12}{spent:>10.2f}{spent / total if total else 0:>8.1%}{each:>12.0f}"
        idle = total - sum(self.seconds.values())
        yield f"{'(no work)':<12}{idle:>10.2f}{idle / total if total else 0:>8.1%}"
        if self.devices:
            use = self.device_s / (self.devices * self.wall_s)
            yield f"devices   {self.devices}, at work {use:.0%} of the time; {self.waiting:.1f} batches waiting"
        yield f"slowest   {self.bottleneck}: {_ADVICE[self.bottleneck]}"

    def record(self) -> dict[str, object]:
        """Return the profile as JSON values."""
        seconds = {name: round(spent, 3) for name, spent in self.seconds.items()}
        told = {"rate": self.rate, "share": self.share, "bottleneck": self.bottleneck}
        return {**asdict(self), "seconds": seconds, **told}
