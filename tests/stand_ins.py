"""Stand-ins for models, with random numbers from a seed, and drawn pictures: for tests and demonstrations.

The scores mean nothing. Every file is marked as a stand-in, and the embedder and the heads refuse one
whose configured name does not say so.

- Same seed, same machine: same bytes.
- Embeddings of different pictures differ widely, and scores spread over [0, 1], as those of real models do.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.heads.mlp import Layer, encode_head
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import digest_folder

MAX_TINY_PARAMETERS = 5_000_000
_OPENAI_MEAN = [0.48145466, 0.4578275, 0.40821073]
_OPENAI_STD = [0.26862954, 0.26130258, 0.27577711]
_TEXT = {"context_length": 4, "vocab_size": 16, "width": 32, "heads": 1, "layers": 1}
_MODELS = {
    "tiny": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 128, "head_width": 32, "patch_size": 32},
        "text_cfg": _TEXT,
    },
    "vit-b-32": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": _TEXT,
    },
    "vit-l-14": {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
        "text_cfg": _TEXT,
    },
}


def write_stand_in_clip(folder: Path, *, seed: int, size: str = "tiny") -> str:
    """Write a model folder and return its digest. `size` is 'tiny' (2 layers) or that of a real tower."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**_MODELS[size]).eval()
        _spread(model.visual)
    if size == "tiny":
        assert sum(parameter.numel() for parameter in model.parameters()) <= MAX_TINY_PARAMETERS
    # Half the bytes on disk; open_clip widens them again.
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE)
    view = {
        "size": 224,
        "mean": _OPENAI_MEAN,
        "std": _OPENAI_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"stand_in": True, "model_cfg": _MODELS[size], "preprocess_cfg": view}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))
    return digest_folder(folder)


def _spread(tower: Any) -> None:
    """Centre the tower's output on blurred noise: random towers else send all pictures to nearly one point."""
    noise = torch.nn.functional.interpolate(2 * torch.rand(16, 3, 7, 7) - 1, size=(224, 224), mode="bilinear")
    projection, tower.proj = tower.proj, None
    tower.ln_post.bias -= tower(2 * noise).mean(dim=0)
    tower.proj = projection


def write_stand_in_head(path: Path, *, name: str, embedder_name: str, dims: int, seed: int) -> str:
    """Write a head with one hidden layer and return its digest."""
    random = np.random.default_rng(seed)
    hidden = Layer(random.normal(size=(16, dims)).astype(np.float32), np.zeros(16, np.float32))
    last = Layer(random.normal(size=(1, 16)).astype(np.float32), np.zeros(1, np.float32))
    data = encode_head([hidden, last], name=name, embedder_name=embedder_name, stand_in=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def draw_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw overlapping rectangles of plain colour, with noise in one quarter: uint8, height x width x 3."""
    random = np.random.default_rng(seed)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = random.integers(0, 256, 3)
    for _ in range(8):
        top, left = random.integers(0, height), random.integers(0, width)
        picture[top : top + height // 3 + 1, left : left + width // 3 + 1] = random.integers(0, 256, 3)
    corner = picture[: height // 2, : width // 2]
    corner[:] = random.integers(0, 256, corner.shape)
    return picture
