"""Heads made of words: embeddings are compared with the directions that a CLIP's text tower gives to prompts.

Owns the file of such a head, its scoring, LAION's published prompt pair for violence and the making of vectors
from prompts. Leaves the choice of prompts and thresholds, and the durable write, to the caller.

- With thresholds, the largest of sigmoid(100 * (cosine - threshold)) over the prompts: 0.5 where one is just
  reached. Without, two prompts are a pair, harmless then harmful: softmax(100 * cosine) of the second.
- The bytes that are parsed are the bytes whose SHA-256 was compared with the pin. No network, no pickle.
- A score depends on its own row alone, to the bit. A row with a NaN or an infinity scores NaN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from classifiers.embedders.folder import read_folder
from classifiers.heads.laion import Floats, check_backbone, finite_rows
from classifiers.heads.mlp import Layer, affine, sigmoid, without_precision
from classifiers.signals import Embeddings, Scores
from classifiers.weights import WeightsError, check_name, check_pin, read_pinned

SCHEMA = "1"
# What CLIP was trained with, and LAION and Q16 compare with.
CLIP_SCALE = np.float32(100)
_UNIT_WITHIN = 1e-3
_KEYS = ("schema", "name", "embedder", "stand_in")
_VIOLENCE = {512: "laion-violence-b32@1", 768: "laion-violence-l14@1"}
_PAIR_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{'descr': '<f4', 'fortran_order': False, 'shape': \(2, ([1-9][0-9]{0,4})\), \} *\n"
)


@dataclass(frozen=True, slots=True)
class ZeroShotHead:
    """A `Classifier`. Example: `ZeroShotHead.load(path, sha256=pin, embedder_name=e.name, dims=512)`.

    layer: one row a comparison, scaled; the score is the sigmoid of the largest.
    """

    name: str
    sha256: str
    layer: Layer
    stand_in: bool = False

    @classmethod
    def load(cls, path: Path, *, sha256: str, embedder_name: str, dims: int) -> ZeroShotHead:
        """Read a pinned file that `encode_zero_shot` made for this embedder.

        Raises:
            WeightsError: missing, not the pinned file, malformed, or made for another embedder.
        """
        data = read_pinned(path, sha256)
        try:
            tensors = safetensors.numpy.load(data)
            text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["head"]
            schema, name, made_for, stand_in = (json.loads(text)[key] for key in _KEYS)
            check_name(name, stand_in=stand_in)
            layer = _layer(tensors["prompts"], tensors.get("thresholds"))
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: not a zero-shot head: {type(error).__name__} {error}") from error
        found, expected = (
            (schema, made_for, layer.weight.shape[1]),
            (SCHEMA, without_precision(embedder_name), dims),
        )
        if found != expected:
            raise WeightsError(
                f"head '{name}': its schema, embedder and dims: made for embedder {found}, the run has {expected}; "
                "use that embedder or make a head for this one"
            )
        return cls(name, sha256, layer, stand_in)

    @classmethod
    def load_violence_pair(
        cls, path: Path, *, sha256: str, embedder_name: str, dims: int, backbones: frozenset[str]
    ) -> ZeroShotHead:
        """Read LAION's `violence_detection_vit_*.npy`, float32 2 x D: harmless, violent. 0.5 is where LAION cuts.

        Raises:
            WeightsError: missing, not the pinned file, another file, or made for another embedder.
        """
        if dims not in _VIOLENCE:
            raise WeightsError(f"LAION's violence pairs: expected {sorted(_VIOLENCE)} dims, found {dims}")
        check_backbone(embedder_name, backbones, what=f"head '{_VIOLENCE[dims]}'")
        data = read_pinned(path, sha256)
        header = _PAIR_HEADER.match(data)
        if header is None or int(header[1]) != dims or len(data) != header.end() + 8 * dims:
            raise WeightsError(f"{path}: expected a .npy of float32 2 x {dims}; get the published file")
        vectors = np.frombuffer(data, "<f4", offset=header.end()).reshape(2, dims)
        return cls(_VIOLENCE[dims], sha256, _layer(vectors, None))

    @property
    def full_name(self) -> str:
        """The name with the first 8 hex digits of the file's digest."""
        return f"{self.name}#{self.sha256[:8]}"

    def score(self, embeddings: Embeddings) -> Scores:
        """Score a batch: float16, N x D in; float32, N, in [0, 1] or NaN out.

        Raises:
            ValueError: another width or dtype.
        """
        rows = finite_rows(embeddings, self.layer.weight.shape[1], self.name)
        return sigmoid(affine(rows, self.layer).max(axis=1))


def encode_zero_shot(
    prompts: Floats, thresholds: Sequence[float] | None, *, name: str, embedder_name: str, stand_in: bool = False
) -> bytes:
    """Return the bytes of a head file: same head, same bytes.

    Args:
        prompts: float32, P x D, unit rows; for a pair, harmless then harmful.
        thresholds: P cosines, or None for a pair.
        name: `name@version`; holds 'stand-in' if it is one.
        embedder_name: full name of the embedder it was made for; its precision is not part of the binding.
        stand_in: True for vectors of a random text tower.

    Raises:
        WeightsError: the parts do not fit each other, or the name breaks its law.
    """
    tensors = {"prompts": np.ascontiguousarray(prompts)}
    if thresholds is not None:
        tensors["thresholds"] = np.array(thresholds, np.float32)
    _layer(tensors["prompts"], tensors.get("thresholds"))
    values = (SCHEMA, check_name(name, stand_in=stand_in), without_precision(embedder_name), stand_in)
    # One key: safetensors writes several in an order that changes from process to process.
    data: bytes = safetensors.numpy.save(tensors, {"head": json.dumps(dict(zip(_KEYS, values, strict=True)))})
    return data


def make_prompt_vectors(folder: Path, prompts: Sequence[str], *, name: str, sha256: str) -> Floats:
    """Return the text tower's unit vectors, float32 P x D, from a pinned model folder, on the CPU.

    Args:
        folder: as for `OpenClipEmbedder`: open_clip_config.json and open_clip_model.safetensors.
        prompts: whole texts, templates filled in.
        name: the model's `name@version`; holds 'stand-in' if the folder is marked as one.
        sha256: the pin: the folder's `digest_folder`.

    Raises:
        WeightsError: not the pinned folder, or no text tower that works offline.
        ValueError: no prompt, or one too long for the tower, which would cut it short.
    """
    # Scoring needs no torch.
    import torch  # noqa: PLC0415

    from classifiers.torchvision_schemas import open_clip  # noqa: PLC0415

    check_pin(folder, sha256, what=f"text tower '{name}'")
    read_folder(folder, name=name)
    try:
        model = open_clip.create_model(f"local-dir:{folder}", device="cpu", require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except (RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{folder}: open_clip cannot build this text tower: {error}") from error
    check_pin(folder, sha256, what=f"text tower '{name}'")
    for number, prompt in enumerate(prompts):
        # The tokenizer adds a start and an end.
        if len(tokenizer.encode(prompt)) + 2 > tokenizer.context_length:
            raise ValueError(f"prompt {number}: expected at most {tokenizer.context_length - 2} tokens; shorten it")
    with torch.inference_mode():
        raw = model.eval().encode_text(tokenizer(list(prompts)))
        vectors: Floats = (raw / raw.norm(dim=1, keepdim=True)).numpy()
    return vectors


def _layer(prompts: Floats, thresholds: Floats | None) -> Layer:
    """Turn either rule into rows whose largest logit is the score's."""
    count = 2 if thresholds is None else len(thresholds)
    unit = prompts.shape[:1] == (count,) and np.abs(np.linalg.norm(prompts, axis=-1) - 1) <= _UNIT_WITHIN
    # Written so that a NaN does not pass.
    if prompts.ndim != 2 or prompts.dtype != np.float32 or not count or not np.all(unit):
        raise WeightsError(f"expected {count} prompts as float32 unit rows, found {prompts.dtype} {prompts.shape}")
    if thresholds is None:
        return Layer(CLIP_SCALE * (prompts[1:] - prompts[:1]), np.zeros(1, np.float32))
    if thresholds.dtype != np.float32 or thresholds.ndim != 1 or not (np.abs(thresholds) <= 1).all():
        raise WeightsError(f"thresholds: expected float32 cosines from -1 to 1, found {thresholds.dtype}")
    return Layer(CLIP_SCALE * prompts, -CLIP_SCALE * thresholds)
