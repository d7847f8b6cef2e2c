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
from itertools import pairwise

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
FEEDS = ("csam", "other")
_DISTANCE = "_distance"
# Recipes whose quality says whether a picture can be matched; `pdq:turned` does not settle what hangs on rounding.
_RATED = ("pdq:fullres.", "pdq:c512.")


@dataclass(frozen=True, slots=True, repr=False)
class SampleDecisions:
    """One decision for each sample of a shard, in order.

    table: the columns of `decisions/<shard>.parquet`. actions: int8, -1 for a sample that was withheld before.
    withheld: bool, withheld before or by these decisions. index: int32.
    """

    table: pa.Table
    index: NDArray[np.int32]
    actions: NDArray[np.int8]
    withheld: NDArray[np.bool_]


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
) -> SampleDecisions:
    """Decide every sample of one shard."""
    signals = signal_columns(features, hits, lists, policy.signals)
    cancelled = overrides.cancelled(features.strings("shard"), features.strings("key"), policy)
    rows = decide(policy, signals, cancelled)
    if bool(rows.breaks_promise.any()):
        raise AssertionError("a row would be kept against the policy's never_kept promise")
    sample_fault, fault = features.strings("sample_fault"), features.strings("fault")
    role = features.strings("role")
    action = rows.action.astype(np.int8)
    capped = _capped_rows(hits, lists, policy)
    for row, kind in enumerate(role):
        is_faulty = bool(sample_fault[row] or fault[row])
        if kind == "copied" and rows.rule[row] < 0 and not is_faulty:
            action[row] = Action.KEEP
        elif is_faulty or kind != "image" or rows.missing[row] or row in capped:
            action[row] = max(int(action[row]), Action.QUARANTINE)
    before = features.withheld()
    index = features.indices()
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    spans = list(pairwise([*starts.tolist(), len(index)]))
    deciding = np.array([start + int(np.argmax(action[start:end])) for start, end in spans], np.int64)
    sensitive = np.array([bool(rows.sensitive[start:end].any()) for start, end in spans], np.bool_)
    withheld = before[deciding] | sensitive | (action[deciding] == Action.SEAL)
    actions = np.where(before[deciding], np.int8(-1), action[deciding])
    reasons = [_reason(rows, policy, row, sample_fault[row] or fault[row], capped) for row in deciding]
    columns = {
        "shard": features.table["shard"].take(pa.array(deciding)).to_pylist(),
        "index": index[deciding],
        "key": features.table["key"].take(pa.array(deciding)).to_pylist(),
        "withheld": withheld,
        "action": [Action(int(value)).name if value >= 0 else None for value in actions],
        "rule": [policy.rules[rows.rule[r]].id if rows.rule[r] >= 0 else None for r in deciding],
        "reason": [None if actions[i] == Action.KEEP else reasons[i] for i in range(len(deciding))],
        "open_rules": [[policy.rules[j].id for j in np.flatnonzero(rows.open_rules[r])] for r in deciding],
        "member": features.table["member"].take(pa.array(deciding)).to_pylist(),
    }
    for name, values in signals.items():
        columns[f"signal.{name}"] = pa.array(values[deciding], mask=np.isnan(values[deciding]))
    schema = decision_schema(list(signals))
    table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    return SampleDecisions(table, index[deciding].astype(np.int32), actions, withheld)


def blank_withheld(decisions: SampleDecisions) -> pa.Table:
    """Return the decisions as the restricted tier shows them: of a withheld sample its identity alone."""
    mask = pa.array(decisions.withheld)
    table = decisions.table
    for position, field in enumerate(table.schema):
        if field.name not in ("shard", "index", "key", "withheld"):
            null = pa.scalar(None, field.type)
            table = table.set_column(position, field, pa.compute.if_else(mask, null, table[field.name]))
    return table


def _reason(rows: Decided, policy: Policy, row: int, fault: str | None, capped: set[int]) -> str:
    rule = int(rows.rule[row])
    if rule >= 0:
        return f"rule:{policy.rules[rule].id}"
    if fault:
        return f"fault:{fault}"
    return HIT_CAP if row in capped else "unknown"


def _capped_rows(hits: pa.Table, lists: Sequence[HashList], policy: Policy) -> set[int]:
    """Return the rows that an entry over the hit cap is near to by a code that the policy reads.

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
    return {row for row, place, algorithm in zip(*columns, strict=True) if (place, algorithm) in read}


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
