"""What a policy would do to the stored samples of a collection: counts by rule, and a sweep of every threshold.

Owns the counting. Decides by the very path of a settle, shard by shard, and writes nothing.

- A sample that is withheld already is counted as that and never looked at again.
- In a sweep one threshold moves and all else stands; what it counts are samples that would not be kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.features import ShardFeatures
from manifests.records import Action
from pipeline.commit import Decider
from pipeline.hits import HITS_SCHEMA
from pipeline.list_signals import signal_columns
from pipeline.policy import Policy, decide, thresholds
from pipeline.policy_language import And, Comparison, Expression, Or
from pipeline.settle import NOT_MATCHED, load_features, read_commit
from pipeline.settle_matches import match_collection
from pipeline.setup import Setup, settle_search
from pipeline.verdicts import SampleDecisions

SWEEP = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.9, 0.95, 0.98)
_DISTANCES = (0, 7, 15, 23, 31, 47, 63)


@dataclass(slots=True)
class Preview:
    """Counts so far. reasons: samples by action and reason. sweeps: not kept, by threshold and bar."""

    samples: int = 0
    kept: int = 0
    withheld_before: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    sweeps: dict[Comparison, Counter[float]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield what was counted."""
        yield f"samples   {self.samples}, of which {self.kept} would be kept"
        if self.withheld_before:
            yield f"withheld  {self.withheld_before} before, which this changes nothing about"
        for (action, reason), count in sorted(self.reasons.items(), key=lambda item: (-item[1], item[0])):
            yield f"{count:>9}  {action} {reason}"
        for one, counts in self.sweeps.items():
            shares = "  ".join(f"{bar:g}: {counts[bar] / max(1, self.samples):.2%}" for bar in sorted(counts))
            yield f"not kept with {one.signal} {one.op} (now {one.bar:g}): {shares}"


def preview(setup: Setup, *, threads: int) -> Preview:
    """Decide every stored sample under the configuration's policy and lists, in memory.

    Raises:
        ConfigError: the collection was examined under another plan.
        CanaryError: a canary was missed.
    """
    collection, found = setup.collection, Preview()
    commits = [read_commit(collection, shard, setup.plan) for shard in collection.committed_shards()]
    matched = match_collection(collection, commits, setup.decider, settle_search(setup, threads=threads))
    for commit in commits:
        features = load_features(collection, commit, without=NOT_MATCHED)
        hits = matched.hits.get(commit.shard, HITS_SCHEMA.empty_table())
        decisions = setup.decider.decide(features, hits)
        _count(found, decisions)
        _sweep(found, features, hits, decisions, setup.decider)
    return found


def sweep_scores(shards: Iterable[Mapping[str, NDArray[np.float32]]]) -> Iterator[str]:
    """Yield for each score the share of known values at or over each bar of `SWEEP`, over all shards."""
    over: dict[str, NDArray[np.int64]] = {}
    known: Counter[str] = Counter()
    for scores in shards:
        for name, values in scores.items():
            said = values[~np.isnan(values)]
            known[name] += len(said)
            counts = [int((said >= np.float32(bar)).sum()) for bar in SWEEP]
            over[name] = over.get(name, np.zeros(len(SWEEP), np.int64)) + counts
    for name, counted in over.items():
        if known[name]:
            shares = "  ".join(f"{bar:g}: {n / known[name]:.1%}" for bar, n in zip(SWEEP, counted, strict=True))
            yield f"at or over {name}: {shares} (n = {known[name]})"


def stored_scores(setup: Setup) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """Yield the scores of every examined shard."""
    for shard in setup.collection.committed_shards():
        commit = read_commit(setup.collection, shard, setup.plan)
        yield load_features(setup.collection, commit, without=NOT_MATCHED).scores


def moved(policy: Policy, threshold: Comparison, bar: float) -> Policy:
    """Return the policy with one threshold at another bar, wherever its rules hold it."""

    def put(expression: Expression) -> Expression:
        if isinstance(expression, Comparison):
            return replace(expression, bar=bar) if expression == threshold else expression
        parts = tuple(put(part) for part in expression.parts)
        return And(parts) if isinstance(expression, And) else Or(parts)

    return replace(policy, rules=tuple(replace(rule, when=put(rule.when)) for rule in policy.rules), never_kept=())


def _count(found: Preview, decisions: SampleDecisions) -> None:
    before = decisions.actions < 0
    found.samples += len(before)
    found.withheld_before += int(before.sum())
    found.kept += int(((decisions.actions == Action.KEEP) & ~decisions.withheld).sum())
    now = decisions.table.filter(pa.array(~before & (decisions.actions != Action.KEEP)))
    found.reasons.update(zip(now["action"].to_pylist(), now["reason"].to_pylist(), strict=True))


def _sweep(
    found: Preview, features: ShardFeatures, hits: pa.Table, decisions: SampleDecisions, decider: Decider
) -> None:
    policy = decider.policy.of_shard(features.table["shard"][0].as_py() if features.table.num_rows else "")
    columns = signal_columns(features, hits, decider.lists, policy.signals)
    index = features.indices()
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    actual = _not_kept(decide(policy, columns).action, starts)
    # Faults and capped hits are no rule's: they stay as they are, wherever a bar stands.
    always = (decisions.actions != Action.KEEP) & ~actual
    for signal, op, now in thresholds(policy):
        threshold = Comparison(signal, op, now)
        counts = found.sweeps.setdefault(threshold, Counter())
        for bar in _bars(threshold, decider):
            action = decide(moved(policy, threshold, bar), columns).action
            counts[bar] += int((_not_kept(action, starts) | always).sum())


def _bars(threshold: Comparison, decider: Decider) -> tuple[float, ...]:
    if threshold.op in (">=", ">"):
        return () if threshold.signal.startswith("list.") else SWEEP
    if not threshold.signal.endswith("pdq_distance"):
        return ()
    return tuple(bar for bar in _DISTANCES if bar <= min((item.radius for item in decider.lists), default=-1))


def _not_kept(action: NDArray[np.int8], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.logical_or.reduceat(action != Action.KEEP, starts) if len(starts) else np.zeros(0, np.bool_)
