"""The two plans of a run: everything that shapes features, and everything that shapes decisions.

Owns what enters a plan's digest. Times, hosts, worker counts and paths do not: they change no output.

- Features of two examine plans are never mixed in one collection.
- A new decide plan (lists, policy, bounds) is another settle of the same features.
- Device and precision are resolved once, when a collection is first examined; a node that lacks them refuses.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from manifests.records import SCHEMA_VERSION, digest_json
from pipeline.config import MembersConfig
from pipeline.errors import ConfigError
from pipeline.metadata import MetadataColumn

# Libraries whose version can change a feature.
_SOFTWARE = (
    "numpy",
    "scipy",
    "pillow",
    "simplejpeg",
    "torch",
    "open_clip_torch",
    "imagehash",
    "pywavelets",
    "onnxruntime",
)
# Counts up whenever our own code would make other features of the same bytes.
RECIPE = 1


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Caps that decide whether a picture is judged or becomes a fault."""

    max_bytes: int
    max_pixels: int
    max_frames: int
    cpu_s: int
    wall_s: float
    memory_mb: int
    animated: str


@dataclass(frozen=True, slots=True)
class ExaminePlan:
    """All that shapes a feature."""

    members: MembersConfig
    decode: DecodePlan
    hashes: tuple[str, ...]
    embedder: str
    dims: int
    heads: tuple[str, ...]
    nets: tuple[str, ...]
    texts: tuple[str, ...]
    metadata: tuple[MetadataColumn, ...]
    batch: int
    device: str
    precision: str
    threads: int
    software: tuple[str, ...]
    stamps: tuple[str, ...]
    recipe: int = RECIPE

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        record: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}))
        return record


@dataclass(frozen=True, slots=True)
class ListPlan:
    """A list by id, version and content, what its native categories lead to, and how many canaries it must find."""

    id: str
    version: int
    purpose: str
    radius: int
    radius64: int
    set_digest: str
    entries: int
    effects: tuple[tuple[str, str], ...]
    canaries: int

    @classmethod
    def of(cls, record: dict[str, Any]) -> ListPlan:
        """Return the plan of a list from its JSON values."""
        return cls(**{**record, "effects": tuple((name, effect) for name, effect in record["effects"])})


@dataclass(frozen=True, slots=True)
class DecidePlan:
    """All that shapes a decision or a release, given features; resize: `ReleaseConfig.encoding`."""

    policy: str
    policy_digest: str
    policy_text: str
    rules: tuple[tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]], ...]
    signals: tuple[str, ...]
    lists: tuple[ListPlan, ...]
    max_near_hits_per_entry: int
    overrides: tuple[tuple[str, ...], ...]
    reviews: str
    stamps: tuple[str, ...]
    shards: bool
    max_fault_share_shard: float
    max_fault_share_run: float
    accept_damaged: tuple[str, ...]
    resize: str

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON values; as it always was where images stay as they came."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return record if self.resize else {name: record[name] for name in record if name != "resize"}


@dataclass(frozen=True, slots=True)
class Plan:
    """Both plans, their digests and the `unsafe_` stamps that outputs carry; features carry those of `examine`.

    `judge_digest` covers what decides an action, and so what is withheld: policy and lists, not the bounds and
    forms of a release.
    """

    examine: ExaminePlan
    decide: DecidePlan
    examine_digest: str
    judge_digest: str
    decide_digest: str
    stamps: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return `settled/N/plan.json`."""
        return {"schema": SCHEMA_VERSION, "examine": self.examine.record(), "decide": self.decide.record()}


def make_plan(examine: ExaminePlan, decide: DecidePlan) -> Plan:
    """Bind the two plans to their digests."""
    examine_digest = digest_json(examine.record())
    values = decide.record()
    judged = ("policy_digest", "lists", "max_near_hits_per_entry", "overrides")
    judge_digest = digest_json({name: values[name] for name in judged})
    decide_digest = digest_json({"examine": examine_digest, "decide": values})
    return Plan(examine, decide, examine_digest, judge_digest, decide_digest, (*examine.stamps, *decide.stamps))


def software_versions() -> tuple[str, ...]:
    """Return `name==version` of every library that can change a feature."""
    return tuple(f"{name}=={importlib.metadata.version(name)}" for name in _SOFTWARE)


def read_recorded(path: Path) -> dict[str, Any] | None:
    """Return the examine plan that a collection was begun with, or None for a new collection.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(f"{path}: not valid JSON; restore it from a copy of the collection") from None
    return record


def check_same_plan(recorded: dict[str, Any], plan: Plan, *, path: Path) -> None:
    """Refuse to go on in a collection that was examined under another plan.

    Raises:
        ConfigError: naming the parts that differ.
    """
    now = plan.examine.record()
    if recorded == now:
        return
    parts = [
        f"{name} (was {_short(recorded.get(name))}, now {_short(now.get(name))})"
        for name in sorted(recorded.keys() | now.keys())
        if recorded.get(name) != now.get(name)
    ]
    raise ConfigError(
        f"{path.parent}: holds features of another examine plan; these differ: {'; '.join(parts)}. Features of two "
        "plans are never mixed: restore the configuration and environment, or name a new collection"
    )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else text[:157] + "..."
