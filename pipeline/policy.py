"""Policies: read from TOML, checked, and proved before they may decide anything.

Owns the file format, its checks and the shipped policies. Leaves the text of expressions to
`pipeline.policy_language` and deciding to `pipeline.policy_decide`; import all from here.

- Rules stand in the order SEAL, REMOVE, QUARANTINE. More harm only makes more rules true, and the first of
  those is the strictest, so it never gives a milder action. Nothing is lost: a monotone policy in any other
  order, less the alternatives that never decide, gives the same actions when it is sorted so.
- A promise (`never_kept`) is proved: it forbids boxes that are closed towards harm, and what is not kept (a rule
  not FALSE, margins included) is closed towards harm too, so a box lies inside it exactly if its least point
  does. For NaN put the worst value: what was not FALSE, promise or rule, stays so, and what was FALSE too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import chain, pairwise

import numpy as np

from manifests.records import Action
from pipeline.policy_decide import Alias, Decided, Policy, Rule, decide, thresholds
from pipeline.policy_language import (
    Expression,
    PolicyError,
    alternatives,
    comparisons,
    explain_expression,
    least_value,
)
from pipeline.policy_names import Names, SignalSpec, pick, read_aliases, string, strings, table

__all__ = [
    "SHIPPED_POLICIES", "Alias", "Decided", "Policy", "PolicyError", "Rule", "SignalSpec",
    "decide", "explain_expression", "load_policy", "shipped_policy", "thresholds",
]  # fmt: skip

SHIPPED_POLICIES = ("separation", "separation-strict", "lists-only")
MAX_RULES = 1000

_GRANTED = (Action.SEAL.name, Action.REMOVE.name, Action.QUARANTINE.name)
_LEAST_HARM = {"high": -np.inf, "low": np.inf}


def load_policy(text: str, *, source: str, known: Sequence[SignalSpec]) -> Policy:
    """Read, check and prove a policy.

    Args:
        text: the TOML text.
        source: the file's name, for error messages.
        known: every signal that this run can supply.

    Raises:
        PolicyError: the text is no policy, names what is not known, is not monotone or breaks a promise.
    """
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source}: not TOML: {error}; correct it there") from error
    file = table(parsed, source, needed=("name", "required", "rule"), allowed=("signal", "sensitive", "separation"))
    specs = {spec.name: spec for spec in known}
    aliases = read_aliases(file.get("signal", {}), f"{source}: [signal]", specs)
    names = Names(specs, aliases)
    rules = _read_rules(file["rule"], source, names)
    required = strings(file["required"], f"{source}: required")
    for name in required:
        names.check_speaks(name, f"{source}: required")
    sensitive: tuple[str, ...] = ()
    if "sensitive" in file:
        where = f"{source}: [sensitive]"
        keys = table(file["sensitive"], where, needed=("rules",))
        sensitive = strings(keys["rules"], f"{where} rules")
        for name in sensitive:
            pick(name, [rule.id for rule in rules], f"{where} rules", "the id of a rule")
    promises: tuple[Expression, ...] = ()
    if "separation" in file:
        where = f"{source}: [separation]"
        keys = table(file["separation"], where, needed=("never_kept",))
        texts = strings(keys["never_kept"], f"{where} never_kept")
        promises = tuple(names.expression(one, f"{where} never_kept") for one in texts)
    read = {one.signal for part in (*(rule.when for rule in rules), *promises) for one in comparisons(part)}
    bases = sorted(set(chain.from_iterable(names.parts(name) for name in read.union(required))))
    policy = Policy(
        name=string(file["name"], f"{source}: name"),
        required=required,
        aliases=tuple(aliases.values()),
        rules=rules,
        sensitive=sensitive,
        never_kept=promises,
        text=text,
        full_names=tuple((name, specs[name].full_names) for name in bases),
    )
    for promise in promises:
        _prove(policy, promise, f"{source}: [separation] never_kept", specs)
    return policy


def shipped_policy(name: str) -> str:
    """Return the text of a policy that comes with the program.

    Raises:
        PolicyError: there is none of this name.
    """
    pick(name, SHIPPED_POLICIES, "policy", "the name of a shipped policy or a .toml file")
    return (resources.files("pipeline") / "policies" / f"{name}.toml").read_text(encoding="utf-8")


def _read_rules(value: object, source: str, names: Names) -> tuple[Rule, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_RULES:
        raise PolicyError(
            f"{source}: rule: expected between 1 and {MAX_RULES} [[rule]] tables; without rules a policy would "
            f"remove nothing"
        )
    rules: dict[str, Rule] = {}
    for number, one in enumerate(value, 1):
        where = f"{source}: rule {number}"
        keys = table(one, where, needed=("id", "when", "action"))
        name, text, action = (string(keys[key], f"{where}: {key}") for key in ("id", "when", "action"))
        where = f"{source}: rule {name!r}"
        if name in rules:
            raise PolicyError(f"{where}: two rules have this id; rename one")
        if action == Action.KEEP.name:
            raise PolicyError(
                f"{where}: no rule can grant KEEP: a sample is kept if no rule fires and every required signal "
                f"has spoken; take the rule out"
            )
        pick(action, _GRANTED, where, "an action")
        rules[name] = Rule(name, names.expression(text, where), text, Action[action])
    for upper, lower in pairwise(rules.values()):
        if upper.action < lower.action:
            raise PolicyError(
                f"{source}: rule {upper.id!r} ({upper.action.name}) stands above rule {lower.id!r} "
                f"({lower.action.name}), so more harm could give the milder action; move {lower.id!r} above "
                f"{upper.id!r}: SEAL rules come first, then REMOVE, then QUARANTINE"
            )
    return tuple(rules.values())


def _prove(policy: Policy, promise: Expression, where: str, specs: Mapping[str, SignalSpec]) -> None:
    """Refuse a promise that the rules do not keep, with a sample that they would keep against it.

    The least point of a conjunction has each signal at the least harmful value that its comparisons leave, and
    every other signal at the far end.
    """
    cases = alternatives(promise, lambda name: policy.alias_of(name).parts, where=where)
    columns = {name: np.full(len(cases), _LEAST_HARM[specs[name].worse], np.float32) for name in policy.signals}
    for row, case in enumerate(cases):
        for comparison in case:
            worse = max if specs[comparison.signal].worse == "high" else min
            column = columns[comparison.signal]
            column[row] = worse(column[row], least_value(comparison))
    for row in np.flatnonzero(decide(policy, columns).breaks_promise)[:1]:
        least = sorted({one.signal for one in cases[row]})
        example = ", ".join(f"{name} = {columns[name][row]!s}" for name in least)
        raise PolicyError(
            f"{where}: '{explain_expression(promise)}' does not follow from the rules: a sample with {example}, "
            f"and every other signal at its least harmful value, would be kept; add a rule that fires there, or "
            f"promise less"
        )
