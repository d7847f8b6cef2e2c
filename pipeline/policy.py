"""Policies: read from TOML, checked, and proved before they may decide anything.

Owns the file format, its checks and the shipped policies. Leaves the text of expressions to
`pipeline.policy_language` and deciding to `pipeline.policy_decide`; import all from here.

- Rules stand in the order SEAL, REMOVE, QUARANTINE. More harm only makes more rules true, and the first of
  those is the strictest, so it never gives a milder action. Nothing is lost: a monotone policy in any other
  order, less the alternatives that never decide, gives the same actions when it is sorted so.
- What [[source]] says of some shards is a policy of its own, read and proved like the whole.
- A promise (`never_kept`) is proved: it forbids boxes that are closed towards harm, and what is not kept (a rule
  not FALSE, margins included) is closed towards harm too, so a box lies inside it exactly if its least point
  does. For NaN put the worst value: what was not FALSE, promise or rule, stays so, and what was FALSE too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from itertools import chain, pairwise
from typing import Any

import numpy as np

from manifests.records import Action
from pipeline.policy_decide import Alias, Around, Decided, Policy, Rule, decide, least_points, thresholds
from pipeline.policy_includes import Texts, join_includes
from pipeline.policy_language import (
    Expression,
    PolicyError,
    alternatives,
    comparisons,
    explain_expression,
)
from pipeline.policy_names import (
    Names,
    SignalSpec,
    pick,
    read_aliases,
    read_around,
    read_bars,
    string,
    strings,
    table,
)

__all__ = [
    "SHIPPED_POLICIES", "Alias", "Around", "Decided", "Policy", "PolicyError", "Rule", "SignalSpec",
    "decide", "explain_expression", "load_policy", "shipped_policy", "thresholds",
]  # fmt: skip

HISTORIC = tuple(f"historic/{name}" for name in ("laion-400m", "sd2", "relaion-research", "relaion-research-safe"))
SHIPPED_POLICIES = ("separation", "separation-strict", "lists-only", "screen", *HISTORIC)
MAX_RULES = 1000

_OPTIONAL = ("signal", "threshold", "around", "sensitive", "separation", "source", "historic")
_GRANTED = (Action.SEAL.name, Action.REMOVE.name, Action.QUARANTINE.name)


def load_policy(text: str, *, source: str, known: Sequence[SignalSpec], read: Texts | None = None) -> Policy:
    """Read, check and prove a policy.

    Args:
        text: the TOML text.
        source: the file's name, for error messages.
        known: every signal that this run can supply.
        read: the text of a policy that `include` names; without it, only shipped ones can be included.

    Raises:
        PolicyError: the text is no policy, names what is not known, is not monotone or breaks a promise.
    """
    texts = [text]

    def load(name: str, asked_by: str) -> dict[str, Any]:
        texts.append((read or shipped_policy)(name))
        return _parse(texts[-1], f"{name} (included by {asked_by})")

    file = join_includes(_parse(text, source), source, load)
    whole = "\n".join(texts)
    policy = _read(file, source, known, whole)
    bars = table(file.get("threshold", {}), f"{source}: [threshold]", allowed=None)
    variants = []
    for count, one in enumerate(_tables_of(file.get("source", []), f"{source}: source"), 1):
        where = f"{source}: source {count}"
        keys = table(one, where, needed=("shards", "threshold"))
        own = table(keys["threshold"], f"{where} threshold", allowed=bars)
        variant = _read({**file, "threshold": {**bars, **own}}, where, known, whole)
        variants.append((strings(keys["shards"], f"{where} shards"), variant))
    return replace(policy, sources=tuple(variants))


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source}: not TOML: {error}; correct it there") from error


def _read(file: dict[str, Any], source: str, known: Sequence[SignalSpec], text: str) -> Policy:
    table(file, source, needed=("name", "required", "rule"), allowed=_OPTIONAL)
    specs = {spec.name: spec for spec in known}
    aliases = read_aliases(file.get("signal", {}), f"{source}: [signal]", specs)
    names = Names(specs, aliases, read_bars(file.get("threshold", {}), f"{source}: [threshold]", specs, aliases))
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
    texts: tuple[str, ...] = ()
    if "separation" in file:
        where = f"{source}: [separation]"
        keys = table(file["separation"], where, needed=("never_kept",))
        texts = strings(keys["never_kept"], f"{where} never_kept")
    promises = tuple(names.expression(one, f"{source}: [separation] never_kept") for one in texts)
    names.check_bars_used([*(rule.text for rule in rules), *texts], f"{source}: [threshold]")
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
        silent=frozenset(name for name in bases if not specs[name].searchable),
        around=read_around(file.get("around", {}), f"{source}: [around]"),
        historic=string(file["historic"], f"{source}: historic") if "historic" in file else "",
    )
    for promise in promises:
        _prove(policy, promise, f"{source}: [separation] never_kept")
    return policy


def shipped_policy(name: str) -> str:
    """Return the text of a policy that comes with the program.

    Raises:
        PolicyError: there is none of this name.
    """
    pick(name, SHIPPED_POLICIES, "policy", "the name of a shipped policy or a .toml file")
    return (resources.files("pipeline") / "policies" / f"{name}.toml").read_text(encoding="utf-8")


def _tables_of(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise PolicyError(f"{where}: expected [[source]] tables, found {value!r}; write it with two brackets")
    return value


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
        seals = action == Action.SEAL.name
        rules[name] = Rule(name, names.expression(text, where, seals=seals), text, Action[action])
    for upper, lower in pairwise(rules.values()):
        if upper.action < lower.action:
            raise PolicyError(
                f"{source}: rule {upper.id!r} ({upper.action.name}) stands above rule {lower.id!r} "
                f"({lower.action.name}), so more harm could give the milder action; move {lower.id!r} above "
                f"{upper.id!r}: SEAL rules come first, then REMOVE, then QUARANTINE"
            )
    return tuple(rules.values())


def _prove(policy: Policy, promise: Expression, where: str) -> None:
    """Refuse a promise that the rules do not keep, with a sample that they would keep against it."""
    cases = alternatives(promise, lambda name: policy.alias_of(name).parts, where=where)
    columns = least_points(policy, cases)
    for row in np.flatnonzero(decide(policy, columns).breaks_promise)[:1]:
        least = sorted({one.signal for one in cases[row]})
        example = ", ".join(f"{name} = {columns[name][row]!s}" for name in least)
        raise PolicyError(
            f"{where}: '{explain_expression(promise)}' does not follow from the rules: a sample with {example}, "
            f"and every other signal at its least harmful value, would be kept; add a rule that fires there, or "
            f"promise less"
        )
