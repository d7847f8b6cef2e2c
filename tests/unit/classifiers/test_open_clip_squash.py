"""A tower of the SigLIP family: the whole picture squashed, a timm tower, a tokenizer that lives on a hub."""

import json
import socket

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from stand_ins import draw_picture
from torchvision.transforms import v2

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE, embedder_name, read_folder
from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.embedders.views import square_view
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import digest_folder

NAME = "siglip-stand-in@1"
MODEL = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "token",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 64,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "width": 64,
        "heads": 2,
        "layers": 1,
        "pool_type": "last",
    },
}
VIEW = {
    "size": [160, 160],
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("siglip")
    parts = {key: value for key, value in MODEL.items() if key != "custom_text"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = open_clip.CustomTextCLIP(**parts)
    safetensors.torch.save_file(model.state_dict(), path / WEIGHTS_FILE)
    (path / CONFIG_FILE).write_text(json.dumps({"stand_in": True, "model_cfg": MODEL, "preprocess_cfg": VIEW}))
    return path


def test_it_is_read_as_an_image_tower_alone_without_a_network(folder, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    sha256 = digest_folder(folder)
    embedder = OpenClipEmbedder(folder, name=NAME, sha256=sha256, device="cpu", precision="fp32", batch=16)
    assert embedder.name == f"{NAME}#{sha256[:8]}/squash160/fp32"
    assert embedder.name == embedder_name(NAME, sha256, read_folder(folder, name=NAME), "fp32")
    view = embedder.view(draw_picture(300, 90))
    rows = embedder.embed(np.stack([view, view]))
    assert rows.shape == (2, 64)
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("shape", [(300, 90), (90, 300), (160, 160), (20, 500), (40, 30), (1, 900)])
def test_the_view_is_that_of_open_clips_own_transform(shape):
    pixels = draw_picture(*shape)
    theirs = v2.Resize((160, 160), interpolation=v2.InterpolationMode.BICUBIC)(Image.fromarray(pixels))
    ours = square_view(pixels, 160, squash=True)
    assert ours.shape == (160, 160, 3)
    apart = np.abs(ours.astype(int) - np.asarray(theirs).astype(int))
    # Where one side grows and the other shrinks, Pillow may take the passes in the other order: noise shows it.
    mixed = min(shape) < 160 < max(shape)
    assert apart.mean() < 0.1
    assert mixed or apart.max() <= 2
