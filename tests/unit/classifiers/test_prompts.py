"""Prompt files: those that are shipped, their form, and the way from one to a head that scores."""

from __future__ import annotations

import hashlib
import json
import socket
import tomllib

import numpy as np
import pytest
import safetensors.torch
import stand_ins
import torch
from in_process import call, message

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.heads.prompts import find_prompts, make_prompt_head, read_prompts
from classifiers.heads.registry import load_head
from classifiers.heads.zero_shot import make_prompt_vectors
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import WeightsError, digest_folder

SHIPPED = ["banknote", "drawn", "minor", "sexual"]
PUBLISHED = {  # LAION-AI/CLIP-based-NSFW-Detector, safety_settings.yml
    "minor": {
        "little girl": 0.21, "little boy": 0.21, "young child": 0.2, "young girl": 0.22, "toddler": 0.21,
        "baby": 0.21,
    },
    "sexual": {
        "sexual": 0.19, "nude": 0.19, "naked": 0.195, "explicit content": 0.19, "uncensored": 0.19, "nsfw": 0.19,
    },
    "drawn": {},
    "banknote": {},
}  # fmt: skip
MINE = """
name = "animals-stand-in@1"
[[prompt]]
text = "a photo of a dog"
threshold = 0.2
[[prompt]]
text = "a photo of a mountain"
threshold = -0.5
"""
PAIR = 'name = "pair-stand-in@2"\nharmless = "a house"\nharmful = "a dog"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP whose text tower knows the real tokenizer's vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    stand_ins.write_stand_in_clip(folder, seed=0)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"] |= {"context_length": 16, "vocab_size": 49408}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = open_clip.CLIP(**config["model_cfg"])
    safetensors.torch.save_file(model.state_dict(), folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def command(prompts, clip, out, /, **others):
    options = {"folder": clip, "sha256": digest_folder(clip), "model": "clip-stand-in@1", "out": out} | others
    return call(
        "make-prompts", prompts, *(word for name, value in options.items() for word in (f"--{name}", value))
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_has_thresholds_and_those_that_are_published_are_marked(name):
    path = find_prompts(name)
    head, texts, thresholds = read_prompts(path)
    assert head == f"{name}-zero-shot@1"
    found = dict(zip(texts, thresholds, strict=True))
    assert found | PUBLISHED[name] == found
    assert all(0.19 <= bar <= 0.22 for bar in thresholds)
    marked = [line for line in path.read_text().splitlines() if line.endswith("# published")]
    assert len(marked) == len(PUBLISHED[name])
    assert " tuned" in path.read_text()


def test_a_shipped_set_fits_into_the_text_tower_and_becomes_a_head(folder, tmp_path, no_network):
    real = tmp_path / "real"
    real.mkdir()
    (real / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes())
    config = json.loads((folder / CONFIG_FILE).read_text()) | {"stand_in": False}
    (real / CONFIG_FILE).write_text(json.dumps(config))
    pin = digest_folder(real)
    for name in SHIPPED:
        data = make_prompt_head(find_prompts(name), real, name="clip@1", sha256=pin)
        path = tmp_path / name
        path.write_bytes(data)
        head = load_zero_shot(path, f"clip@1#{pin[:8]}/bicubic224/fp32")
        assert (head.name, head.stand_in) == (f"{name}-zero-shot@1", False)


def load_zero_shot(path, embedder_name):
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    return load_head("zero-shot", path, sha256=pin, embedder_name=embedder_name, dims=64, backbones=())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_command_makes_a_head_for_the_embedder_and_prints_what_to_paste(
    folder, tmp_path, no_network, precision
):
    out = tmp_path / "heads" / "animals.safetensors"
    done = command(write(tmp_path, MINE), folder, out)
    assert done.code == 0, done.err
    (pasted,) = tomllib.loads(done.out)["head"]
    assert pasted == {"file": str(out), "sha256": hashlib.sha256(out.read_bytes()).hexdigest(), "kind": "zero-shot"}
    pin = digest_folder(folder)
    embedder = OpenClipEmbedder(
        folder, name="clip-stand-in@1", sha256=pin, device="cpu", precision=precision, batch=16
    )
    head = load_zero_shot(out, embedder.name)
    assert (head.name, head.stand_in) == ("animals-stand-in@1", True)
    texts = ["a photo of a dog", "a photo of a mountain"]
    vectors = make_prompt_vectors(folder, texts, name="clip-stand-in@1", sha256=pin)
    rows = embedder.embed(np.stack([embedder.view(stand_ins.draw_picture(90, 120, seed)) for seed in range(4)]))
    cosines = rows.astype(np.float64) @ vectors.astype(np.float64).T
    expected = 1 / (1 + np.exp(-100 * (cosines - [0.2, -0.5]).max(axis=1)))
    np.testing.assert_allclose(head.score(rows), expected, atol=1e-4)
    first = out.read_bytes()
    assert command(tmp_path / "mine.toml", folder, out).code == 0
    assert out.read_bytes() == first


def test_a_pair_is_the_harmful_text_against_the_harmless(folder, tmp_path):
    pin = digest_folder(folder)
    path = tmp_path / "head"
    path.write_bytes(make_prompt_head(write(tmp_path, PAIR), folder, name="clip-stand-in@1", sha256=pin))
    vectors = make_prompt_vectors(folder, ["a house", "a dog"], name="clip-stand-in@1", sha256=pin)
    scores = load_zero_shot(path, f"clip-stand-in@1#{pin[:8]}/bicubic224/fp32").score(vectors.astype(np.float16))
    assert scores[0] < 0.5 < scores[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = ", "not valid TOML"),
        ("", "with \\[\\[prompt\\]\\] tables"),
        ('name = "a@1"', "found the keys name"),
        ('name = "a@1"\nprompt = []', "with \\[\\[prompt\\]\\] tables"),
        ('name = 3\nharmless = "a"\nharmful = "b"', "`harmless` and `harmful`"),
        (PAIR + "more = 1", "found the keys name, harmless, harmful, more"),
        (PAIR + '[[prompt]]\ntext = "a"\nthreshold = 0.2', "`harmless` and `harmful`"),
        (MINE + "[[prompt]]\ntext = 'a photo of a dog'\nthreshold = 0.3", "prompt 3: expected a new `text`"),
        (MINE + "[[prompt]]\ntext = 'a'", "prompt 3: expected"),
        (MINE + "[[prompt]]\ntext = 'a'\nthreshold = '0.2'", "prompt 3: expected"),
        (MINE + "[[prompt]]\ntext = 'a'\nthreshold = true", "prompt 3: expected"),
        (MINE + "[[prompt]]\ntext = 'a'\nthreshold = 0.2\nbar = 0.3", "prompt 3: expected"),
    ],
)
def test_what_is_no_set_of_prompts_is_refused_by_file_and_place(tmp_path, text, expected):
    with pytest.raises(WeightsError, match=expected) as caught:
        read_prompts(write(tmp_path, text))
    assert "mine.toml: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "others", "expected"),
    [
        (MINE, {"sha256": ""}, "is not pinned; found sha256"),
        (MINE, {"sha256": "0" * 64}, "expected sha256 0000"),
        (MINE, {"model": "clip@1"}, "'stand-in'"),
        (MINE, {"folder": "/nowhere"}, "does not exist"),
        (MINE.replace("-stand-in", ""), {}, "'stand-in'"),
        (MINE.replace("@1", ""), {}, "expected name@version"),
        (MINE.replace("0.2", "20.0"), {}, "mine.toml: prompt 1: expected"),
        (MINE.replace("0.2", "nan"), {}, "mine.toml: prompt 1: expected"),
        (MINE.replace("a dog", "a dog" * 30), {}, "prompt 0: expected at most 14 tokens"),
    ],
)
def test_what_cannot_become_a_head_is_refused_and_nothing_is_written(folder, tmp_path, text, others, expected):
    done = command(write(tmp_path, text), folder, tmp_path / "out", **others)
    assert done.code == 2
    assert expected in message(done)
    assert not (tmp_path / "out").exists()


def test_a_set_that_is_nowhere_is_refused_with_those_that_are_shipped(folder, tmp_path):
    done = command("minors", folder, tmp_path / "out")
    assert done.code == 2
    assert "minors: expected a file, or one of banknote, drawn, minor, sexual" in message(done)
