from __future__ import annotations

import hashlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from classifiers.heads.mlp import Layer, MlpHead, encode_head, without_precision
from classifiers.weights import WeightsError

EMBEDDER = "vit-b-32@1#1a2b3c4d/bicubic224"
METADATA = {
    "name": "mine@1",
    "embedder": EMBEDDER,
    "activation": "relu",
    "output": "sigmoid",
    "stand_in": "false",
    "schema": "1",
}


def make_layers(*widths: int, seed: int = 0) -> list[Layer]:
    random = np.random.default_rng(seed)
    return [
        Layer(random.normal(size=(to, of)).astype(np.float32), random.normal(size=to).astype(np.float32))
        for of, to in itertools.pairwise(widths)
    ]


def make_rows(count: int, dims: int, seed: int = 0) -> NDArray[np.float16]:
    rows = np.random.default_rng(seed).normal(size=(count, dims))
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / lengths).astype(np.float16)


def load(folder: Path, data: bytes, *, embedder: str = EMBEDDER + "/bf16", dims: int = 8) -> MlpHead:
    path = folder / "head.safetensors"
    path.write_bytes(data)
    return MlpHead.load(path, sha256=hashlib.sha256(data).hexdigest(), embedder_name=embedder, dims=dims)


def test_a_head_comes_back_as_it_was_encoded(tmp_path: Path) -> None:
    data = encode_head(make_layers(8, 5, 1), name="mine@1", embedder_name=EMBEDDER + "/fp32")
    head = load(tmp_path, data)
    assert (head.name, head.embedder, head.stand_in) == ("mine@1", EMBEDDER, False)
    assert head.full_name == "mine@1#" + hashlib.sha256(data).hexdigest()[:8]
    for found, made in zip(head.layers, make_layers(8, 5, 1), strict=True):
        np.testing.assert_array_equal(found.weight, made.weight)
        np.testing.assert_array_equal(found.bias, made.bias)


def test_the_same_head_is_the_same_bytes_every_time() -> None:
    made = {encode_head(make_layers(8, 1), name="mine@1", embedder_name=EMBEDDER) for _ in range(20)}
    assert len(made) == 1
    assert set(safetensors.numpy.load(made.pop())) == {"layers.0.weight", "layers.0.bias"}


def test_scores_are_those_of_the_plain_formula(tmp_path: Path) -> None:
    layers = make_layers(8, 5, 3, 1)
    rows = make_rows(20, 8)
    expected = []
    for row in rows.astype(np.float64):
        values = row
        for number, layer in enumerate(layers):
            values = layer.weight.astype(np.float64) @ values + layer.bias
            values = np.maximum(values, 0) if number < len(layers) - 1 else values
        expected.append(1 / (1 + math.exp(-values[0])))
    head = load(tmp_path, encode_head(layers, name="mine@1", embedder_name=EMBEDDER))
    np.testing.assert_allclose(head.score(rows), expected, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.data())
def test_a_score_depends_on_its_own_row_alone_to_the_bit(count: int, seed: int, data: st.DataObject) -> None:
    head = MlpHead("mine@1", "0" * 64, EMBEDDER, tuple(make_layers(64, 16, 8, 1)), stand_in=False)
    rows = make_rows(count, 64, seed)
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count))
    assert head.score(rows[chosen]).tobytes() == head.score(rows)[chosen].tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_nan_or_infinity_scores_nan_and_spoils_no_other(tmp_path: Path, bad: float) -> None:
    head = load(tmp_path, encode_head(make_layers(8, 4, 1), name="mine@1", embedder_name=EMBEDDER))
    rows = make_rows(3, 8)
    clean = head.score(rows)
    rows[1, 3] = bad
    scores = head.score(rows)
    assert np.isnan(scores[1])
    np.testing.assert_array_equal(scores[[0, 2]], clean[[0, 2]])


def test_a_row_that_overflows_scores_nan(tmp_path: Path) -> None:
    huge = [Layer(np.full((1, 8), 3e38, np.float32), np.zeros(1, np.float32))]
    head = load(tmp_path, encode_head(huge, name="mine@1", embedder_name=EMBEDDER))
    assert np.isnan(head.score(np.ones((1, 8), np.float16))).all()


def test_far_logits_score_zero_and_one_without_a_warning(tmp_path: Path) -> None:
    steep = [Layer(np.full((1, 8), 1e4, np.float32), np.zeros(1, np.float32))]
    head = load(tmp_path, encode_head(steep, name="mine@1", embedder_name=EMBEDDER))
    rows = np.stack([np.ones(8), -np.ones(8)]).astype(np.float16)
    assert head.score(rows).tolist() == [1.0, 0.0]


def test_only_float16_rows_of_the_right_width_are_scored(tmp_path: Path) -> None:
    head = load(tmp_path, encode_head(make_layers(8, 1), name="mine@1", embedder_name=EMBEDDER))
    for rows in (make_rows(2, 7), make_rows(2, 8).astype(np.float32), make_rows(2, 8)[0]):
        with pytest.raises(ValueError, match="expected float16 N x 8"):
            head.score(rows)  # type: ignore[arg-type]


def test_a_head_is_bound_to_model_digest_and_view_but_not_to_precision(tmp_path: Path) -> None:
    assert without_precision(EMBEDDER + "/bf16") == without_precision(EMBEDDER + "/fp32") == EMBEDDER
    data = encode_head(make_layers(8, 1), name="mine@1", embedder_name=EMBEDDER + "/bf16")
    for precision in ("fp32", "bf16"):
        load(tmp_path, data, embedder=f"{EMBEDDER}/{precision}")
    for other in (
        "vit-b-32@2#1a2b3c4d/bicubic224",
        "vit-b-32@1#00000000/bicubic224",
        "vit-b-32@1#1a2b3c4d/bicubic336",
    ):
        with pytest.raises(WeightsError, match=f"made for embedder '{EMBEDDER}', but the run uses '{other}'"):
            load(tmp_path, data, embedder=f"{other}/bf16")


def test_a_head_needs_its_pin(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(WeightsError, match="does not exist"):
        MlpHead.load(path, sha256="0" * 64, embedder_name=EMBEDDER, dims=8)
    data = encode_head(make_layers(8, 1), name="mine@1", embedder_name=EMBEDDER)
    path.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    with pytest.raises(WeightsError, match=f"not pinned; found sha256 {found}"):
        MlpHead.load(path, sha256="", embedder_name=EMBEDDER, dims=8)
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, found {found}"):
        MlpHead.load(path, sha256="0" * 64, embedder_name=EMBEDDER, dims=8)


def test_a_stand_in_head_says_so_in_its_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the name must say so"):
        encode_head(make_layers(8, 1), name="mine@1", embedder_name=EMBEDDER, stand_in=True)
    weights = {"layers.0.weight": np.ones((1, 8), np.float32), "layers.0.bias": np.ones(1, np.float32)}
    data = safetensors.numpy.save(weights, METADATA | {"stand_in": "true"})
    with pytest.raises(WeightsError, match="the name must say so"):
        load(tmp_path, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "2"}, "'schema': expected 1, found '2'"),
        ({"activation": "gelu"}, "'activation': expected relu, found 'gelu'"),
        ({"output": "none"}, "'output': expected sigmoid"),
        ({"stand_in": "yes"}, "'stand_in': expected true or false"),
        ({"more": "x"}, "expected the metadata keys"),
        ({"name": "mine"}, "expected name@version"),
    ],
)
def test_metadata_that_is_not_understood_is_an_error(tmp_path: Path, change: dict[str, str], message: str) -> None:
    weights = {"layers.0.weight": np.ones((1, 8), np.float32), "layers.0.bias": np.ones(1, np.float32)}
    with pytest.raises(WeightsError, match=message):
        load(tmp_path, safetensors.numpy.save(weights, METADATA | change))


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"layers.0.weight": (1, 8)},
        {"layers.0.weight": (1, 8), "layers.0.bias": (1,), "extra": (1,)},
        {"layers.0.weight": (1, 8), "layers.1.bias": (1,)},
        {"layers.0.weight": (1, 7), "layers.0.bias": (1,)},
        {"layers.0.weight": (2, 8), "layers.0.bias": (2,)},
        {"layers.0.weight": (8,), "layers.0.bias": ()},
        {"layers.0.weight": (4, 8), "layers.0.bias": (3,), "layers.1.weight": (1, 4), "layers.1.bias": (1,)},
        {"layers.0.weight": (4, 8), "layers.0.bias": (4,), "layers.1.weight": (1, 5), "layers.1.bias": (1,)},
    ],
)
def test_layers_that_do_not_fit_each_other_are_an_error(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(WeightsError, match=r"head\.safetensors: .*expected"):
        load(tmp_path, safetensors.numpy.save(tensors, METADATA))


@pytest.mark.parametrize("part", [np.ones((1, 8), np.float64), np.full((1, 8), np.nan, np.float32)])
def test_weights_are_finite_float32(tmp_path: Path, part: NDArray[np.float32]) -> None:
    tensors = {"layers.0.weight": part, "layers.0.bias": np.ones(1, np.float32)}
    with pytest.raises(WeightsError, match="expected finite float32"):
        load(tmp_path, safetensors.numpy.save(tensors, METADATA))


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_bytes_that_are_no_safetensors_file_are_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load(tmp_path, data)


def test_a_file_without_metadata_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected the metadata keys .* found \[\]"):
        load(tmp_path, safetensors.numpy.save({"layers.0.weight": np.ones((1, 8), np.float32)}))
