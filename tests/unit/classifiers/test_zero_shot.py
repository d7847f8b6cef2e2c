"""Heads made of prompts: their two rules, their file, LAION's violence pair and vectors from a text tower."""

from __future__ import annotations

import hashlib
import json
import socket

import numpy as np
import pytest
import safetensors.torch
import stand_ins
import torch

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.heads.zero_shot import ZeroShotHead, encode_zero_shot, make_prompt_vectors
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import WeightsError, digest_folder

EMBEDDER = "tiny-stand-in@1#1a2b3c4d/bicubic224/fp32"
BACKBONES = frozenset({"1a2b3c4d" + "0" * 56})
VIOLENCE = {
    "b_32": (512, "76909cca3e77abbbb21313895756773a9c6fb26c9cc743f3ef0625f025741982"),
    "l_14": (768, "cc08f81ef50b1ef71452ddc87285fe6fbbc01b6fe8f8b8c24482c386ef2ab7e1"),
}
THRESHOLDS = (0.2, 0.21, -0.1)


def unit_rows(count, dims=48, seed=0, dtype=np.float32):
    rows = np.random.default_rng(seed).normal(size=(count, dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def write(path, prompts, thresholds, name="shape-stand-in@1", **others):
    path.write_bytes(encode_zero_shot(prompts, thresholds, name=name, embedder_name=EMBEDDER, stand_in=True))
    return load(path, **others)


def load(path, **others):
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    options = {"sha256": pin, "embedder_name": EMBEDDER, "dims": 48}
    return ZeroShotHead.load(path, **(options | others))


@pytest.fixture
def concept(tmp_path):
    return write(tmp_path / "head", unit_rows(3), THRESHOLDS)


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "head", unit_rows(2), None)


def test_with_thresholds_the_score_is_of_the_prompt_furthest_past_its_own(concept):
    rows = unit_rows(300, seed=1, dtype=np.float16)
    margins = rows.astype(np.float64) @ unit_rows(3).astype(np.float64).T - THRESHOLDS
    expected = (1 / (1 + np.exp(-100 * margins))).max(axis=1)
    np.testing.assert_allclose(concept.score(rows), expected, atol=1e-5, rtol=0)


def test_a_cosine_at_its_threshold_scores_a_half(tmp_path):
    prompts = np.eye(48, dtype=np.float32)[:1]
    head = write(tmp_path / "head", prompts, [0.25])
    assert head.score(0.25 * prompts.astype(np.float16)).tolist() == [0.5]


def test_without_thresholds_the_score_is_the_softmax_of_the_second_prompt(pair):
    rows = unit_rows(300, seed=1, dtype=np.float16)
    powers = np.exp(100 * (rows.astype(np.float64) @ unit_rows(2).astype(np.float64).T))
    np.testing.assert_allclose(pair.score(rows), powers[:, 1] / powers.sum(axis=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("thresholds", [None, (0.2, 0.4)])
def test_a_step_towards_the_harmful_prompt_never_lowers_the_score(tmp_path, thresholds):
    head = write(tmp_path / "head", np.eye(48, dtype=np.float32)[:2], thresholds)
    rows = np.repeat(unit_rows(1, seed=2, dtype=np.float16), 41, axis=0)
    rows[:, 1] = np.linspace(-1, 1, len(rows))
    scores = head.score(rows)
    assert (np.diff(scores) >= 0).all()
    assert scores[0] < 0.5 < scores[-1]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_score_is_the_same_in_any_batch_to_the_bit(concept, batch):
    rows = unit_rows(100, seed=3, dtype=np.float16)
    parts = [concept.score(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    assert np.concatenate(parts).tobytes() == concept.score(rows).tobytes()


def test_a_row_with_a_nan_scores_nan_and_no_other_row_does(concept, pair):
    rows = unit_rows(10, seed=4, dtype=np.float16)
    rows[3, 7], rows[8, 0] = np.nan, np.inf
    rows.flags.writeable = False
    for head in (concept, pair):
        assert np.flatnonzero(np.isnan(head.score(rows))).tolist() == [3, 8]


def test_the_same_head_is_the_same_bytes_and_bound_but_for_precision(tmp_path):
    first, second = (
        encode_zero_shot(unit_rows(3), THRESHOLDS, name="a@1", embedder_name=EMBEDDER[:-4] + precision)
        for precision in ("fp32", "bf16")
    )
    assert first == second
    head = write(tmp_path / "head", unit_rows(3), THRESHOLDS, embedder_name=EMBEDDER[:-4] + "bf16")
    assert head.full_name == f"shape-stand-in@1#{head.sha256[:8]}"


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"sha256": ""}, "is not pinned"),
        ({"embedder_name": "other@1#1a2b3c4d/bicubic224/fp32"}, "made for embedder"),
        ({"dims": 49}, "49"),
    ],
)
def test_another_file_embedder_or_width_is_refused(tmp_path, others, message):
    with pytest.raises(WeightsError, match=message):
        write(tmp_path / "head", unit_rows(3), THRESHOLDS, **others)


@pytest.mark.parametrize(
    ("prompts", "thresholds", "message"),
    [
        (2 * unit_rows(2), None, "unit rows"),
        (unit_rows(3), None, "expected 2 prompts"),
        (unit_rows(2), [0.1], "expected 1 prompts"),
        (unit_rows(2), [], "expected 0 prompts"),
        (unit_rows(2)[:, 0], None, "expected 2 prompts"),
        (unit_rows(2, dtype=np.float64), None, "float64"),
        (unit_rows(2), [0.1, np.nan], "cosines"),
        (unit_rows(2), [0.1, 22.0], "cosines"),
        (unit_rows(2) * np.float32(np.nan), None, "unit rows"),
    ],
)
def test_parts_that_do_not_fit_are_refused(prompts, thresholds, message):
    with pytest.raises(WeightsError, match=message):
        encode_zero_shot(prompts, thresholds, name="a@1", embedder_name=EMBEDDER)


def test_a_stand_in_must_say_so():
    with pytest.raises(WeightsError, match="stand-in"):
        encode_zero_shot(unit_rows(2), None, name="a@1", embedder_name=EMBEDDER, stand_in=True)


def test_damage_is_refused_or_changes_numbers_alone(tmp_path):
    path, random = tmp_path / "head", np.random.default_rng(5)
    data = encode_zero_shot(unit_rows(3), THRESHOLDS, name="a@1", embedder_name=EMBEDDER)
    start = int.from_bytes(data[:8], "little") + 8
    for number in range(400):
        changed = bytearray(data[: int(random.integers(len(data)))] if number % 4 == 0 else data)
        # The description at the start is where most can go wrong.
        for place in random.integers(min(start, len(changed)), size=2) if changed else ():
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        try:
            head = load(path)
        except WeightsError:
            continue
        assert head.score(unit_rows(2, dtype=np.float16)).shape == (2,)


@pytest.mark.shared_data
def test_the_violence_pair_decides_as_published_on_real_embeddings(shared_data, record_property):
    rows = np.load(shared_data / "clip" / "golden_openai_vit_b_32.npz")["embedding"]
    path = shared_data / "weights" / "laion" / "violence_detection_vit_b_32.npy"
    scores = violence(path, "b_32").score(rows)
    powers = np.exp(100 * (rows.astype(np.float64) @ np.load(path, allow_pickle=False).astype(np.float64).T))
    np.testing.assert_allclose(scores, powers[:, 1] / powers.sum(axis=1), atol=1e-5, rtol=0)
    record_property("scores", scores.tolist())
    # LAION takes the nearer prompt, which is 0.5 here. One photo stands out a little.
    assert (np.sort(scores)[:-1] < 0.05).all()
    assert scores.max() < 0.12


def violence(path, model, **others):
    dims, pin = VIOLENCE[model]
    options = {"sha256": pin, "embedder_name": EMBEDDER, "dims": dims, "backbones": BACKBONES}
    return ZeroShotHead.load_violence_pair(path, **(options | others))


@pytest.mark.shared_data
@pytest.mark.parametrize(("model", "name"), [("b_32", "laion-violence-b32@1"), ("l_14", "laion-violence-l14@1")])
def test_a_violence_pair_knows_its_size_and_its_backbone(shared_data, model, name):
    path = shared_data / "weights" / "laion" / f"violence_detection_vit_{model}.npy"
    assert violence(path, model).full_name == f"{name}#{VIOLENCE[model][1][:8]}"
    other_dims = VIOLENCE["l_14" if model == "b_32" else "b_32"][0]
    for others, message in (
        ({"dims": other_dims}, f"float32 2 x {other_dims}"),
        ({"dims": 640}, "found 640"),
        ({"backbones": frozenset({"ffffffff"})}, "OpenAI's CLIP"),
        ({"sha256": "0" * 64}, "expected sha256"),
    ):
        with pytest.raises(WeightsError, match=message):
            violence(path, model, **others)


def test_a_pair_of_another_type_or_length_is_refused(tmp_path):
    path = tmp_path / "pair.npy"
    for array in (np.zeros((2, 512)), np.zeros((3, 512), "f4"), np.array([{}, {}], object), unit_rows(2, 511)):
        np.save(path, array)
        check_refused(path)
    np.save(path, unit_rows(2, 512))
    whole = path.read_bytes()
    violence(path, "b_32", sha256=hashlib.sha256(whole).hexdigest())
    for data in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(data)
        check_refused(path)


def check_refused(path):
    with pytest.raises(WeightsError, match=r"expected a \.npy"):
        violence(path, "b_32", sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP whose text tower knows the real tokenizer's vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    pin = stand_ins.write_stand_in_clip(folder, seed=0)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"] |= {"context_length": 16, "vocab_size": 49408}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = open_clip.CLIP(**config["model_cfg"])
    safetensors.torch.save_file(model.state_dict(), folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    assert digest_folder(folder) != pin
    return folder


def make(folder, prompts, **others):
    return make_prompt_vectors(
        folder, prompts, **({"name": "clip-stand-in@1", "sha256": digest_folder(folder)} | others)
    )


def test_vectors_of_prompts_are_unit_rows_made_without_a_network(folder, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    prompts = ["a photo of a dog", "a photo of a mountain", "a drawing of a house"]
    vectors = make(folder, prompts)
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 64))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(make(folder, prompts), vectors)
    head = write(tmp_path / "head", vectors, [0.2, 0.2, 0.2], dims=64)
    nearest = head.score(vectors.astype(np.float16))
    assert (nearest > 0.99).all()


def test_a_prompt_that_would_be_cut_short_is_an_error(folder):
    make(folder, ["dog " * 14])
    with pytest.raises(ValueError, match="prompt 1: expected at most 14 tokens"):
        make(folder, ["dog", "dog " * 15])


def test_a_text_tower_is_pinned_and_a_stand_in_says_so(folder):
    with pytest.raises(WeightsError, match="expected sha256"):
        make(folder, ["dog"], sha256="0" * 64)
    with pytest.raises(WeightsError, match="stand-in"):
        make(folder, ["dog"], name="clip@1")
