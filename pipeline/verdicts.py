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
from numpy.typing import NDArray

from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import match_digests, nearest_codes
from manifests.features import ShardFeatures
from manifests.records import Action
from manifests.schema import CODE_BYTES, algorithm_of, decision_schema
from pipeline.policy import Decided, Policy, SignalSpec, decide

PDQ_USABLE = "pdq.usable"
PURPOSES = ("csam", "other")
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
    """Return the signals that lists give, for every purpose, with or without a list of it."""
    specs = []
    for purpose in PURPOSES:
        mine = [item for item in lists if item.purpose == purpose]
        names = tuple(f"{item.list_id}#{item.set_digest[:8]}" for item in mine)
        digested = any(len(rows) for item in mine for rows in item.digests.values())
        specs.append(SignalSpec(f"list.{purpose}.exact", "high", names, None, digested))
        for algorithm in CODE_BYTES:
            radii = [radius for rows, radius in (item.coded(algorithm) for item in mine) if len(rows)]
            name = f"list.{purpose}.{algorithm}{_DISTANCE}"
            specs.append(SignalSpec(name, "low", names, min(radii, default=None), bool(radii)))
    return (*specs, SignalSpec(PDQ_USABLE, "low", ("pdq:fullres",), None, searchable=True))


def signal_columns(
    features: ShardFeatures, lists: Sequence[HashList], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the float32 column of every signal in `names`, one value a row."""
    columns: dict[str, NDArray[np.float32]] = {}
    for name in names:
        if name == PDQ_USABLE:
            columns[name] = _usable(features)
        elif name.startswith("list."):
            _, purpose, what = name.split(".", 2)
            mine = [item for item in lists if item.purpose == purpose]
            if what == "exact":
                columns[name] = _exact(features, mine)
            else:
                columns[name] = _distance(features, mine, what.removesuffix(_DISTANCE))
        else:
            columns[name] = features.scores[name]
    return columns


def decide_samples(features: ShardFeatures, lists: Sequence[HashList], policy: Policy) -> SampleDecisions:
    """Decide every sample of one shard."""
    signals = signal_columns(features, lists, policy.signals)
    rows = decide(policy, signals)
    if bool(rows.breaks_promise.any()):
        raise AssertionError("a row would be kept against the policy's never_kept promise")
    sample_fault, fault = features.strings("sample_fault"), features.strings("fault")
    role = features.strings("role")
    action = rows.action.astype(np.int8)
    for row, kind in enumerate(role):
        is_faulty = bool(sample_fault[row] or fault[row])
        if kind == "copied" and rows.rule[row] < 0 and not is_faulty:
            action[row] = Action.KEEP
        elif is_faulty or kind != "image" or rows.missing[row]:
            action[row] = max(int(action[row]), Action.QUARANTINE)
    before = features.withheld()
    index = features.indices()
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    spans = list(pairwise([*starts.tolist(), len(index)]))
    deciding = np.array([start + int(np.argmax(action[start:end])) for start, end in spans], np.int64)
    sensitive = np.array([bool(rows.sensitive[start:end].any()) for start, end in spans], np.bool_)
    withheld = before[deciding] | sensitive | (action[deciding] == Action.SEAL)
    actions = np.where(before[deciding], np.int8(-1), action[deciding])
    reasons = [_reason(rows, policy, row, sample_fault[row] or fault[row]) for row in deciding]
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


def _reason(rows: Decided, policy: Policy, row: int, fault: str | None) -> str:
    rule = int(rows.rule[row])
    if rule >= 0:
        return f"rule:{policy.rules[rule].id}"
    if fault:
        return f"fault:{fault}"
    return "unknown"


def _exact(features: ShardFeatures, lists: Sequence[HashList]) -> NDArray[np.float32]:
    """Match the digests of the bytes, and those that the crawl recorded before anything was re-encoded."""
    crawled = features.crawled()
    known = np.any([rows_known for _, rows_known in crawled.values()], axis=0)
    # A digest that is not known is all zeros here, which no list may hold.
    recorded = match_digests(lists, {name: rows for name, (rows, _) in crawled.items()}, known)
    taken = match_digests(lists, features.digests, features.digested)
    both: NDArray[np.float32] = np.fmax(taken, recorded)
    return both


def _distance(features: ShardFeatures, lists: Sequence[HashList], algorithm: str) -> NDArray[np.float32]:
    best = np.full(features.table.num_rows, np.nan, np.float32)
    for name, column in features.hashes.items():
        if algorithm_of(name) == algorithm:
            found = nearest_codes(lists, column.codes, column.hashable, column.usable, algorithm=algorithm)
            best = np.fmin(best, found)
    return best


def _usable(features: ShardFeatures) -> NDArray[np.float32]:
    best = np.full(features.table.num_rows, np.nan, np.float32)
    for name, column in features.hashes.items():
        if not name.startswith(_RATED):
            continue
        best = np.fmax(best, np.where(column.hashable, column.usable.astype(np.float32), np.float32(np.nan)))
    return best
