"""What may be said of a head: which rows are held out, rates with their intervals, calibration.

- Rows that share a tie (bytes, sample, source) are never on two sides of a split, and the split depends on the
  rows' names and a seed, never on their order.
- No rate is stated of fewer than 59 rows: 59 without a miss are what a one-sided 95 % bound of 0.95 needs
  (0.05 ** (1 / 59) = 0.9505).
- Intervals are two-sided, 95 %, exact (Clopper, Pearson, 1934): k of n independent rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

from classifiers.signals import Scores

SPLITS = ("fit", "calibrate", "test")
SHARES = (0.6, 0.2, 0.2)
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MIN_ROWS_FOR_A_RATE = 59
BINS = 10

Bools = NDArray[np.bool_]
Record = dict[str, Any]


def split_rows(names: Sequence[str], ties: Sequence[Sequence[str]], *, seed: int) -> NDArray[np.int64]:
    """Deal rows to fit, calibrate and test (0, 1, 2) by the hash of the seed and the smallest name tied to a row.

    Args:
        names: one a row; rows of one name are tied.
        ties: for each further kind of tie its value in every row; equal values tie.
        seed: another seed, another deal.
    """
    distinct, ranks = np.unique(np.array(names, np.str_), return_inverse=True)
    tied = [ranks, *(np.unique(np.array(values, np.str_), return_inverse=True)[1] for values in ties)]
    ends = np.concatenate([(1 + kind) * len(names) + values for kind, values in enumerate(tied)])
    starts, size = np.tile(np.arange(len(names)), len(tied)), (1 + len(tied)) * len(names)
    graph = coo_array((np.ones(len(ends)), (starts, ends)), shape=(size, size))
    parts = connected_components(graph, directed=False)[1][: len(names)]
    smallest = np.full(size, len(names))
    np.minimum.at(smallest, parts, ranks)
    digests = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in distinct.tolist()]
    places = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    sides: NDArray[np.int64] = np.searchsorted(np.cumsum(SHARES[:-1]), places[smallest[parts]], side="right")
    return sides


def interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % Clopper-Pearson interval of the rate of which `count` of `n` rows are a sample."""
    low = beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    return float(low), float(high)


def rate(hits: Bools) -> Record:
    """Return how often `hits` is true, with n and interval; of too few rows, n and that nothing is claimed."""
    n, count = len(hits), int(hits.sum())
    if n < MIN_ROWS_FOR_A_RATE:
        return {"n": n, "no_claim": f"n = {n} < {MIN_ROWS_FOR_A_RATE}"}
    low, high = interval(count, n)
    return {"n": n, "count": count, "rate": count / n, "low": low, "high": high}


def rates(scores: Scores, truths: Bools) -> list[Record]:
    """Return recall, false-positive rate and removal rate at every threshold (removed: score >= threshold)."""
    parts = {"recall": truths, "false_positive_rate": ~truths, "removal_rate": np.ones_like(truths)}
    return [
        {"threshold": threshold, **{name: rate(scores[part] >= threshold) for name, part in parts.items()}}
        for threshold in THRESHOLDS
    ]


def group_rates(scores: Scores, truths: Bools, groups: NDArray[np.str_]) -> list[Record]:
    """Return, for every labelled group, its false-positive rates and their ratio to that of all negatives.

    The ratio is None where nothing is claimed of either, or where the whole has no false positive.
    """
    found = []
    for group in sorted(set(groups.tolist()) - {""}):
        for threshold in THRESHOLDS:
            removed = scores >= threshold
            own, whole = rate(removed[~truths & (groups == group)]), rate(removed[~truths])
            ratio = own["rate"] / whole["rate"] if "rate" in own and whole["rate"] else None
            found.append({"group": group, "threshold": threshold, "false_positive_rate": own, "ratio": ratio})
    return found


def reliability(scores: Scores, truths: Bools) -> Record:
    """Return the expected calibration error over 10 equal bins of the score, and what lies in each bin."""
    places = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    n, positives, total = (np.bincount(places, of, BINS) for of in (None, truths, scores))
    means = total / np.maximum(n, 1)
    bins = [
        {"from": i / BINS, "n": int(n[i]), "positives": int(positives[i]), "mean_score": means[i] if n[i] else None}
        for i in range(BINS)
    ]
    return {"ece": float(np.abs(positives - total).sum() / len(scores)), "bins": bins}
