"""Random policies against a reference that decides one sample at a time, with Python's own True, False and None."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manifests.records import Action
from pipeline.policy import PolicyError, SignalSpec, decide, explain_expression, load_policy
from pipeline.policy_language import parse_expression

HIGH = ("a@1", "b@1", "c.d")
LOW = ("near", "usable")
ALIAS_PARTS = ("a@1", "b@1")
KNOWN = (
    *(SignalSpec(name, "high", (f"{name}#00",), None, True) for name in HIGH),
    *(SignalSpec(name, "low", (f"{name}#00",), None, True) for name in LOW),
)
BARS = (0.1, 0.45)
MARGINS = (0.0, 0.02, 0.5)
SETTINGS = settings(max_examples=150, deadline=None)


def around(bar):
    bar = np.float32(bar)
    return [float(np.nextafter(bar, np.float32(-np.inf))), float(bar), float(np.nextafter(bar, np.float32(np.inf)))]


KNOWN_VALUES = [-math.inf, math.inf, 0.0, 1.0, *(v for bar in BARS for v in around(bar))]
known_values = st.one_of(st.sampled_from(KNOWN_VALUES), st.floats(0, 1, width=32))
values = st.one_of(known_values, st.just(math.nan))

# An expression is ("cmp", name, op, bar) or ("and" | "or", [expressions]): none of the product's types.
leaves = st.one_of(
    st.tuples(st.just("cmp"), st.sampled_from(("m", *HIGH)), st.sampled_from((">=", ">")), st.sampled_from(BARS)),
    st.tuples(st.just("cmp"), st.sampled_from(LOW), st.sampled_from(("<=", "<")), st.sampled_from(BARS)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from(("and", "or")), st.lists(inner, min_size=2, max_size=3)),
    max_leaves=5,
)
rule_lists = st.lists(
    st.tuples(trees, st.sampled_from(("SEAL", "REMOVE", "QUARANTINE"))), min_size=1, max_size=4
).map(lambda rules: sorted(rules, key=lambda rule: -Action[rule[1]]))
requireds = st.lists(st.sampled_from(("m", *HIGH, *LOW)), min_size=1, max_size=2, unique=True)


def written(tree):
    """Write a tree with all its brackets."""
    if tree[0] == "cmp":
        return f"{tree[1]} {tree[2]} {tree[3]}"
    return f" {tree[0]} ".join(f"({written(part)})" for part in tree[1])


def toml(rules, required, margin, promise=None):
    lines = [f'name = "random"\nrequired = {required}\n[signal.m]\nfrom = {list(ALIAS_PARTS)}\nmargin = {margin}']
    lines += [f'[[rule]]\nid = "r{i}"\nwhen = "{written(w)}"\naction = "{a}"' for i, (w, a) in enumerate(rules)]
    lines += ['[sensitive]\nrules = ["r0"]']
    lines += [] if promise is None else [f'[separation]\nnever_kept = ["{written(promise)}"]']
    return "\n".join(lines)


def load(*args):
    return load_policy(toml(*args), source="random.toml", known=KNOWN)


# The reference: obvious, slow, one sample at a time.


def compared(value, op, bar, margin):
    bar = float(np.float32(bar))
    if math.isnan(value) or abs(value - bar) < margin:
        return None
    return {">=": value >= bar, ">": value > bar, "<=": value <= bar, "<": value < bar}[op]


def any_of(truths):
    truths = list(truths)
    return True if True in truths else None if None in truths else False


def all_of(truths):
    truths = list(truths)
    return False if False in truths else None if None in truths else True


def judged(tree, row, margin):
    if tree[0] == "cmp":
        _, name, op, bar = tree
        if name == "m":
            return any_of(compared(row[part], op, bar, margin) for part in ALIAS_PARTS)
        return compared(row[name], op, bar, 0.0)
    return (all_of if tree[0] == "and" else any_of)(judged(part, row, margin) for part in tree[1])


def reference(rules, required, margin, row):
    """Return (action, rule, open rules, missing, sensitive) of one sample."""
    truths = [judged(when, row, margin) for when, _ in rules]
    needed = {part for name in required for part in (ALIAS_PARTS if name == "m" else (name,))}
    missing = any(math.isnan(row[name]) for name in needed)
    acted = truths.index(True) if True in truths else -1
    above = truths if acted < 0 else truths[:acted]
    unsure = [truth is None for truth in above] + [False] * (len(truths) - len(above))
    without_rule = Action.QUARANTINE if missing or any(unsure) else Action.KEEP
    action = Action[rules[acted][1]] if acted >= 0 else without_rule
    return action, acted, unsure, missing, truths[0] is True


def columns_of(rows):
    return {name: np.array([row[name] for row in rows], np.float32) for name in (*HIGH, *LOW)}


def rows_of(one_value):
    return st.fixed_dictionaries({name: one_value for name in (*HIGH, *LOW)})


@SETTINGS
@given(rule_lists, requireds, st.sampled_from(MARGINS), st.lists(rows_of(values), min_size=1, max_size=12))
def test_deciding_columns_equals_deciding_row_by_row(rules, required, margin, rows):
    found = decide(load(rules, required, margin), columns_of(rows))
    for i, row in enumerate(rows):
        action, acted, unsure, missing, sensitive = reference(rules, required, margin, row)
        assert found.action[i] == action
        assert found.rule[i] == acted
        assert found.open_rules[i].tolist() == unsure
        assert found.missing[i] == missing
        assert found.sensitive[i] == sensitive
        assert not found.breaks_promise[i]


@SETTINGS
@given(rule_lists, requireds, st.sampled_from(MARGINS), st.data())
def test_more_harm_never_gives_a_milder_action(rules, required, margin, data):
    """Between points with the same signals known; where all are known that is the whole law."""
    mild = data.draw(rows_of(values))
    harsh = {}
    for name, value in mild.items():
        other = data.draw(known_values)
        harsh[name] = value if math.isnan(value) else max(value, other) if name in HIGH else min(value, other)
    action = decide(load(rules, required, margin), columns_of([mild, harsh])).action
    assert action[1] >= action[0]


@SETTINGS
@given(rule_lists, requireds, st.sampled_from(MARGINS), rows_of(values))
def test_a_sample_is_kept_only_if_all_that_is_required_spoke_and_no_rule_could_fire(rules, required, margin, row):
    policy = load(rules, required, margin)
    action = decide(policy, columns_of([row])).action[0]
    worst = {
        name: value if not math.isnan(value) else math.inf if name in HIGH else -math.inf
        for name, value in row.items()
    }
    could_fire = any(judged(when, worst, margin) is not False for when, _ in rules)
    spoke = not reference(rules, required, margin, row)[3]
    assert (action == Action.KEEP) == (spoke and not could_fire)


def grid(trees_used, margin):
    """Every point on or one float32 beside a bar (or a bar's margin), at the far ends, and unknown."""
    names = {name for tree in trees_used for name in names_in(tree)}
    beside = [v for bar in BARS for edge in {bar, bar - margin, bar + margin} for v in around(edge)]
    everywhere = [*sorted({*beside, -math.inf, math.inf}), math.nan]
    axes = [everywhere if name in names else [-math.inf] for name in HIGH]
    axes += [everywhere if name in names else [math.inf] for name in LOW]
    points = np.array(list(itertools.product(*axes)), np.float32)
    return {name: points[:, i] for i, name in enumerate((*HIGH, *LOW))}


def names_in(tree):
    if tree[0] == "cmp":
        return set(ALIAS_PARTS) if tree[1] == "m" else {tree[1]}
    return set().union(*(names_in(part) for part in tree[1]))


@settings(max_examples=150, deadline=None)
@given(rule_lists, trees, st.sampled_from(("alone", "a rule", "and a rule", "rules")), st.sampled_from((0.0, 0.02)))
def test_a_promise_loads_exactly_if_no_point_of_the_grid_breaks_it(rules, tree, kind, margin):
    whens = [when for when, _ in rules]
    promise = {
        "alone": tree,
        "a rule": whens[-1],
        "and a rule": ("and", [whens[0], tree]),
        "rules": ("or", [*whens, whens[0]]),
    }[kind]
    used = [promise, *whens]
    assume(len(set().union(*(names_in(tree) for tree in used))) <= 3)
    required = ["c.d"]
    points = grid(used, margin)
    points["c.d"] = np.where(np.isnan(points["c.d"]), np.float32(0), points["c.d"])  # all that is required spoke
    kept = decide(load(rules, required, margin), points).action == Action.KEEP
    broken = [
        row
        for row in (
            dict(zip(points, map(float, row), strict=True)) for row in np.stack([*points.values()], 1)[kept]
        )
        if judged(promise, row, 0.0) is not False
    ]
    if broken:
        with pytest.raises(PolicyError, match="does not follow from the rules"):
            load(rules, required, margin, promise)
    else:
        policy = load(rules, required, margin, promise)
        assert not decide(policy, points).breaks_promise.any()


@SETTINGS
@given(trees)
def test_the_text_of_an_expression_parses_to_the_same_expression(tree):
    expression = parse_expression(written(tree), where="here")
    assert parse_expression(explain_expression(expression), where="here") == expression


@SETTINGS
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_bar_keeps_its_float32_through_its_text(bar):
    expression = parse_expression(f"a >= {bar!r}", where="here")
    assert np.float32(expression.bar) == np.float32(bar)
    assert parse_expression(explain_expression(expression), where="here") == expression


@SETTINGS
@given(st.text(alphabet=st.sampled_from("ab.1 0e-()<>=andort"), max_size=24))
def test_any_text_parses_or_is_refused_with_a_policy_error(text):
    try:
        expression = parse_expression(text, where="here")
    except PolicyError:
        return
    assert parse_expression(explain_expression(expression), where="here") == expression


@SETTINGS
@given(rule_lists, st.integers(0, 3), st.integers(0, 3))
def test_rules_load_exactly_if_no_stricter_one_stands_below_a_milder_one(rules, i, j):
    i, j = i % len(rules), j % len(rules)
    swapped = list(rules)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    actions = [Action[action] for _, action in swapped]
    if actions == sorted(actions, reverse=True):
        load(swapped, ["a@1"], 0.0)
    else:
        with pytest.raises(PolicyError, match="stands above rule"):
            load(swapped, ["a@1"], 0.0)
