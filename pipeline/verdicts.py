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
from classifiers.hashes.digests import DIGEST_WIDTHS
from manifests.features import ShardFeatures
from manifests.records import Action
from manifests.schema import CODE_BYTES, decision_schema
from pipeline.matching import searched
from pipeline.overrides import NO_OVERRIDES, Overrides
from pipeline.policy import Decided, Policy, SignalSpec, decide

PDQ_USABLE = "pdq.usable"
HIT_CAP = "hit_cap"  # the reason of a sample that only entries over the cap come near to
# Why a sample gets another's action: the same bytes, the same URL, nearly the picture, near in embedding; a person.
SPREAD_REASONS = ("copy", "url", "near-copy", "neighbour", "review")
FEEDS = ("csam", "other")
_DISTANCE = "_distance"
# Recipes whose quality says whether a picture can be matched; `pdq:turned` does not settle what hangs on rounding.
_RATED = ("pdq:fullres.", "pdq:c512.")


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


def list_signal_specs(lists: Sequence[HashList]) -> tuple[SignalSpec, ...]:
    """Return the signals that lists give, for every feed, with or without a list of it."""
    specs = []
    for feed in FEEDS:
        mine = [item for item in lists if item.feed == feed]
        names = tuple(f"{item.list_id}#{item.set_digest[:8]}" for item in mine)
        digested = any(name in item.columns for item in mine for name in DIGEST_WIDTHS)
        specs.append(SignalSpec(f"list.{feed}.exact", "high", names, None, digested))
        for algorithm in CODE_BYTES:
            radii = [item.radius_of(algorithm) for item in mine if algorithm in item.columns]
            name = f"list.{feed}.{algorithm}{_DISTANCE}"
            specs.append(SignalSpec(name, "low", names, min(radii, default=None), bool(radii)))
        specs.append(SignalSpec(f"list.{feed}.lists", "high", names, None, bool(mine)))
    return (*specs, SignalSpec(PDQ_USABLE, "low", ("pdq:fullres",), None, searchable=True))


def signal_columns(
    features: ShardFeatures, hits: pa.Table, lists: Sequence[HashList], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the float32 column of every signal in `names`, one value a row; `hits` as `matching.find_hits`."""
    columns: dict[str, NDArray[np.float32]] = {}
    for name in names:
        if name == PDQ_USABLE:
            columns[name] = _usable(features)
        elif name.startswith("list."):
            _, feed, what = name.split(".", 2)
            places = [place for place, item in enumerate(lists) if item.feed == feed]
            mine = hits.filter(pc.is_in(hits["list"], value_set=pa.array(places, pa.int16())))
            if what == "exact":
                columns[name] = _exact(features, mine)
            elif what == "lists":
                columns[name] = _agreeing(features, mine, lists, places)
            else:
                columns[name] = _distance(features, mine, what.removesuffix(_DISTANCE))
        else:
            columns[name] = features.scores[name]
    return columns


def decide_samples(
    features: ShardFeatures,
    hits: pa.Table,
    lists: Sequence[HashList],
    policy: Policy,
    overrides: Overrides = NO_OVERRIDES,
    marks: RowMarks | None = None,
) -> SampleDecisions:
    """Decide every sample of one shard; `marks` are what other samples of the collection lead to."""
    signals = signal_columns(features, hits, lists, policy.signals)
    cancelled = overrides.cancelled(features.strings("shard"), features.strings("key"), policy)
    rows = decide(policy, signals, cancelled)
    if bool(rows.breaks_promise.any()):
        raise AssertionError("a row would be kept against the policy's never_kept promise")
    fault = pc.coalesce(features.table["sample_fault"], features.table["fault"])
    capped = _capped_rows(hits, lists, policy, len(rows.action))
    own = _row_actions(features, rows, _mask(fault.is_valid()), capped)
    marks = marks or RowMarks.none(len(own))
    action, hidden = np.maximum(own, marks.actions), rows.sensitive | marks.withheld | (own == Action.SEAL)
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
    why = pc.if_else(pa.array(capped[deciding]), HIT_CAP, "unknown")
    why = pc.coalesce(spread, _joined("rule:", rule), _joined("fault:", fault.take(chosen)), why)
    open_rows, open_rules = np.nonzero(rows.open_rules[deciding])
    columns = {
        **{name: features.table[name].take(chosen) for name in ("shard", "key", "member")},
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
    schema = decision_schema(list(signals))
    table = pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)
    # A fault is found anew wherever the same bytes stand, or is one of names and places.
    content = np.where(_mask(fault.is_valid()) & (rows.rule < 0), marks.actions, action)
    given = RowMarks(content, hidden, np.where(marked, marks.why, np.int8(-1)))
    return SampleDecisions(table, index[deciding].astype(np.int32), actions, withheld, given)


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
    mask = pa.array(decisions.withheld)
    table = decisions.table
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
        if not {f"list.{item.feed}.{algorithm}{_DISTANCE}", f"list.{item.feed}.lists"}.isdisjoint(policy.signals)
    }
    marked = hits.filter(hits["capped"])
    columns = (marked[name].to_pylist() for name in ("row", "list", "algorithm"))
    found = np.zeros(count, np.bool_)
    found[[row for row, place, algorithm in zip(*columns, strict=True) if (place, algorithm) in read]] = True
    return found


def _exact(features: ShardFeatures, hits: pa.Table) -> NDArray[np.float32]:
    """Match the digests of the bytes, and those that the crawl recorded before anything was re-encoded."""
    listed = np.zeros(features.table.num_rows, np.float32)
    listed[hits.filter(pc.equal(hits["basis"], "listed-exact"))["row"].to_numpy()] = 1
    return np.where(_digested(features), listed, np.float32(np.nan))


def _distance(features: ShardFeatures, hits: pa.Table, algorithm: str) -> NDArray[np.float32]:
    """Return the least distance. Where only entries over the hit cap are near it could not be said."""
    near = hits.filter(pc.and_(pc.equal(hits["basis"], "listed-near"), pc.equal(hits["algorithm"], algorithm)))
    rows, capped = near["row"].to_numpy(), near["capped"].to_numpy(zero_copy_only=False)
    best = np.where(searched(features)[algorithm], np.float32(np.inf), np.float32(np.nan))
    np.minimum.at(best, rows[~capped], near["distance"].to_numpy()[~capped].astype(np.float32))
    doubtful = np.isinf(best[rows]) & capped
    best[rows[doubtful]] = np.nan
    return best


def _agreeing(
    features: ShardFeatures, hits: pa.Table, lists: Sequence[HashList], places: Sequence[int]
) -> NDArray[np.float32]:
    """Count the sources that list a row, by digest or by code; NaN where others could not be asked."""
    sources = sorted({lists[place].source for place in places})
    asked = np.array([sources.index(lists[place].source) for place in places], np.int64)
    voices = np.zeros((features.table.num_rows, len(sources)), np.bool_)
    sure = hits.filter(pc.invert(hits["capped"]))
    voices[sure["row"].to_numpy(), asked[np.searchsorted(places, sure["list"].to_numpy())]] = True
    count = voices.sum(axis=1).astype(np.float32)
    used = {name for place in places for name in lists[place].columns}
    known = _digested(features) | used.isdisjoint(DIGEST_WIDTHS)
    for algorithm, found in searched(features).items():
        if algorithm in used:
            known &= found
    known[hits.filter(hits["capped"])["row"].to_numpy()] = False
    return np.where(known | (count == len(sources)), count, np.float32(np.nan))


def _digested(features: ShardFeatures) -> NDArray[np.bool_]:
    known = [features.digested, *(rows for _, rows in features.crawled().values())]
    return np.asarray(np.any(known, axis=0), np.bool_)


def _usable(features: ShardFeatures) -> NDArray[np.float32]:
    best = np.full(features.table.num_rows, np.nan, np.float32)
    for name, column in features.hashes.items():
        if not name.startswith(_RATED):
            continue
        best = np.fmax(best, np.where(column.hashable, column.usable.astype(np.float32), np.float32(np.nan)))
    return best
