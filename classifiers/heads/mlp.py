"""A linear or MLP head in one safetensors file: ReLU between the layers, a sigmoid at the end.

Owns the file format and the scoring. Leaves training to `train` and the durable write to the caller.

- The bytes that are parsed are the bytes whose SHA-256 was compared with the pin: the file is read once.
- A head is bound to its embedder by model, weights digest and view; only the precision may differ.
- A score depends on its own row alone, to the bit, so live and stored embeddings score alike in any batch.
- A row with a NaN or an infinity, and a row that overflows, scores NaN.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from classifiers.signals import Embeddings, Scores
from classifiers.weights import WeightsError, check_name, read_pinned

SCHEMA = "1"
_METADATA_KEYS = {"name", "embedder", "activation", "output", "stand_in", "schema"}
_PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Layer:
    """weight: float32, out x in. bias: float32, out."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def without_precision(embedder_name: str) -> str:
    """Return what a head is bound to: the embedder's full name without precision and `/compiled`.

    The forms of one tower differ by rounding alone; a run still records which of them it used.
    """
    stem, _, last = embedder_name.removesuffix("/compiled").rpartition("/")
    return stem if last in _PRECISIONS else embedder_name


@dataclass(frozen=True, slots=True)
class MlpHead:
    """A `Classifier` of one score. Example: `MlpHead.load(path, sha256=pin, embedder_name=e.name, dims=512)`."""

    name: str
    sha256: str
    embedder: str
    layers: tuple[Layer, ...]
    stand_in: bool

    @classmethod
    def load(cls, path: Path, *, sha256: str, embedder_name: str, dims: int) -> MlpHead:
        """Read a pinned head for one embedder.

        Args:
            path: the safetensors file.
            sha256: its pin, in hex.
            embedder_name: full name of the embedder whose embeddings it will score.
            dims: width of those embeddings.

        Raises:
            WeightsError: missing, not the pinned file, malformed, or made for another embedder.
        """
        data = read_pinned(path, sha256)
        try:
            tensors = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{path}: not a safetensors file: {error}") from error
        metadata = _read_metadata(data, path)
        stand_in = metadata["stand_in"] == "true"
        name = check_name(metadata["name"], stand_in=stand_in)
        if metadata["embedder"] != without_precision(embedder_name):
            raise WeightsError(
                f"head '{name}': made for embedder '{metadata['embedder']}', but the run uses "
                f"'{without_precision(embedder_name)}'; use that embedder or train a head for this one"
            )
        return cls(name, sha256, metadata["embedder"], _read_layers(tensors, dims, path), stand_in)

    @property
    def full_name(self) -> str:
        """The name with the first 8 hex digits of the file's digest."""
        return f"{self.name}#{self.sha256[:8]}"

    def score(self, embeddings: Embeddings) -> Scores:
        """Score a batch: float16, N x D in; float32, N, in [0, 1] or NaN out.

        Raises:
            ValueError: another width or dtype: heads score the fp16-rounded embedding, live or stored.
        """
        dims = self.layers[0].weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != dims or embeddings.dtype != np.float16:
            raise ValueError(
                f"head '{self.name}': expected float16 N x {dims}, found {embeddings.dtype} {embeddings.shape}"
            )
        rows = embeddings.astype(np.float32)
        rows[~np.isfinite(rows).all(axis=1)] = np.nan
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in self.layers[:-1]:
                rows = np.maximum(affine(rows, layer), np.float32(0))
            logits = affine(rows, self.layers[-1])[:, 0]
        logits[~np.isfinite(logits)] = np.nan
        return sigmoid(logits)


def encode_head(layers: Sequence[Layer], *, name: str, embedder_name: str, stand_in: bool = False) -> bytes:
    """Return the bytes of a head file: same head, same bytes.

    Args:
        layers: first to last; the last has one output.
        name: `name@version`; holds 'stand-in' if it is one.
        embedder_name: full name of the embedder it was made for; its precision is not part of the binding.
        stand_in: True for random numbers in the place of trained ones.

    Raises:
        WeightsError: the layers do not fit each other, or the name breaks its law.
    """
    tensors = {}
    for number, layer in enumerate(layers):
        tensors[f"layers.{number}.weight"] = np.ascontiguousarray(layer.weight)
        tensors[f"layers.{number}.bias"] = np.ascontiguousarray(layer.bias)
    dims = layers[0].weight.shape[-1] if layers else 0
    _read_layers(tensors, dims, Path(name))
    metadata = {
        "name": check_name(name, stand_in=stand_in),
        "embedder": without_precision(embedder_name),
        "activation": "relu",
        "output": "sigmoid",
        "stand_in": "true" if stand_in else "false",
        "schema": SCHEMA,
    }
    data = safetensors.numpy.save(tensors, metadata)
    # safetensors writes the metadata in an order that changes from process to process.
    header, body = _split(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def affine(rows: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
    """Apply one layer: N x D in, N x H out; a row's result is its own, to the bit."""
    # einsum sums each product by itself; a BLAS product changes its last bits with the number of rows.
    product: NDArray[np.float32] = np.einsum("nd,hd->nh", rows, layer.weight)
    return product + layer.bias


def sigmoid(logits: NDArray[np.float32]) -> Scores:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def _split(data: bytes) -> tuple[dict[str, object], bytes]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, object] = json.loads(data[8 : 8 + size])
    return header, data[8 + size :]


def _read_metadata(data: bytes, path: Path) -> dict[str, str]:
    found = _split(data)[0].get("__metadata__")
    if not isinstance(found, dict) or set(found) != _METADATA_KEYS:
        keys = sorted(found) if isinstance(found, dict) else []
        raise WeightsError(f"{path}: expected the metadata keys {sorted(_METADATA_KEYS)}, found {keys}")
    fixed = {"schema": (SCHEMA,), "activation": ("relu",), "output": ("sigmoid",), "stand_in": ("true", "false")}
    for key, allowed in fixed.items():
        if found[key] not in allowed:
            raise WeightsError(f"{path}: metadata '{key}': expected {' or '.join(allowed)}, found '{found[key]}'")
    return found


def _read_layers(tensors: dict[str, NDArray[np.float32]], dims: int, path: Path) -> tuple[Layer, ...]:
    count = len(tensors) // 2
    expected = {f"layers.{number}.{part}" for number in range(count) for part in ("weight", "bias")}
    if not tensors or set(tensors) != expected:
        raise WeightsError(f"{path}: expected tensors layers.0.weight, layers.0.bias, ..., found {sorted(tensors)}")
    layers = []
    width = dims
    for number in range(count):
        layer = Layer(tensors[f"layers.{number}.weight"], tensors[f"layers.{number}.bias"])
        outputs = 1 if number == count - 1 else layer.bias.size
        if layer.weight.shape != (outputs, width) or layer.bias.shape != (outputs,):
            raise WeightsError(
                f"{path}: layers.{number}: expected weight {(outputs, width)} and bias {(outputs,)}, "
                f"found {layer.weight.shape} and {layer.bias.shape}"
            )
        for part in (layer.weight, layer.bias):
            if part.dtype != np.float32 or not np.isfinite(part).all():
                raise WeightsError(f"{path}: layers.{number}: expected finite float32, found {part.dtype}")
        layers.append(layer)
        width = outputs
    return tuple(layers)
