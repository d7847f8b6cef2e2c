"""A policy explained: its rules in words, what they leave of a plane, and rules that never decide.

Owns what is said of a policy by itself. Leaves what it does to stored samples to `policy_preview`.

- Every signal that is not on an axis of the plane stands at its least harmful value, and has spoken.
- A rule is closed towards harm, so it is shadowed exactly if at the least point of each of its alternatives an
  earlier rule is true (margins aside).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
from numpy.typing import NDArray

from manifests.records import Action
from pipeline.policy import Policy, PolicyError, decide, explain_expression
from pipeline.policy_decide import least_points, truths
from pipeline.policy_language import Comparison, Expression, Truth, alternatives, comparisons, least_value

_VERBS = {
    Action.SEAL: "seal as a case, and withhold",
    Action.REMOVE: "remove",
    Action.QUARANTINE: "set aside for a person",
}
_MARKS = {Action.KEEP: ".", Action.QUARANTINE: "Q", Action.REMOVE: "R", Action.SEAL: "S"}
_COLOURS = {
    Action.KEEP: "#dfeee3",
    Action.QUARANTINE: "#f1dfa4",
    Action.REMOVE: "#d98c6a",
    Action.SEAL: "#7a3b52",
}
_OP_WORDS = {">=": "at least", ">": "over", "<=": "at most", "<": "under"}


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Actions over two signals: int8 [S, S], row i of `across` = j / (S - 1), `up` = i / (S - 1)."""

    across: str
    up: str
    actions: NDArray[np.int8]


def explain_policy(policy: Policy) -> Iterator[str]:
    """Yield what a policy says, line by line."""
    yield f"policy    {policy.name} ({policy.digest[:12]})"
    if policy.historic:
        yield f"historic  {policy.historic}"
    for alias in policy.aliases:
        margin = f"; within {alias.margin:g} of a bar it says nothing" if alias.margin else ""
        yield f"signal    {alias.name}: the largest of {', '.join(alias.parts)}{margin}"
    yield f"speak     nothing is kept unless these have spoken: {', '.join(policy.required)}"
    for place, rule in enumerate(policy.rules, 1):
        hidden = "; who meets it is withheld" if rule.id in policy.sensitive else ""
        yield f"rule {place:<4} {rule.id}: {_VERBS[rule.action]} where {_in_words(rule.when)}{hidden}"
    yield "else      keep, if no rule was open (a signal it needs did not speak)"
    for promise in policy.never_kept:
        yield f"promise   never kept: {_in_words(promise)}: proved from the rules"
    for patterns, one in policy.sources:
        changed = [
            f"{mine.id}: {_in_words(mine.when)}"
            for mine, base in zip(one.rules, policy.rules, strict=True)
            if mine.when != base.when
        ]
        yield f"source    shards {', '.join(patterns)}: {'; '.join(changed) or 'no rule differs'}"


def find_idle_rules(policy: Policy) -> Iterator[str]:
    """Yield the rules that can never be true, and those that never decide because earlier ones do."""
    for place, rule in enumerate(policy.rules):
        cases = alternatives(rule.when, lambda name: policy.alias_of(name).parts, where=rule.id)
        possible = [case for case in cases if all(_can_be_true(one, policy) for one in case)]
        if not possible:
            yield f"rule {rule.id!r} can never be true: a bar is out of reach, or no list feeds its signal"
            continue
        columns = least_points(policy, possible)
        shadows = np.zeros(len(possible), np.bool_)
        for earlier in policy.rules[:place]:
            shadows |= truths(policy, earlier.when, columns, with_margins=False) == Truth.TRUE
        if shadows.all():
            yield f"rule {rule.id!r} never decides: wherever it is true, an earlier rule is"


def draw_plane(policy: Policy, across: str, up: str, steps: int) -> Plane:
    """Decide a grid over two signals or aliases of which more is harm.

    Raises:
        PolicyError: the policy does not read one of them so.
    """
    rules = chain.from_iterable(comparisons(each.when) for each in policy.rules)
    read = {one.signal for one in rules if one.op in (">=", ">")}
    for name in (across, up):
        if name not in read:
            raise PolicyError(f"plane: no rule compares {name!r} with a least bar; these stand so: {sorted(read)}")
    values = np.linspace(0, 1, steps, dtype=np.float32)
    columns = {name: np.repeat(column, steps * steps) for name, column in least_points(policy, [()]).items()}
    for name, grid in ((across, np.tile(values, steps)), (up, np.repeat(values, steps))):
        for part in policy.alias_of(name).parts:
            columns[part] = grid
    return Plane(across, up, decide(policy, columns).action.reshape(steps, steps))


def plane_text(plane: Plane) -> Iterator[str]:
    """Yield the plane as text, the largest `up` first."""
    steps = len(plane.actions)
    yield f"{plane.up} (up) by {plane.across} (across), 0 to 1; all other signals at their least harmful"
    for row in range(steps - 1, -1, -1):
        marks = "".join(f" {_MARKS[Action(action)]}" for action in plane.actions[row])
        yield f"{row / (steps - 1):5.2f} {marks}"
    yield "  " + ", ".join(f"{mark} {action.name}" for action, mark in _MARKS.items())


def plane_svg(plane: Plane) -> str:
    """Return the plane as one SVG picture, 480 units wide."""
    steps, left, size = len(plane.actions), 60, 400
    cell, marks = size / steps, []
    for row, actions in enumerate(plane.actions):
        start = 0
        for action, run in groupby(actions.tolist()):
            length = len(list(run))
            x, y = left + start * cell, 20 + (steps - 1 - row) * cell
            box = f'x="{x:.2f}" y="{y:.2f}" width="{length * cell:.2f}" height="{cell + 0.2:.2f}"'
            marks.append(f'<rect {box} fill="{_COLOURS[Action(action)]}"/>')
            start += length
    for at in (0.0, 0.25, 0.5, 0.75, 1.0):
        marks.append(f'<text x="{left + at * size:.0f}" y="438" text-anchor="middle">{at:g}</text>')
        marks.append(f'<text x="52" y="{424 - at * size:.0f}" text-anchor="end">{at:g}</text>')
    for place, (action, colour) in enumerate(_COLOURS.items()):
        marks.append(f'<rect x="{60 + place * 105}" y="478" width="12" height="12" fill="{colour}"/>')
        marks.append(f'<text x="{77 + place * 105}" y="489">{action.name}</text>')
    marks.append(f'<text x="260" y="460" text-anchor="middle">{plane.across}</text>')
    marks.append(f'<text x="16" y="220" text-anchor="middle" transform="rotate(-90 16 220)">{plane.up}</text>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 490 500" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="490" height="500" fill="white"/>', *marks, "</svg>", ""])


def _in_words(expression: Expression) -> str:
    text = explain_expression(expression)
    for op in (">=", "<=", ">", "<"):
        text = text.replace(f" {op} ", f" is {_OP_WORDS[op]} ")
    return text


def _can_be_true(comparison: Comparison, policy: Policy) -> bool:
    least = float(least_value(comparison))
    within = least >= 0 if comparison.op in ("<=", "<") else least <= 1 or comparison.signal.endswith(".lists")
    return within and comparison.signal not in policy.silent
