from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from classifiers.heads import train as training
from classifiers.heads.mlp import Layer, MlpHead, encode_head
from classifiers.heads.train import TrainingError, calibrate, fit_platt, head_loss, train

EMBEDDER = "vit-b-32@1#1a2b3c4d/bicubic224/fp32"


def make_rows(
    positives: int, negatives: int, *, dims: int = 6, apart: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    labels = np.arange(positives + negatives) < positives
    random.shuffle(labels)
    rows = random.normal(size=(len(labels), dims))
    rows[:, 0] += np.where(labels, apart, -apart)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16), labels


def no_line_parts() -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    rows = np.random.default_rng(1).normal(size=(300, 4))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return unit, (unit[:, 0] > 0) != (unit[:, 1] > 0)


def head_of(layers: tuple[Layer, ...]) -> MlpHead:
    return MlpHead("red-mine@1", "0" * 64, EMBEDDER, layers, stand_in=False)


def log_loss(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    return float(np.logaddexp(0, np.where(labels, -logits, logits)).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 60), st.integers(10, 200), st.sampled_from([1e-4, 1e-3, 1e-1]), st.integers(0, 99))
def test_the_weights_are_where_the_gradient_of_the_balanced_loss_is_zero(
    positives: int, negatives: int, l2: float, seed: int
) -> None:
    rows, labels = make_rows(positives, negatives, seed=seed)
    (layer,) = train(rows, labels, l2=l2)
    x, weight, bias = rows.astype(np.float64), layer.weight[0].astype(np.float64), float(layer.bias[0])
    error = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * (expit(x @ weight + bias) - labels)
    np.testing.assert_allclose(x.T @ error + l2 * weight, 0, atol=1e-6)
    assert abs(error.sum()) < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 999), st.sampled_from([1e-3, 0.5]))
def test_the_gradient_is_that_of_the_loss(hidden: int, dims: int, seed: int, l2: float) -> None:
    random = np.random.default_rng(seed)
    widths = (dims, hidden, 1) if hidden else (dims, 1)
    rows, labels = random.normal(size=(12, dims)), np.arange(12) % 3 == 0
    loss = head_loss(rows, labels, widths, l2)
    at = random.normal(size=sum((i + 1) * o for i, o in pairwise(widths)))
    steps = 1e-6 * np.eye(len(at))
    slopes = [(loss(at + step)[0] - loss(at - step)[0]) / 2e-6 for step in steps]
    np.testing.assert_allclose(loss(at)[1], slopes, atol=1e-6)


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_same_rows_and_seed_give_the_same_weights(hidden: int) -> None:
    rows, labels = make_rows(50, 80)
    first, second = (train(rows, labels, hidden=hidden, seed=3) for _ in range(2))
    assert [layer.weight.tobytes() for layer in first] == [layer.weight.tobytes() for layer in second]
    assert [layer.bias.tobytes() for layer in first] == [layer.bias.tobytes() for layer in second]


def test_a_class_weighs_the_same_however_many_rows_it_has() -> None:
    rows, labels = make_rows(40, 40, apart=0.5)
    thrice = np.concatenate([np.arange(80), np.flatnonzero(~labels), np.flatnonzero(~labels)])
    (once,), (more,) = train(rows, labels), train(rows[thrice], labels[thrice])
    np.testing.assert_allclose(once.weight, more.weight, atol=1e-3)
    np.testing.assert_allclose(once.bias, more.bias, atol=1e-3)


def test_an_mlp_parts_what_no_line_parts() -> None:
    rows, labels = no_line_parts()
    logistic, mlp = train(rows, labels), train(rows, labels, hidden=16)
    assert ((head_of(logistic).score(rows) >= 0.5) == labels).mean() < 0.7
    assert ((head_of(mlp).score(rows) >= 0.5) == labels).mean() > 0.95
    assert [layer.weight.shape for layer in mlp] == [(16, 4), (1, 16)]


def test_trained_layers_score_as_a_head(tmp_path: Path) -> None:
    rows, labels = make_rows(60, 60, apart=20)
    for hidden in (0, 4):
        data = encode_head(train(rows, labels, hidden=hidden), name="red-mine@1", embedder_name=EMBEDDER)
        path = tmp_path / "head.safetensors"
        path.write_bytes(data)
        head = MlpHead.load(path, sha256=hashlib.sha256(data).hexdigest(), embedder_name=EMBEDDER, dims=6)
        np.testing.assert_array_equal(head.score(rows) >= 0.5, labels)


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
def test_a_penalty_is_needed(l2: float) -> None:
    with pytest.raises(TrainingError, match="expected above 0"):
        train(*make_rows(20, 20), l2=l2)


@pytest.mark.parametrize("hidden", [0, 8])
def test_no_weights_without_convergence(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_MAX_STEPS", 3)
    with pytest.raises(TrainingError, match="no convergence in 3 steps"):
        train(*make_rows(20, 20), hidden=hidden)


def test_equal_rows_with_different_labels_still_converge() -> None:
    rows = np.tile(np.array([0.6, 0.8], np.float16), (40, 1))
    (layer,) = train(rows, np.arange(40) % 2 == 0)
    np.testing.assert_allclose(layer.weight, 0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 80), st.floats(0.01, 50), st.floats(-20, 20), st.floats(-3, 3), st.integers(0, 999))
def test_calibration_raises_no_log_loss_and_turns_nothing_round(
    count: int, spread: float, shift: float, signal: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(count) < random.integers(1, count)
    logits = spread * (random.normal(size=count) + signal * labels) + shift
    scale, bias = fit_platt(logits, labels)
    assert scale > 0
    assert np.isfinite([scale, bias]).all()
    assert log_loss(scale * logits + bias, labels) <= log_loss(logits, labels) + 1e-12
    assert (np.diff((scale * logits + bias)[np.argsort(logits)]) >= 0).all()


def test_calibration_finds_the_line_that_the_logits_were_bent_by() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(size=20_000) * 2 - 1
    labels = random.random(len(truth)) < expit(truth)
    scale, bias = fit_platt(3 * truth + 4, labels)
    assert scale == pytest.approx(1 / 3, rel=0.05)
    assert bias == pytest.approx(-4 / 3, rel=0.05)


def test_classes_that_are_parted_without_error_keep_the_line_finite() -> None:
    labels = np.arange(100) < 50
    scale, bias = fit_platt(np.where(labels, 5.0, -5.0), labels)
    assert 1 < scale < 10
    assert abs(bias) < 0.1


@pytest.mark.parametrize("hidden", [0, 8])
def test_calibration_is_folded_into_the_last_layer(hidden: int) -> None:
    rows, labels = make_rows(60, 140, apart=0.4)
    plain = train(rows, labels, hidden=hidden)
    layers, scale, bias = calibrate(plain, rows, labels)
    before, after = (head_of(of).score(rows).astype(np.float64) for of in (plain, layers))
    np.testing.assert_allclose(after, expit(scale * np.log(before / (1 - before)) + bias), atol=1e-5)
    assert [layer.weight.shape for layer in layers] == [layer.weight.shape for layer in plain]
