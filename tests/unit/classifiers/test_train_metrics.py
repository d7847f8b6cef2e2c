from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from classifiers.heads.evaluate import (
    BINS,
    MIN_ROWS_FOR_A_RATE,
    THRESHOLDS,
    group_rates,
    interval,
    rate,
    rates,
    reliability,
    split_rows,
)

NAMES = st.integers(0, 30).map(lambda number: f"picture-{number}")
ROWS = st.lists(
    st.tuples(NAMES, st.sampled_from("abcdefghij"), st.integers(0, 25).map(str)), min_size=1, max_size=60
)


def deal(rows, seed=0):
    names, keys, sources = zip(*rows, strict=True)
    return split_rows(names, (keys, sources), seed=seed).tolist()


@settings(deadline=None)
@given(ROWS, st.integers(0, 5))
def test_no_tie_is_ever_on_two_sides(rows, seed):
    sides = deal(rows, seed)
    for kind in range(3):
        for value in {row[kind] for row in rows}:
            assert len({side for row, side in zip(rows, sides, strict=True) if row[kind] == value}) == 1


@settings(deadline=None)
@given(ROWS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_the_rows(rows, seed, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    sides = deal(rows, seed)
    assert deal([rows[place] for place in order], seed) == [sides[place] for place in order]


def test_more_labels_move_no_row_that_they_are_not_tied_to():
    rows = [(f"picture-{n}", f"key-{n}", f"source-{n}") for n in range(400)]
    assert deal(rows)[:200] == deal(rows[:200])


def test_the_shares_are_60_20_20_and_another_seed_deals_anew():
    rows = [(f"picture-{n}", f"key-{n}", f"source-{n}") for n in range(5000)]
    first, second = deal(rows, 0), deal(rows, 1)
    np.testing.assert_allclose(np.bincount(first) / 5000, [0.6, 0.2, 0.2], atol=0.03)
    assert np.mean(np.array(first) == second) < 0.6


@settings(deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1))
def test_intervals_are_those_of_clopper_and_pearson(n, share):
    count = round(share * n)
    exact = binomtest(count, n).proportion_ci(method="exact")
    np.testing.assert_allclose(interval(count, n), [exact.low, exact.high], atol=1e-9)


def test_fifty_nine_without_a_miss_are_what_a_bound_of_095_needs():
    def one_sided(n):
        return binomtest(n, n, alternative="greater").proportion_ci(method="exact").low

    assert one_sided(MIN_ROWS_FOR_A_RATE - 1) < 0.95 < one_sided(MIN_ROWS_FOR_A_RATE)


def test_nothing_is_claimed_of_fewer_than_59_rows():
    assert rate(np.zeros(58, np.bool_)) == {"n": 58, "no_claim": "n = 58 < 59"}
    assert rate(np.arange(59) < 3)["rate"] == 3 / 59
    assert rate(np.zeros(0, np.bool_)) == {"n": 0, "no_claim": "n = 0 < 59"}


def test_rates_are_counted_at_or_above_each_threshold():
    truths = np.arange(200) < 80
    scores = np.where(truths, 0.5, 0.1).astype(np.float32)
    scores[:8], scores[80:86] = 0.05, 0.95
    found = {row["threshold"]: row for row in rates(scores, truths)}
    assert tuple(found) == THRESHOLDS
    half = found[0.5]
    assert (half["recall"]["count"], half["recall"]["n"]) == (72, 80)
    assert (half["false_positive_rate"]["count"], half["false_positive_rate"]["n"]) == (6, 120)
    assert (half["removal_rate"]["count"], half["removal_rate"]["n"]) == (78, 200)
    assert found[0.6]["recall"]["count"] == 0
    assert found[0.1]["false_positive_rate"]["rate"] == 1
    assert half["recall"]["low"] < 0.9 < half["recall"]["high"]


def test_groups_are_held_against_the_whole():
    truths = np.zeros(300, np.bool_)
    truths[290:] = True
    groups = np.array(["often"] * 100 + ["few"] * 20 + ["never"] * 100 + [""] * 80)
    scores = np.zeros(300, np.float32)
    scores[:29] = 0.55
    found = {(row["group"], row["threshold"]): row for row in group_rates(scores, truths, groups)}
    assert {group for group, _ in found} == {"often", "few", "never"}
    assert found["often", 0.5]["ratio"] == pytest.approx(0.29 / (29 / 290))
    assert found["often", 0.6]["ratio"] is None
    assert found["never", 0.5]["ratio"] == 0
    assert found["few", 0.5] == {
        "group": "few",
        "threshold": 0.5,
        "false_positive_rate": {"n": 20, "no_claim": "n = 20 < 59"},
        "ratio": None,
    }


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=80))
def test_reliability_is_what_a_count_by_hand_gives(rows):
    scores, truths = np.array([s for s, _ in rows], np.float32), np.array([t for _, t in rows])
    found = reliability(scores, truths)
    assert sum(row["n"] for row in found["bins"]) == len(rows)
    error = 0.0
    for place, row in enumerate(found["bins"]):
        inside = [
            (float(s), t)
            for s, t in zip(scores, truths, strict=True)
            if min(int(s * np.float32(10)), BINS - 1) == place
        ]
        assert (row["from"], row["n"]) == (place / BINS, len(inside))
        assert row["positives"] == sum(t for _, t in inside)
        if inside:
            assert row["mean_score"] == pytest.approx(np.mean([s for s, _ in inside]))
            error += abs(sum(s - t for s, t in inside)) / len(rows)
    assert found["ece"] == pytest.approx(error, abs=1e-9)


def test_scores_that_say_the_share_of_positives_have_no_calibration_error():
    scores = np.repeat(np.array([0.25, 0.75], np.float32), 40)
    truths = np.concatenate([np.arange(40) < 10, np.arange(40) < 30])
    assert reliability(scores, truths)["ece"] == 0
    assert reliability(scores, ~truths)["ece"] == 0.5
