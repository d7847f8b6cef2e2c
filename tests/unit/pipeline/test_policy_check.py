"""What is said of a policy: words, idle rules, the plane."""

import dataclasses
import xml.etree.ElementTree as ET
from itertools import product

import numpy as np
import pytest
from policy_kit import CHILD, HEAD, KNOWN, METADATA, POLICY, column_set

from manifests.records import Action
from pipeline.policy import (
    SHIPPED_POLICIES,
    PolicyError,
    decide,
    load_policy,
    shipped_policy,
)
from pipeline.policy_check import draw_plane, explain_policy, find_idle_rules, plane_svg, plane_text
from pipeline.policy_decide import truths
from pipeline.policy_language import Truth

LISTED = tuple(dataclasses.replace(spec, searchable=True, radius=spec.radius and 31) for spec in KNOWN)


def load(text, known=LISTED + METADATA):
    return load_policy(text, source="drawn.toml", known=known)


def rule(name, when, action="REMOVE"):
    return f'[[rule]]\nid = "{name}"\nwhen = "{when}"\naction = "{action}"\n'


HEADER = f"""
name = "n"
required = ["list.csam.exact"]
[signal.sexual]
from = ["{HEAD}"]
[signal.minor]
from = ["{CHILD}"]
"""


def test_a_policy_is_said_in_words():
    text = "\n".join(explain_policy(load(POLICY)))
    assert "both: remove where sexual is at least 0.1 and minor is at least 0.2; who meets it is withheld" in text
    assert "listed: seal as a case, and withhold where list.csam.exact is at least 1" in text
    assert "minor: the largest of minor-zero-shot@1, caption.minor" in text
    assert "never kept: sexual is at least 0.45: proved from the rules" in text


@pytest.mark.parametrize(
    ("rules", "idle"),
    [
        (rule("a", "sexual >= 0.4") + rule("b", "sexual >= 0.5 and minor >= 0.1"), ["'b' never decides"]),
        (rule("a", "sexual >= 0.4") + rule("b", "sexual >= 0.4"), ["'b' never decides"]),
        (rule("a", "sexual >= 0.4") + rule("b", "sexual >= 0.39"), []),
        (rule("a", "sexual > 0.4") + rule("b", "sexual >= 0.4"), []),
        (
            rule("a", "sexual >= 0.4") + rule("m", "minor >= 0.4") + rule("b", "sexual >= 0.5 or minor >= 0.5"),
            ["'b' never"],
        ),
        (rule("a", "sexual >= 1.5"), ["'a' can never be true"]),
        (rule("a", "sexual > 1"), ["'a' can never be true"]),
        (rule("a", "list.csam.pdq_distance < 0"), ["'a' can never be true"]),
        (rule("a", "list.csam.pdq_distance <= 0"), []),
        (rule("a", "sexual >= 2 or minor >= 0.5"), []),
    ],
)
def test_rules_that_never_decide_are_found(rules, idle):
    found = list(find_idle_rules(load(HEADER + rules)))
    assert len(found) == len(idle), found
    assert all(word in line for word, line in zip(idle, found, strict=True)), found


def test_a_rule_on_a_signal_that_no_list_feeds_is_idle():
    found = list(find_idle_rules(load(HEADER + rule("a", "list.other.exact >= 1"), KNOWN)))
    assert found == ["rule 'a' can never be true: a bar is out of reach, or no list feeds its signal"]


def test_what_is_called_idle_never_decides_on_a_fine_grid():
    policy = load(HEADER + rule("a", "sexual >= 0.4") + rule("b", "sexual >= 0.5 and minor >= 0.1"))
    grid = np.linspace(0, 1, 41, dtype=np.float32)
    points = np.array(list(product(grid, grid)), np.float32)
    columns = {name: np.repeat(value, len(points)) for name, value in column_set().items()}
    columns |= {HEAD: points[:, 0], CHILD: points[:, 1]}
    assert not (decide(policy, columns).rule == 1).any()


def test_the_plane_is_what_the_policy_decides():
    plane = draw_plane(load(POLICY), "sexual", "minor", 21)
    for up, across in product(range(21), range(21)):
        sexual, minor = np.linspace(0, 1, 21, dtype=np.float32)[[across, up]]
        expected = Action.REMOVE if sexual >= 0.45 or (sexual >= 0.1 and minor >= 0.2) else Action.KEEP
        # 0.1 and 0.45 lie on the grid: the same float32 on both sides.
        if not np.isclose(sexual, [0.1, 0.45]).any() and not np.isclose(minor, 0.2):
            assert plane.actions[up, across] == expected
    lines = list(plane_text(plane))
    assert len(lines) == 23
    assert lines[1].startswith(" 1.00  . . ")
    assert lines[21].endswith("R")


def test_the_picture_is_valid_svg_and_shows_every_cell():
    plane = draw_plane(load(POLICY), "sexual", "minor", 101)
    root = ET.fromstring(plane_svg(plane))
    boxes = [one for one in root.iter() if one.tag.endswith("rect")][1:-4]
    area = sum(float(box.get("width")) for box in boxes) / (400 / 101)
    assert round(area) == 101 * 101


def test_a_plane_needs_signals_that_rules_compare():
    with pytest.raises(PolicyError, match="these stand so"):
        draw_plane(load(POLICY), "sexual", "meta.nsfw", 3)


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_promises_of_shipped_policies_hold_by_brute_force(name):
    policy = load(shipped_policy(name))
    grids = {
        signal: np.array([0, 1, 30, 31, np.inf] if "distance" in signal else [0, 0.05, 0.1, 0.2, 0.45, 0.95, 1])
        for signal in policy.signals
    }
    points = np.array(list(product(*grids.values())), np.float32)
    columns = dict(zip(policy.signals, points.T.copy(), strict=True))
    kept = decide(policy, columns).action == Action.KEEP
    assert kept.any()
    for promise in policy.never_kept:
        assert not (kept & (truths(policy, promise, columns, with_margins=False) == Truth.TRUE)).any()


@pytest.mark.parametrize("name", [name for name in SHIPPED_POLICIES if name.startswith("historic/")])
def test_replicas_say_what_they_miss_and_read_metadata_alone(name):
    policy = load(shipped_policy(name))
    assert "known to miss" in policy.historic
    assert all(signal.startswith(("meta.", "caption.", "url.")) for signal in policy.signals)
