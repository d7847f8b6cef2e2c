"""Decisions: what a checked policy says of samples, column by column.

Owns the shape of a policy and how it decides. Leaves reading and proving one to `pipeline.policy`.

- The first TRUE rule acts. With none, an UNKNOWN rule or a required signal that is NaN means QUARANTINE, and
  only what is left is kept.
- A TRUE rule below an UNKNOWN one acts, and the decision records the rules above it that stayed open.
- A comparison with an alias is the Kleene `or` over its parts: TRUE once a known part reaches the bar, UNKNOWN
  if none does and a part is missing. A required alias has spoken only when all its parts have.
- Promises are looked at without margins: what they forbid does not depend on how a rule treats a near miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from manifests.records import Action, digest_json
from pipeline.policy_language import (
    Comparison,
    Expression,
    Op,
    PolicyError,
    Truth,
    Truths,
    Values,
    compare,
    comparisons,
    evaluate,
    explain_expression,
    least_value,
)


@dataclass(frozen=True, slots=True)
class Alias:
    """The maximum of several signals. A known part within `margin` of a bar is UNKNOWN (0: never)."""

    name: str
    parts: tuple[str, ...]
    margin: float


@dataclass(frozen=True, slots=True)
class Rule:
    """When `when` is TRUE and no earlier rule is, the sample gets `action`, which is never KEEP."""

    id: str
    when: Expression
    text: str
    action: Action


@dataclass(frozen=True, slots=True)
class Around:
    """How far a settle looks around exact list hits; None: not at all.

    near_copies: PDQ distance in bits. neighbours: cosine of embeddings. A seed with more than max_neighbours gives
    none.
    """

    near_copies: int | None = None
    neighbours: float | None = None
    max_neighbours: int = 100


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that has been checked: monotone, and every promise proved.

    full_names holds each known signal that the policy reads (aliases resolved, sorted) with its full names.
    sources: patterns of shard names and the policy that stands there, with other thresholds and else the same.
    silent: signals that it reads and that no configured list feeds; they never fire.
    historic: of a replica of a published removal, what it is known to miss; "" for a policy made to be used.
    """

    name: str
    required: tuple[str, ...]
    aliases: tuple[Alias, ...]
    rules: tuple[Rule, ...]
    sensitive: tuple[str, ...]
    never_kept: tuple[Expression, ...]
    text: str
    full_names: tuple[tuple[str, tuple[str, ...]], ...]
    sources: tuple[tuple[tuple[str, ...], Policy], ...] = ()
    silent: frozenset[str] = frozenset()
    historic: str = ""
    around: Around = Around()

    def of_shard(self, shard: str) -> Policy:
        """Return the policy for the samples of a shard: that of the first source with a fitting pattern."""
        return next((one for patterns, one in self.sources if fits(shard, patterns)), self)

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the known signals that the policy reads: the columns that `decide` needs."""
        return tuple(name for name, _ in self.full_names)

    @property
    def can_withhold(self) -> bool:
        """Whether a sample can be withheld under this policy."""
        return bool(self.sensitive) or any(rule.action == Action.SEAL for rule in self.rules)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what the policy means and the full names it is bound to, whatever its layout."""
        return digest_json(
            {
                "language": 1,
                "name": self.name,
                "required": sorted(self.required),
                "aliases": {alias.name: [sorted(alias.parts), alias.margin] for alias in self.aliases},
                "rules": [[rule.id, explain_expression(rule.when), rule.action.name] for rule in self.rules],
                "sensitive": sorted(self.sensitive),
                "never_kept": sorted(explain_expression(promise) for promise in self.never_kept),
                "bound": {name: sorted(full_names) for name, full_names in self.full_names},
                "around": [self.around.near_copies, self.around.neighbours, self.around.max_neighbours],
                "sources": [[sorted(patterns), one.digest] for patterns, one in self.sources],
            }
        )

    def rules_by_source(self) -> tuple[tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]], ...]:
        """Return patterns of shard names and the rules there as (id, action, when); the first that fits counts."""
        every = (*self.sources, (("*",), self))
        return tuple(
            (patterns, tuple((rule.id, rule.action.name, explain_expression(rule.when)) for rule in one.rules))
            for patterns, one in every
        )

    def alias_of(self, name: str) -> Alias:
        """Return the alias of this name; a known signal is the maximum of itself alone, without a margin."""
        return next((alias for alias in self.aliases if alias.name == name), Alias(name, (name,), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """Decisions of N samples under a policy of R rules.

    action: int8[N], `Action` values. rule: int16[N], index of the rule that acted, -1 where none did.
    open_rules: bool[N, R], the UNKNOWN rules above the one that acted, or all where none did.
    missing: bool[N], a required signal did not speak. sensitive: bool[N], some [sensitive] rule is TRUE, even
    where another one acted. breaks_promise: bool[N], kept although a promise is not FALSE; never true of a
    policy that loaded, and there so that the output can be checked.
    """

    action: NDArray[np.int8]
    rule: NDArray[np.int16]
    open_rules: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    sensitive: NDArray[np.bool_]
    breaks_promise: NDArray[np.bool_]


def decide(policy: Policy, columns: Mapping[str, Values], cancelled: NDArray[np.bool_] | None = None) -> Decided:
    """Decide N samples.

    Args:
        policy: what to decide by.
        columns: one float32[N] for each of `policy.signals`, NaN where the signal could not say; others are
            not read.
        cancelled: bool[N, R], the rules that override records cancel: they are FALSE there, and the promises are
            not looked at where any is.

    Raises:
        PolicyError: a column is missing, not float32, or of another length.
    """
    _check_columns(policy, columns)
    found = np.stack([truths(policy, rule.when, columns) for rule in policy.rules], axis=1)
    if cancelled is not None:
        found[cancelled] = Truth.FALSE
    fired = found == Truth.TRUE
    acted = fired.any(axis=1)
    first = np.where(acted, fired.argmax(axis=1), len(policy.rules))
    open_rules = (found == Truth.UNKNOWN) & (np.arange(len(policy.rules)) < first[:, None])
    missing = np.zeros(len(first), bool)
    for part in chain.from_iterable(policy.alias_of(name).parts for name in policy.required):
        missing |= np.isnan(columns[part])
    action = np.array([*(rule.action for rule in policy.rules), Action.KEEP], np.int8)[first]
    action[~acted & (open_rules.any(axis=1) | missing)] = Action.QUARANTINE
    promised = np.zeros(len(first), bool)
    for promise in policy.never_kept:
        promised |= truths(policy, promise, columns, with_margins=False) != Truth.FALSE
    if cancelled is not None:
        promised &= ~cancelled.any(axis=1)
    return Decided(
        action=action,
        rule=np.where(acted, first, -1).astype(np.int16),
        open_rules=open_rules,
        missing=missing,
        sensitive=fired[:, [rule.id in policy.sensitive for rule in policy.rules]].any(axis=1),
        breaks_promise=(action == Action.KEEP) & promised,
    )


def fits(shard: str, patterns: Iterable[str]) -> bool:
    """Say whether a shard's name fits one of the patterns, as a shell would match it."""
    return any(fnmatchcase(shard, pattern) for pattern in patterns)


def thresholds(policy: Policy) -> tuple[tuple[str, Op, float], ...]:
    """Return each (signal or alias, op, bar) of the rules once, in the order in which they first stand."""
    found = chain.from_iterable(comparisons(rule.when) for rule in policy.rules)
    return tuple((one.signal, one.op, one.bar) for one in dict.fromkeys(found))


def truths(
    policy: Policy, expression: Expression, columns: Mapping[str, Values], *, with_margins: bool = True
) -> Truths:
    """Evaluate one expression on checked columns: int8[N] of `Truth` values."""

    def truths_of(comparison: Comparison) -> Truths:
        alias = policy.alias_of(comparison.signal)
        margin = alias.margin if with_margins else 0.0
        return reduce(np.maximum, (compare(columns[part], comparison, margin) for part in alias.parts))

    return evaluate(expression, truths_of)


def least_points(policy: Policy, cases: Sequence[Sequence[Comparison]]) -> dict[str, Values]:
    """Return the least harmful point of each conjunction of comparisons with signals: float32 [cases] by signal.

    Each signal has the least harmful value that the comparisons leave; all others stand at the far end.
    """
    expressions = (*(rule.when for rule in policy.rules), *policy.never_kept)
    read = chain.from_iterable(comparisons(one) for one in expressions)
    low = {part for one in read if one.op in ("<=", "<") for part in policy.alias_of(one.signal).parts}
    columns = {name: np.full(len(cases), np.inf if name in low else -np.inf, np.float32) for name in policy.signals}
    for row, case in enumerate(cases):
        for comparison in case:
            worse = min if comparison.signal in low else max
            columns[comparison.signal][row] = worse(columns[comparison.signal][row], least_value(comparison))
    return columns


def _check_columns(policy: Policy, columns: Mapping[str, Values]) -> None:
    """Refuse columns that would be broadcast or rounded in silence."""
    lengths = set()
    for name in policy.signals:
        if name not in columns:
            raise PolicyError(
                f"policy {policy.name!r} reads the signal {name!r}, but no column of it was given; give one, "
                f"with NaN where the signal could not say"
            )
        column = columns[name]
        if column.dtype != np.float32 or column.ndim != 1:
            raise PolicyError(
                f"policy {policy.name!r}, signal {name!r}: expected one float32 a sample, found "
                f"{column.ndim} dimensions of {column.dtype}"
            )
        lengths.add(len(column))
    if len(lengths) > 1:
        raise PolicyError(
            f"policy {policy.name!r}: expected columns of one length, found lengths {sorted(lengths)}"
        )
