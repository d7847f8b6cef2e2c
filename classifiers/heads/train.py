"""Fit a head on stored embeddings and yes/no labels, and calibrate it: no pixels needed.

Owns the two fits. Which rows they are given, and how the result is measured, is `evaluate`'s and the caller's.

- Same rows in the same order on the same machine: same weights.
- No weights without convergence.
- Calibration is a rising line on the logit, folded into the last layer: it changes no order, and the file format
  does not know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from classifiers.heads.mlp import Layer
from classifiers.signals import Embeddings

_MAX_STEPS = 3000
_GRADIENT_AT_MOST = 1e-7
# The minimum of a ReLU net often lies on a kink, where no gradient is small: there the loss has to stand still.
_MLP_GAIN_AT_LEAST = 1e-7
_PLATT_GAIN_AT_LEAST = 1e-12

Floats = NDArray[np.float64]
Weights = list[tuple[Floats, Floats]]  # weight (out x in) and bias (out) of each layer
Loss = Callable[[Floats], tuple[float, Floats]]


class TrainingError(ValueError):
    """A head cannot be fitted in this way, or a fit did not converge."""


def train(
    embeddings: Embeddings, labels: NDArray[np.bool_], *, l2: float = 1e-3, hidden: int = 0, seed: int = 0
) -> tuple[Layer, ...]:
    """Fit a logistic regression, or a net with one hidden ReLU layer, by L-BFGS in float64.

    Minimises the mean log loss, both classes at the same total weight, plus `l2 / 2` times the squared length of
    all weights; biases are free. (L-BFGS-B: Byrd, Lu, Nocedal, Zhu, 1995; first weights: He et al., 2015.)

    Args:
        embeddings: float16, N x D, all finite.
        labels: bool, N, of both kinds.
        l2: weight of the penalty, above 0.
        hidden: width of the hidden layer; 0 is logistic regression.
        seed: of the first weights of a hidden layer.

    Raises:
        TrainingError: a penalty that is not above 0, or no convergence.
    """
    if not l2 > 0:
        raise TrainingError(
            f"l2: expected above 0, found {l2}: without it, classes that can be parted never converge"
        )
    widths = (embeddings.shape[1], hidden, 1) if hidden else (embeddings.shape[1], 1)
    random = np.random.default_rng(seed)
    start = [
        np.append(random.normal(size=inputs * outputs) * np.sqrt(2 / inputs) * bool(hidden), np.zeros(outputs))
        for inputs, outputs in pairwise(widths)
    ]
    loss = head_loss(embeddings.astype(np.float64), labels, widths, l2)
    found = _minimise(loss, np.concatenate(start), gain_at_least=_MLP_GAIN_AT_LEAST if hidden else 0.0)
    return tuple(Layer(w.astype(np.float32), b.astype(np.float32)) for w, b in _unpack(found, widths))


def head_loss(rows: Floats, labels: NDArray[np.bool_], widths: Sequence[int], l2: float) -> Loss:
    """Return the function that `train` minimises: all weights in one row in, loss and its gradient out.

    Args:
        rows: float64, N x D.
        labels: bool, N.
        widths: D, then the outputs of every layer; the last is 1.
        l2: as in `train`.
    """
    share = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    signs = np.where(labels, 1.0, -1.0)

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = _unpack(flat, widths)
        inputs, logits = _forward(weights, rows)
        value = share @ np.logaddexp(0, -signs * logits) + l2 / 2 * sum((w**2).sum() for w, _ in weights)
        slope = (-share * signs * expit(-signs * logits))[:, None]
        parts: list[Floats] = []
        for (w, _), into in zip(reversed(weights), reversed(inputs), strict=True):
            parts[:0] = [(slope.T @ into + l2 * w).ravel(), slope.sum(axis=0)]
            if into is not rows:
                slope = (slope @ w) * (into > 0)
        return float(value), np.concatenate(parts)

    return loss


def calibrate(
    layers: Sequence[Layer], embeddings: Embeddings, labels: NDArray[np.bool_]
) -> tuple[tuple[Layer, ...], float, float]:
    """Fit scale and bias of the logit on rows that the head was not fitted on.

    Returns:
        The layers with both folded into the last one, the scale (above 0) and the bias.

    Raises:
        TrainingError: no convergence.
    """
    weights = [(layer.weight.astype(np.float64), layer.bias.astype(np.float64)) for layer in layers]
    scale, bias = fit_platt(_forward(weights, embeddings.astype(np.float64))[1], labels)
    weight, last_bias = weights[-1]
    last = Layer((scale * weight).astype(np.float32), (scale * last_bias + bias).astype(np.float32))
    return (*layers[:-1], last), scale, bias


def fit_platt(logits: Floats, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the scale and bias of the logit (Platt, 1999) of least mean log loss on these rows, as they are mixed.

    A normal prior (deviation 2) on log scale and bias holds both finite where the rows are parted without error.
    It is least at scale 1 and bias 0, so the log loss is never above that of the logits as they were.
    """
    signs = np.where(labels, 1.0, -1.0)
    prior = 1 / (8 * len(logits))

    def loss(at: Floats) -> tuple[float, Floats]:
        scale = np.exp(at[0])
        margins = signs * (scale * logits + at[1])
        slope = -signs * expit(-margins)
        gradient = np.array([scale * (slope * logits).mean(), slope.mean()]) + 2 * prior * at
        return float(np.logaddexp(0, -margins).mean() + prior * at @ at), gradient

    found = _minimise(loss, np.zeros(2), gain_at_least=_PLATT_GAIN_AT_LEAST)
    return float(np.exp(found[0])), float(found[1])


def _minimise(loss: Loss, start: Floats, *, gain_at_least: float) -> Floats:
    limits = {"maxiter": _MAX_STEPS, "maxfun": 10 * _MAX_STEPS, "maxcor": 20}
    options = {**limits, "ftol": gain_at_least, "gtol": _GRADIENT_AT_MOST}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    if not found.success:
        raise TrainingError(f"no convergence in {found.nit} steps (loss {found.fun:.3g}): raise l2")
    weights: Floats = found.x
    return weights


def _forward(weights: Weights, rows: Floats) -> tuple[list[Floats], Floats]:
    """Return what goes into each layer, and the logits."""
    inputs = [rows]
    for weight, bias in weights[:-1]:
        inputs.append(np.maximum(inputs[-1] @ weight.T + bias, 0))
    weight, bias = weights[-1]
    return inputs, (inputs[-1] @ weight.T + bias)[:, 0]


def _unpack(flat: Floats, widths: Sequence[int]) -> Weights:
    shapes = [(outputs, inputs) for inputs, outputs in pairwise(widths)]
    pieces = np.split(flat, np.cumsum([size for outputs, inputs in shapes for size in (outputs * inputs, outputs)]))
    return [(w.reshape(shape), b) for shape, w, b in zip(shapes, pieces[::2], pieces[1::2], strict=False)]
