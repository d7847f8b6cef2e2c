"""OpenAI's published CLIP files, made into the two files of a folder that `open_clip` reads.

Leaves getting the archive, and writing the folder, to the caller.

- An archive is TorchScript, which torch's own reader takes apart: no Python pickle. Even so nothing is read but
  bytes whose SHA-256 is the pin: the digest comes first, and is of the very bytes that are read.
- Weights are widened to fp32, which loses nothing; the shape is open_clip's own, QuickGELU included.
- Same archive, same bytes.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import safetensors.torch
import torch

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import WeightsError, read_pinned

_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def convert(archive: Path, *, sha256: str, open_clip_model: str) -> dict[str, bytes]:
    """Return the bytes of a model folder's files by name.

    Args:
        archive: one of the `.pt` files that openai/CLIP's clip.py names.
        sha256: its pin, in hex.
        open_clip_model: the name under which open_clip knows its shape: `ViT-B-32-quickgelu`.

    Raises:
        WeightsError: missing, not the pinned archive, or not one of a known shape.
    """
    stream = io.BytesIO(read_pinned(archive, sha256))
    shape = open_clip.get_model_config(open_clip_model)
    if shape is None:
        raise WeightsError(f"{archive}: open_clip {open_clip.__version__} knows no model '{open_clip_model}'")
    try:
        with warnings.catch_warnings():
            # torch advises against TorchScript; these files are that.
            warnings.simplefilter("ignore", DeprecationWarning)
            state = torch.jit.load(stream, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise WeightsError(f"{archive}: not a TorchScript archive: {error}") from error
    del stream
    tensors = {name: state.pop(name).float() for name in list(state) if name not in _NO_WEIGHTS}
    view = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    view |= {"size": shape["vision_cfg"]["image_size"], "interpolation": "bicubic", "resize_mode": "shortest"}
    config = json.dumps({"model_cfg": shape, "preprocess_cfg": view}, indent=2, sort_keys=True)
    return {WEIGHTS_FILE: safetensors.torch.save(tensors), CONFIG_FILE: config.encode()}
