from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from classifiers.heads.mlp import MlpHead, encode_head
from classifiers.heads.train import TrainingError, train_logistic


def make_rows(
    positives: int, negatives: int, *, dims: int = 6, apart: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    labels = np.arange(positives + negatives) < positives
    random.shuffle(labels)
    rows = random.normal(size=(len(labels), dims))
    rows[:, 0] += np.where(labels, apart, -apart)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16), labels


def kept_for_training(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every fifth row of each class is held out, in plain words."""
    seen = {True: 0, False: 0}
    kept = []
    for label in labels.tolist():
        seen[label] += 1
        kept.append(seen[label] % 5 != 0)
    return np.array(kept)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(10, 60),
    st.integers(10, 200),
    st.sampled_from([1e-4, 1e-3, 1e-1]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_weights_are_where_the_gradient_of_the_loss_is_zero(
    positives: int, negatives: int, l2: float, balance: bool, seed: int
) -> None:
    rows, labels = make_rows(positives, negatives, seed=seed)
    head = train_logistic(rows, labels, l2=l2, balance=balance)
    kept = kept_for_training(labels)
    x, y = rows[kept].astype(np.float64), labels[kept]
    weight, bias = head.layer.weight[0].astype(np.float64), float(head.layer.bias[0])
    share = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum()) if balance else np.full(len(y), 1 / len(y))
    error = share * (1 / (1 + np.exp(-(x @ weight + bias))) - y)
    np.testing.assert_allclose(x.T @ error + l2 * weight, 0, atol=1e-6)
    assert abs(error.sum()) < 1e-6


def test_the_same_rows_give_the_same_weights() -> None:
    rows, labels = make_rows(50, 80)
    first, second = train_logistic(rows, labels), train_logistic(rows, labels)
    assert first.layer.weight.tobytes() == second.layer.weight.tobytes()
    assert first.held_out == second.held_out


def test_the_counts_are_of_the_rows_held_out() -> None:
    rows, labels = make_rows(100, 150, apart=0.3)
    head = train_logistic(rows, labels)
    held_out = ~kept_for_training(labels)
    guess = rows[held_out].astype(np.float64) @ head.layer.weight[0] + head.layer.bias[0] >= 0
    truth = labels[held_out]
    assert (head.held_out.count, head.held_out.positives) == (50, 20)
    assert head.held_out.false_positives == (guess & ~truth).sum() > 0
    assert head.held_out.false_negatives == (~guess & truth).sum() > 0


def test_classes_that_can_be_parted_are_parted() -> None:
    head = train_logistic(*make_rows(60, 60, apart=20))
    assert (head.held_out.false_positives, head.held_out.false_negatives) == (0, 0)


def test_balance_keeps_a_rare_class_from_being_ignored() -> None:
    rows, labels = make_rows(40, 2000, apart=0.5)
    assert train_logistic(rows, labels, balance=False).held_out.false_negatives == 8
    assert train_logistic(rows, labels).held_out.false_negatives < 6


def test_a_trained_layer_scores_as_a_head(tmp_path: Path) -> None:
    rows, labels = make_rows(60, 60, apart=20)
    embedder = "vit-b-32@1#1a2b3c4d/bicubic224/fp32"
    data = encode_head([train_logistic(rows, labels).layer], name="red-mine@1", embedder_name=embedder)
    path = tmp_path / "head.safetensors"
    path.write_bytes(data)
    head = MlpHead.load(path, sha256=hashlib.sha256(data).hexdigest(), embedder_name=embedder, dims=6)
    np.testing.assert_array_equal(head.score(rows) >= 0.5, labels)


def test_ten_rows_of_each_class_are_enough_and_nine_are_not() -> None:
    train_logistic(*make_rows(10, 10))
    with pytest.raises(TrainingError, match="label True: expected 10 rows at least, found 9"):
        train_logistic(*make_rows(9, 50))
    with pytest.raises(TrainingError, match="label False: expected 10 rows at least, found 0"):
        train_logistic(*make_rows(50, 0))


def test_a_row_with_nan_is_named() -> None:
    rows, labels = make_rows(20, 20)
    rows[[7, 9], 2] = np.nan
    with pytest.raises(TrainingError, match="row 7 and 1 more hold NaN"):
        train_logistic(rows, labels)


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
def test_a_penalty_is_needed(l2: float) -> None:
    with pytest.raises(TrainingError, match="expected above 0"):
        train_logistic(*make_rows(20, 20), l2=l2)


def test_labels_are_booleans_one_a_row() -> None:
    rows, labels = make_rows(20, 20)
    for wrong in (labels[1:], labels.astype(np.int64)):
        with pytest.raises(TrainingError, match="N bool labels"):
            train_logistic(rows, wrong)  # type: ignore[arg-type]


def test_equal_rows_with_different_labels_still_converge() -> None:
    rows = np.tile(np.array([0.6, 0.8], np.float16), (40, 1))
    head = train_logistic(rows, np.arange(40) % 2 == 0)
    np.testing.assert_allclose(head.layer.weight, 0, atol=1e-6)
