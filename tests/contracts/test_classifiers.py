"""What every `Classifier` keeps. A new kind of head is a line in `MADE` and one in `WRITERS`."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from numpy.typing import NDArray

from classifiers.heads.registry import MADE
from classifiers.heads.zero_shot import encode_zero_shot
from classifiers.signals import Classifier
from classifiers.weights import WeightsError

EMBEDDER = "tiny-stand-in@1#1a2b3c4d/bicubic224/fp32"
DIMS = 48


def write_zero_shot(path: Path, *, name: str, embedder_name: str, dims: int, seed: int) -> str:
    vectors = np.random.default_rng(seed).normal(size=(4, dims)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = encode_zero_shot(vectors, [0.1] * 4, name=name, embedder_name=embedder_name, stand_in=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


# Makers of a stand-in file: (path, name=, embedder_name=, dims=, seed=) to its digest.
# Published kinds have files of their own; their tests hold them (`test_laion_head`, `test_zero_shot`).
WRITERS: dict[str, Callable[..., str]] = {"mlp": stand_ins.write_stand_in_head, "zero-shot": write_zero_shot}


def load(kind: str, folder: Path, *, name: str = "shape-stand-in@1", seed: int = 0) -> Classifier:
    path = folder / f"{name}.{seed}"
    pin = WRITERS[kind](path, name=name, embedder_name=EMBEDDER, dims=DIMS, seed=seed)
    return MADE[kind](path, sha256=pin, embedder_name=EMBEDDER, dims=DIMS)


@pytest.fixture(params=MADE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def head(kind: str, tmp_path: Path) -> Classifier:
    return load(kind, tmp_path)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float16]:
    values = np.random.default_rng(0).normal(size=(100, DIMS))
    lengths: NDArray[np.float64] = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / lengths).astype(np.float16)


def test_every_registered_kind_has_a_stand_in() -> None:
    assert set(WRITERS) == set(MADE)


def test_a_full_name_is_the_name_and_a_digest_that_other_weights_do_not_share(kind: str, tmp_path: Path) -> None:
    heads = [
        load(kind, tmp_path, name=name, seed=seed) for name in ("a-stand-in@1", "b-stand-in@1") for seed in (0, 1)
    ]
    assert all(head.full_name.startswith(head.name + "#") for head in heads)
    assert len({head.full_name for head in heads}) == 4


def test_scores_are_float32_from_zero_to_one(head: Classifier, rows: NDArray[np.float16]) -> None:
    scores = head.score(rows)
    assert scores.dtype == np.float32
    assert scores.shape == (len(rows),)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_scores_of_stand_ins_spread(head: Classifier, rows: NDArray[np.float16]) -> None:
    low, high = np.quantile(head.score(rows), [0.1, 0.9])
    assert high - low > 0.3


def test_no_rows_give_no_scores(head: Classifier, rows: NDArray[np.float16]) -> None:
    scores = head.score(rows[:0])
    assert scores.dtype == np.float32
    assert scores.shape == (0,)


def test_a_second_pass_and_a_second_instance_give_the_same_bits(
    kind: str, head: Classifier, tmp_path: Path, rows: NDArray[np.float16]
) -> None:
    first = head.score(rows).tobytes()
    assert head.score(rows).tobytes() == first
    assert load(kind, tmp_path).score(rows).tobytes() == first


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_score_is_the_same_in_any_batch_to_the_bit(
    head: Classifier, rows: NDArray[np.float16], batch: int
) -> None:
    parts = [head.score(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    assert np.concatenate(parts).tobytes() == head.score(rows).tobytes()


def test_a_row_with_a_nan_scores_nan_and_no_other_row_does(head: Classifier, rows: NDArray[np.float16]) -> None:
    broken = rows.copy()
    broken[4, 0] = np.nan
    broken[7] = np.nan
    assert np.flatnonzero(np.isnan(head.score(broken))).tolist() == [4, 7]


def test_rows_are_only_read(head: Classifier, rows: NDArray[np.float16]) -> None:
    shared = rows.copy()
    shared.flags.writeable = False
    head.score(shared)
    np.testing.assert_array_equal(shared, rows)


def test_a_head_for_another_embedder_or_another_width_is_an_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "head"
    pin = WRITERS[kind](path, name="a-stand-in@1", embedder_name=EMBEDDER, dims=DIMS, seed=0)
    with pytest.raises(WeightsError, match="made for embedder"):
        MADE[kind](path, sha256=pin, embedder_name="other@1#1a2b3c4d/bicubic224/fp32", dims=DIMS)
    with pytest.raises(WeightsError, match=str(DIMS + 1)):
        MADE[kind](path, sha256=pin, embedder_name=EMBEDDER, dims=DIMS + 1)


def test_loading_and_scoring_need_no_network(
    kind: str, tmp_path: Path, rows: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert len(load(kind, tmp_path).score(rows)) == len(rows)
