"""Score distributions and counts of decisions, for a report: what the decisions of a settle add up to.

Owns the counting. Reads one shard's decisions at a time; what it keeps does not grow with the samples.

- Of withheld samples there is nothing to count: their rows are left out before any column is looked at.
- The bars of a rule are those that its text compares a signal with, aliases as the policy's text joins them.
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import schema
from manifests.commits import Counts, RecordError
from manifests.records import Action

SCORE_BINS, COUNT_BINS = 40, 64  # of a score from 0 to 1; of bits, or of lists, one each
_UNUSED = ("shard", "index", "key", "rule", "open_rules", "member")
_OPERATORS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
_COMPARISON = re.compile(r"([A-Za-z_][\w.@/-]*) (>=|>|<=|<) ([-+.\de]+)", re.ASCII)
_ALIAS = re.compile(r"^\[signal\.\"?([^\]\"]+)\"?\][^\n]*$(.*?)(?=^\s*\[|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a rule on a signal; how many samples reach it, of those not withheld and of the kept ones."""

    rule: str
    action: str
    op: str
    bar: float
    reached: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Distribution:
    """One signal over the samples that are not withheld.

    bins: of equal width, between 0 and 1 or, of what lists say, of whole numbers from 0. none_near: at infinity.
    """

    signal: str
    known: int
    unknown: int
    none_near: int
    bins: tuple[int, ...]
    kept: tuple[int, ...]
    bars: tuple[Bar, ...]


@dataclass(slots=True)
class _Tally:
    """Counts of one signal so far; the rows of `bins`: not withheld, and kept."""

    bins: NDArray[np.int64]
    bars: list[Bar]
    spoke: Counter[str] = field(default_factory=Counter)

    def add(self, values: NDArray[np.float32], kept: NDArray[np.bool_]) -> None:
        near, count = np.isfinite(values), self.bins.shape[1]
        infinite = int(np.isinf(values).sum())
        self.spoke.update(known=int(near.sum()), none_near=infinite, unknown=int(np.isnan(values).sum()))
        scale = np.float32(SCORE_BINS if count == SCORE_BINS else 1)
        places = np.clip(values[near] * scale, 0, count - 1).astype(np.int64)
        for row, chosen in enumerate((places, places[kept[near]])):
            self.bins[row] += np.bincount(chosen, minlength=count)
        for place, bar in enumerate(self.bars):
            over = _OPERATORS[bar.op](values, np.float32(bar.bar))
            reached, of_kept = bar.reached + int(over.sum()), bar.kept + int((over & kept).sum())
            self.bars[place] = replace(bar, reached=reached, kept=of_kept)


class Decided:
    """What the decisions of a settle add up to. undrawn: names in rules that are no signal here."""

    def __init__(self, decide: Mapping[str, Any]) -> None:
        names: list[str] = decide["signals"]
        bars: dict[str, list[Bar]] = {name: [] for name in names}
        aliases, undrawn = _aliases(decide["policy_text"]), set()
        for rule, action, when in (rule for _, rules in decide["rules"] for rule in rules):
            for name, op, bar in _COMPARISON.findall(when):
                parts = [one for one in (name, *aliases.get(name, ())) if one in bars]
                undrawn |= set() if parts else {name}
                for part in parts:
                    bars[part] += {Bar(rule, action, op, float(bar))}.difference(bars[part])
        widths = {name: COUNT_BINS if name.startswith("list.") else SCORE_BINS for name in names}
        self._tallies = {name: _Tally(np.zeros((2, widths[name]), np.int64), bars[name]) for name in names}
        self._pairs: Counter[tuple[str, str]] = Counter()
        self.undrawn = tuple(sorted(undrawn))

    def add(self, path: Path, sha256: str) -> None:
        """Count the decisions of one shard."""
        table = schema.read(path, sha256=sha256, without=_UNUSED)
        clear = table.filter(pc.invert(table["withheld"]))
        kept = np.asarray(pc.equal(clear["action"], Action.KEEP.name).to_numpy(), np.bool_)
        for name, tally in self._tallies.items():
            tally.add(np.asarray(clear[f"signal.{name}"].to_numpy(), np.float32), kept)
        found = clear.group_by(["action", "reason"], use_threads=False).aggregate([([], "count_all")])
        for action, reason, samples in zip(*(column.to_pylist() for column in found.columns), strict=True):
            self._pairs[action or "", reason or ""] += samples

    def actions(self, counts: Counts, *, source: Path) -> tuple[tuple[str, str, int], ...]:
        """Return (action, reason, samples), once all shards were added.

        Raises:
            RecordError: they are not what the settle counted.
        """
        by_action, by_reason = Counter[str](), Counter[str]()
        for (action, reason), samples in self._pairs.items():
            by_action[action] += samples
            by_reason.update({reason: samples} if reason else {})
        wanted = Counter(KEEP=counts.keep, REMOVE=counts.remove, QUARANTINE=counts.quarantine)
        if by_action != wanted or by_reason != Counter(counts.reasons):
            raise RecordError(f"{source}: its decisions are not what the settle counted; run `shardscrub verify`")
        return tuple((*pair, samples) for pair, samples in sorted(self._pairs.items()))

    def distributions(self) -> tuple[Distribution, ...]:
        """Return the distribution of every signal, so far."""
        return tuple(
            Distribution(
                name, one.spoke["known"], one.spoke["unknown"], one.spoke["none_near"],
                tuple(one.bins[0].tolist()), tuple(one.bins[1].tolist()), tuple(one.bars),
            )
            for name, one in self._tallies.items()
        )  # fmt: skip


def _aliases(text: str) -> dict[str, Sequence[str]]:
    """Return what the tables [signal.NAME] of a policy's text join; of included policies the first one counts."""
    found: dict[str, Sequence[str]] = {}
    for name, body in _ALIAS.findall(text):
        try:
            found.setdefault(name, tomllib.loads(body).get("from", ()))
        except tomllib.TOMLDecodeError:
            continue  # the page then says that its bars are not drawn
    return found
