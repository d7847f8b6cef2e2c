"""From features to decisions: one column per signal, one action per sample.

Owns how list matches and scores become signals, how the rows of one sample become one decision, and what is
withheld. Does no I/O; the rules themselves are the policy's.

- NaN means "could not say". A fault never becomes a number.
- The strictest action over all rows of a sample decides; a faulted sample is at least QUARANTINE.
- A copied (unjudged by choice) member is joined to the exact lists and counts only where a rule acts on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.lists import HashList
from manifests.features import ShardFeatures
from manifests.records import Action
from manifests.schema import decision_schema
from pipeline.list_signals import DISTANCE, signal_columns
from pipeline.overrides import NO_OVERRIDES, Overrides
from pipeline.policy import Decided, Policy, decide

HIT_CAP = "hit_cap"  # the reason of a sample that only entries over the cap come near to
# Why a sample gets another's action: the same bytes, the same URL, nearly the picture, near in embedding; a person.
SPREAD_REASONS = ("copy", "url", "near-copy", "neighbour", "review")


@dataclass(frozen=True, slots=True, repr=False)
class SampleDecisions:
    """One decision for each sample of a shard, in order.

    table: the columns of `decisions/<shard>.parquet`. actions: int8, -1 for a sample that was withheld before.
    withheld: bool, withheld before or by these decisions. index: int32. rows: what each row of the features got.
    """

    table: pa.Table
    index: NDArray[np.int32]
    actions: NDArray[np.int8]
    withheld: NDArray[np.bool_]
    rows: RowMarks


@dataclass(frozen=True, slots=True)
class RowMarks:
    """An action for each row of a shard, from its own signals or from what is known of others.

    actions: int8 [R]. withheld: bool [R]. why: int8 [R], place in `SPREAD_REASONS`, -1 for a row's own.
    """

    actions: NDArray[np.int8]
    withheld: NDArray[np.bool_]
    why: NDArray[np.int8]

    @classmethod
    def none(cls, count: int) -> RowMarks:
        """Return marks that say nothing of `count` rows."""
        return cls(np.zeros(count, np.int8), np.zeros(count, np.bool_), np.full(count, -1, np.int8))

    def joined(self, other: RowMarks) -> RowMarks:
        """Return the stricter action of the two for each row, with its reason; withheld by one is withheld."""
        stricter = other.actions > self.actions
        return RowMarks(
            np.maximum(self.actions, other.actions),
            self.withheld | other.withheld,
            np.where(stricter, other.why, self.why),
        )


@dataclass(frozen=True, slots=True)
class RowVerdicts:
    """What the signals of one shard's own rows say: before anything that others lead to.

    fault: the first fault of each row. capped: bool, near to entries over the hit cap alone. actions: int8.
    withheld: bool.
    """

    signals: dict[str, NDArray[np.float32]]
    rows: Decided
    fault: pa.ChunkedArray
    capped: NDArray[np.bool_]
    actions: NDArray[np.int8]
    withheld: NDArray[np.bool_]

    def content(self) -> RowMarks:
        """Return what the bytes of each row lead to: a fault is found anew wherever the same bytes stand."""
        bare = _mask(self.fault.is_valid()) & (self.rows.rule < 0)
        return RowMarks(
            np.where(bare, np.int8(0), self.actions), self.withheld, np.full(len(self.actions), -1, np.int8)
        )


def judge_rows(
    features: ShardFeatures,
    hits: pa.Table,
    lists: Sequence[HashList],
    policy: Policy,
    overrides: Overrides = NO_OVERRIDES,
) -> RowVerdicts:
    """Judge every row of one shard by its own signals."""
    signals = signal_columns(features, hits, lists, policy.signals)
    cancelled = None
    if overrides.rules:
        cancelled = overrides.cancelled(features.strings("shard"), features.strings("key"), policy)
    rows = decide(policy, signals, cancelled)
    if bool(rows.breaks_promise.any()):
        raise AssertionError("a row would be kept against the policy's never_kept promise")
    fault = pc.coalesce(features.table["sample_fault"], features.table["fault"])
    capped = _capped_rows(hits, lists, policy, len(rows.action))
    own = _row_actions(features, rows, _mask(fault.is_valid()), capped)
    return RowVerdicts(signals, rows, fault, capped, own, rows.sensitive | (own == Action.SEAL))


def decide_samples(
    features: ShardFeatures,
    hits: pa.Table,
    lists: Sequence[HashList],
    policy: Policy,
    overrides: Overrides = NO_OVERRIDES,
    marks: RowMarks | None = None,
) -> SampleDecisions:
    """Decide every sample of one shard; `marks` are what other samples of the collection lead to."""
    judged = judge_rows(features, hits, lists, policy, overrides)
    signals, rows, own = judged.signals, judged.rows, judged.actions
    marks = marks or RowMarks.none(len(own))
    action, hidden = np.maximum(own, marks.actions), judged.withheld | marks.withheld
    marked = marks.actions > own
    before, index = features.withheld(), features.indices()
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    sample = np.cumsum(np.diff(index, prepend=-1) != 0) - 1
    strictest = np.flatnonzero(action == np.maximum.reduceat(action, starts)[sample]) if len(starts) else starts
    deciding = strictest[np.diff(sample[strictest], prepend=-1) != 0]  # the first such row of each sample
    withheld = before[deciding] | (np.logical_or.reduceat(hidden, starts) if len(starts) else False)
    actions = np.where(before[deciding], np.int8(-1), action[deciding])
    chosen = pa.array(deciding)
    ids = pa.array([rule.id for rule in policy.rules], pa.string())
    rule = ids.take(pa.array(rows.rule[deciding], mask=(rows.rule < 0)[deciding] | marked[deciding]))
    spread = pa.array(SPREAD_REASONS).take(pa.array(marks.why[deciding], mask=~marked[deciding]))
    why = pc.if_else(pa.array(judged.capped[deciding]), HIT_CAP, "unknown")
    why = pc.coalesce(spread, _joined("rule:", rule), _joined("fault:", judged.fault.take(chosen)), why)
    open_rows, open_rules = np.nonzero(rows.open_rules[deciding])
    columns = {
        **{name: features.table[name] for name in ("shard", "key", "member")},
        "index": pa.array(index[deciding]),
        "withheld": pa.array(withheld),
        "action": pa.array([one.name for one in Action]).take(pa.array(actions, mask=actions < 0)),
        "rule": rule,
        "reason": pc.if_else(pa.array(actions == Action.KEEP), pa.scalar(None, pa.string()), why),
        "open_rules": pa.ListArray.from_arrays(
            np.searchsorted(open_rows, np.arange(len(deciding) + 1)), ids.take(pa.array(open_rules))
        ),
        **{f"signal.{name}": pa.array(v[deciding], mask=np.isnan(v[deciding])) for name, v in signals.items()},
    }
    if len(deciding) < len(index):
        columns |= {name: columns[name].take(chosen) for name in ("shard", "key", "member")}
    schema = decision_schema(list(signals))
    table = pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)
    rows_given = judged.content().joined(marks)
    return SampleDecisions(table, index[deciding].astype(np.int32), actions, withheld, rows_given)


def _row_actions(
    features: ShardFeatures, rows: Decided, faulty: NDArray[np.bool_], capped: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Return the action of every row: what is no judged image, or was not judged in full, is never kept."""
    role = features.table["role"]
    copied = _mask(pc.equal(role, "copied")) & (rows.rule < 0) & ~faulty
    doubtful = faulty | _mask(pc.not_equal(role, "image")) | rows.missing | capped
    action = np.where(doubtful, np.maximum(rows.action, Action.QUARANTINE), rows.action)
    return np.where(copied, np.int8(Action.KEEP), action).astype(np.int8)


def _mask(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.to_numpy(), np.bool_)


def _joined(head: str, column: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(head, pa.string()), column, "")


def blank_withheld(decisions: SampleDecisions) -> pa.Table:
    """Return the decisions as the restricted tier shows them: of a withheld sample its identity alone."""
    table = decisions.table
    if not decisions.withheld.any():
        return table
    mask = pa.array(decisions.withheld)
    for position, field in enumerate(table.schema):
        if field.name not in ("shard", "index", "key", "withheld"):
            null = pa.scalar(None, field.type)
            table = table.set_column(position, field, pa.compute.if_else(mask, null, table[field.name]))
    return table


def _capped_rows(hits: pa.Table, lists: Sequence[HashList], policy: Policy, count: int) -> NDArray[np.bool_]:
    """Say of `count` rows which an entry over the hit cap is near to by a code that the policy reads.

    They are never kept, also where another entry is farther away than any rule asks.
    """
    read = {
        (place, algorithm)
        for place, item in enumerate(lists)
        for algorithm in item.columns
        if not {f"list.{item.feed}.{algorithm}{DISTANCE}", f"list.{item.feed}.lists"}.isdisjoint(policy.signals)
    }
    marked = hits.filter(hits["capped"])
    columns = (marked[name].to_pylist() for name in ("row", "list", "algorithm"))
    found = np.zeros(count, np.bool_)
    found[[row for row, place, algorithm in zip(*columns, strict=True) if (place, algorithm) in read]] = True
    return found
