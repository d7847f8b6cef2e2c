"""Train a linear head on stored embeddings and yes/no labels: no pixels needed.

Thin on purpose: one penalised logistic regression and three counts. The choice of thresholds, calibration
and bounds on recall are not its business.

- Same rows in the same order on the same machine: same weights.
- Every fifth row of each class is held out; the counts are of those rows alone.
- No weights without convergence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.heads.mlp import Layer
from classifiers.signals import Embeddings

MIN_ROWS_PER_CLASS = 10
_HELD_OUT_EVERY = 5
_MAX_STEPS = 100
_MAX_HALVINGS = 40
_GRADIENT_AT_MOST = 1e-8

Floats = NDArray[np.float64]


class TrainingError(ValueError):
    """The rows cannot train a head, or the fit did not converge."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How the head did, at a score of 0.5, on the rows that it was not trained on."""

    count: int
    positives: int
    false_positives: int
    false_negatives: int


@dataclass(frozen=True, slots=True)
class LinearHead:
    """One layer for `encode_head`, and how it did on the rows held out."""

    layer: Layer
    held_out: HeldOut


def train_logistic(
    embeddings: Embeddings, labels: NDArray[np.bool_], *, l2: float = 1e-3, balance: bool = True
) -> LinearHead:
    """Fit a logistic regression by Newton's method with step halving, in float64.

    Minimises the mean log loss plus `l2 / 2` times the squared length of the weights; the bias is free.
    (Iteratively reweighted least squares: Hastie, Tibshirani, Friedman, Elements of Statistical Learning, 4.4.1.)

    Args:
        embeddings: float16, N x D.
        labels: bool, N.
        l2: weight of the penalty, above 0.
        balance: give both classes the same total weight, whatever their sizes.

    Raises:
        TrainingError: fewer than 10 rows of a class, a row with NaN, shapes that do not fit, no convergence.
    """
    _check(embeddings, labels, l2)
    held_out = _held_out(labels)
    rows = np.column_stack([embeddings.astype(np.float64), np.ones(len(labels))])
    weights = _fit(rows[~held_out], labels[~held_out], l2, balance)
    layer = Layer(weights[None, :-1].astype(np.float32), weights[-1:].astype(np.float32))
    truth = labels[held_out]
    guess = rows[held_out] @ weights >= 0
    counts = HeldOut(
        count=len(truth),
        positives=int(truth.sum()),
        false_positives=int((guess & ~truth).sum()),
        false_negatives=int((~guess & truth).sum()),
    )
    return LinearHead(layer, counts)


def _check(embeddings: Embeddings, labels: NDArray[np.bool_], l2: float) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or labels.dtype != np.bool_:
        raise TrainingError(
            f"expected embeddings N x D and N bool labels, found {embeddings.shape}, {labels.shape} {labels.dtype}"
        )
    if not l2 > 0:
        raise TrainingError(
            f"l2: expected above 0, found {l2}: without it classes that can be parted never converge"
        )
    for label in (True, False):
        count = int((labels == label).sum())
        if count < MIN_ROWS_PER_CLASS:
            raise TrainingError(f"label {label}: expected {MIN_ROWS_PER_CLASS} rows at least, found {count}")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise TrainingError(f"row {broken[0]} and {len(broken) - 1} more hold NaN or infinity; leave them out")


def _held_out(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    held_out = np.zeros(len(labels), dtype=np.bool_)
    for label in (True, False):
        held_out[np.flatnonzero(labels == label)[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]] = True
    return held_out


def _fit(rows: Floats, labels: NDArray[np.bool_], l2: float, balance: bool) -> Floats:
    share = np.full(len(rows), 1 / len(rows))
    if balance:
        share = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    signs = np.where(labels, 1.0, -1.0)
    penalty = np.append(np.full(rows.shape[1] - 1, l2), 0.0)
    weights = np.zeros(rows.shape[1])

    def loss(at: Floats) -> float:
        return float(share @ np.logaddexp(0, -signs * (rows @ at)) + penalty @ at**2 / 2)

    for _ in range(_MAX_STEPS):
        # The chance that the label is the other one, by the present weights.
        wrong = np.exp(-np.logaddexp(0, signs * (rows @ weights)))
        gradient = penalty * weights - rows.T @ (share * signs * wrong)
        if np.abs(gradient).max() <= _GRADIENT_AT_MOST:
            return weights
        curvature = (rows.T * (share * wrong * (1 - wrong))) @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        here, decrease = loss(weights), float(gradient @ step)
        for halving in range(_MAX_HALVINGS):
            length = 0.5**halving
            if loss(weights - length * step) <= here - 1e-4 * length * decrease + 1e-15:
                break
        weights = weights - length * step
    raise TrainingError(
        f"no convergence in {_MAX_STEPS} steps: gradient {np.abs(gradient).max():.3g}, "
        f"expected {_GRADIENT_AT_MOST:g} at most; raise l2 (now {l2:g})"
    )
