"""A thousand policies that could be turned round are refused; promises of shipped ones by brute force."""

from __future__ import annotations

import itertools
import re
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_kit import KNOWN, METADATA

from manifests.records import Action
from pipeline.policy import SHIPPED_POLICIES, PolicyError, decide, load_policy, shipped_policy
from pipeline.policy_decide import Truth, truths
from pipeline.policy_language import parse_expression

SIGNALS = KNOWN + METADATA
HARM = [one.name for one in SIGNALS if one.worse == "high"]
DISTANCES = [one.name for one in SIGNALS if one.worse == "low"]
ACTIONS = ("SEAL", "REMOVE", "QUARANTINE")


def sound(draw: Random) -> str:
    """A comparison that fires on more harm."""
    name, bar = draw.choice(HARM + DISTANCES), draw.randrange(1, 100) / 100
    return f"{name} {draw.choice(('<=', '<') if name in DISTANCES else ('>=', '>'))} {bar}"


def inverted(draw: Random) -> str:
    """One that fires on less, or on one value alone; or the same said the other way about, or with `not`."""
    name, op, bar = sound(draw).split()
    back = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}[op]
    return draw.choice(
        [f"{name} {back} {bar}", f"{name} == {bar}", f"{bar} {op} {name}", f"not ({name} {op} {bar})"]
    )


def grown(draw: Random, leaf: str) -> str:
    """The leaf somewhere in an expression of sound ones."""
    parts = [leaf, *(sound(draw) for _ in range(draw.randrange(3)))]
    draw.shuffle(parts)
    flat = f" {draw.choice(('and', 'or'))} ".join(f"({part})" for part in parts)
    return draw.choice([flat, f"({flat}) or {sound(draw)}", f"{sound(draw)} and ({flat})"])


def rules_of(draw: Random) -> list[tuple[str, str]]:
    rules = [(grown(draw, sound(draw)), draw.choice(ACTIONS)) for _ in range(draw.randrange(1, 4))]
    return sorted(rules, key=lambda rule: ACTIONS.index(rule[1]))


def turned_round(draw: Random) -> list[tuple[str, str]]:
    """Rules with one that fires on less harm, or with a milder one above a stricter one, or with one that lifts."""
    rules = rules_of(draw)
    kind = draw.choice(("inverted", "milder first", "lifts"))
    if kind == "inverted":
        place = draw.randrange(len(rules))
        rules[place] = (grown(draw, inverted(draw)), rules[place][1])
    elif kind == "milder first":
        rules = [(sound(draw), draw.choice(ACTIONS[1:])), *rules, (sound(draw), "SEAL")]
    else:
        rules.insert(draw.randrange(len(rules) + 1), (sound(draw), "KEEP"))
    return rules


def toml(rules: list[tuple[str, str]]) -> str:
    lines = [
        f'[[rule]]\nid = "r{n}"\nwhen = "{when}"\naction = "{action}"' for n, (when, action) in enumerate(rules)
    ]
    return "\n".join(['name = "random"\nrequired = ["caption.minor"]', *lines, '[sensitive]\nrules = ["r0"]'])


def load(rules: list[tuple[str, str]]) -> None:
    load_policy(toml(rules), source="random.toml", known=SIGNALS)


TRIED: set[str] = set()


@settings(max_examples=1000, deadline=None, database=None)
@given(st.integers(0, 2**63))
def test_a_policy_that_could_be_turned_round_is_refused_at_load(seed):
    rules = turned_round(Random(seed))
    with pytest.raises(PolicyError):
        load(rules)
    TRIED.add(toml(rules))
    load(rules_of(Random(seed)))  # what they are made of is sound, so that nothing else can be the reason


def test_a_thousand_different_ones_were_refused():
    seed = -1
    while len(TRIED) < 1000:  # hypothesis tries some numbers twice
        with pytest.raises(PolicyError):
            load(turned_round(Random(seed)))
        TRIED.add(toml(turned_round(Random(seed))))
        seed -= 1
    assert seed > -500


# Promises of the shipped policies: its own, and others near its bars, true and false ones.

WANTED = {
    "lists-only": [
        "list.csam.exact >= 1",
        "list.csam.pdq_distance <= 31",
        "list.other.exact > 0",
        "pdq.usable < 1",
    ],
    "separation": ["sexual >= 0.449", "sexual > 0.45 or minor >= 1.0", "sexual >= 0.1 and minor >= 0.199"],
    "separation-strict": ["sexual >= 0.099", "minor >= 0.2", "sexual >= 0.1 or pdq.usable < 1"],
    "historic/laion-400m": ["meta.nsfw >= 0.5", "meta.nsfw >= 0.5 and caption.minor >= 1", "meta.nsfw > 0.49"],
    "historic/relaion-research-safe": ["meta.punsafe > 0.45", "meta.punsafe >= 0.45"],
    "historic/relaion-research": [
        "meta.punsafe > 0.95 and url.minor >= 1",
        "meta.punsafe >= 0.95 and url.minor >= 1",
    ],
    "historic/sd2": ["meta.punsafe >= 0.1", "meta.punsafe >= 0.0999"],
}


def grid_of(names, text, margins) -> dict[str, np.ndarray]:
    """Every combination of values on and one float32 beside each bar and margin, lists hit or not."""
    bars = {0.0, 1.0, *(float(one) for one in re.findall(r"[<>]=? *(\d\.\d+|\d)\b", text))}
    edges = np.array(
        sorted({bar + off for bar in bars for margin in margins for off in (0, margin, -margin)}), np.float32
    )
    scores = np.unique(
        np.concatenate([edges, np.nextafter(edges, np.float32(-9)), np.nextafter(edges, np.float32(9))])
    )
    near = np.array([31, np.nextafter(np.float32(31), np.float32(32)), np.inf], np.float32)
    few = np.array([0, np.nextafter(np.float32(0), np.float32(1)), 0.2, 1], np.float32)
    axes = [
        near if "distance" in name else few[[0, 1, 3]] if name.startswith("list.") or "usable" in name
        else few if name.startswith(("caption.", "url.")) else scores
        for name in names
    ]  # fmt: skip
    points = np.array(list(itertools.product(*axes)), np.float32)
    return {name: np.ascontiguousarray(points[:, place]) for place, name in enumerate(names)}


def with_promise(text: str, promise: str) -> str:
    if f'"{promise}"' in text.partition("never_kept = ")[2]:
        return text
    if "[separation]" not in text:
        return f'{text}\n[separation]\nnever_kept = ["{promise}"]\n'
    return text.replace("never_kept = [", f'never_kept = ["{promise}", ', 1)


def test_every_shipped_policy_that_promises_is_tried():
    promising = {name for name in SHIPPED_POLICIES if "never_kept" in shipped_policy(name)}
    assert promising <= set(WANTED) <= set(SHIPPED_POLICIES)


@pytest.mark.parametrize("name", WANTED)
def test_what_is_said_of_a_promise_of_a_shipped_policy_equals_brute_force(name):
    text = shipped_policy(name)
    policy = load_policy(text, source=name, known=SIGNALS)
    verdicts = set()
    for promise in [*WANTED[name], *re.findall(r'"([^"]+)"', text.partition("never_kept = ")[2].partition("]")[0])]:
        wanted = parse_expression(promise, where="here")
        read = {word for word in re.findall(r"[a-z][\w.@-]*", promise) if word not in ("and", "or")}
        parts = {part for word in read for part in policy.alias_of(word).parts}
        columns = grid_of(
            sorted({*policy.signals, *parts}), text + promise, {a.margin for a in policy.aliases} | {0}
        )
        read_by_rules = {signal: columns[signal] for signal in policy.signals}
        kept = decide(policy, read_by_rules).action == Action.KEEP
        assert kept.any()
        broken = kept & (truths(policy, wanted, columns, with_margins=False) == Truth.TRUE)
        verdicts.add(bool(broken.any()))
        if not broken.any():
            assert load_policy(with_promise(text, promise), source=name, known=SIGNALS).never_kept
            continue
        with pytest.raises(PolicyError, match="does not follow from the rules") as refused:
            load_policy(with_promise(text, promise), source=name, known=SIGNALS)
        shown = re.search(r"a sample with (.*), and every other signal", str(refused.value)).group(1)
        values = dict(part.split(" = ") for part in shown.split(", "))
        example = {one: np.array([values.get(one, harmless(one))], np.float32) for one in columns}
        assert decide(policy, {one: example[one] for one in policy.signals}).action[0] == Action.KEEP
        assert truths(policy, wanted, example, with_margins=False)[0] == Truth.TRUE
    assert verdicts == {True, False}


def harmless(name: str) -> float:
    return np.inf if name in DISTANCES else 0.0
