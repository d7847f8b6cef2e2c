"""LAION's published CLIP-NSFW heads, read from the very zips that LAION published: no TensorFlow, no pickle.

Owns reading those AutoKeras SavedModels and their scoring. A few input columns (5 of 768, 3 of 512) are not
numbers to these models: AutoKeras took them for categories, wrote each value as text ("%.6f") and looked the
text up in a list of the training values, most frequent first. Ports that feed the number are another model.

- The bytes that are parsed are the bytes whose SHA-256 was compared with the pin; whatever cannot be read is
  a `WeightsError`.
- `faithful` is the published model; `mean_impute` puts the mean into the columns of categories.
- A head goes with OpenAI's CLIP of its size alone, which the digest of the embedder's weights must show.
- A score depends on its own row alone, to the bit. A row with a NaN or an infinity scores NaN.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from classifiers.heads.mlp import Layer, affine, sigmoid
from classifiers.signals import Embeddings, Scores
from classifiers.weights import WeightsError, read_pinned

Mode = Literal["faithful", "mean_impute"]
Floats = NDArray[np.float32]

MAX_MEMBER_BYTES = 16 << 20
_MEMBERS = ("variables/variables.index", "variables/variables.data-00000-of-00001", "saved_model.pb")
_VARINT = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_DIM = re.compile(rb"\x12[\x02-\x06]\x08(N)".replace(b"N", _VARINT))
# The two protobuf messages that are read, in the one way TensorFlow writes them. In the index, a
# BundleEntryProto: float32, one dimension or two, the offset (0 is left out), the size.
_TENSOR = re.compile(
    rb"\x08\x01\x12[\x04-\x0e]((?:\x12[\x02-\x06]\x08N){1,2})(?:\x20(N))?\x28(N)\x35".replace(b"N", _VARINT)
)
# In the graph, a TensorProto: text, one dimension, the texts.
_VOCABULARY = re.compile(
    rb"\x08\x07\x12[\x04-\x08]\x12[\x02-\x06]\x08(N)((?:B[\x08\x09]-?[01]\.[0-9]{6})+)".replace(b"N", _VARINT)
)
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class _Published:
    """folder: in the zip. widths: of the layers, inputs first. columns: those of categories."""

    name: str
    folder: str
    widths: tuple[int, ...]
    columns: tuple[int, ...]


_PUBLISHED = {
    768: _Published(
        "laion-nsfw-l14@1", "clip_autokeras_binary_nsfw", (768, 64, 512, 256, 1), (180, 316, 413, 440, 644)
    ),
    512: _Published("laion-nsfw-b32@1", "clip_autokeras_nsfw_b32", (512, 32, 32, 1), (92, 133, 312)),
}


def check_backbone(embedder_name: str, backbones: frozenset[str], *, what: str) -> None:
    """Refuse an embedder whose weights are not among those that a published head was made for.

    Args:
        embedder_name: full name, `name@version#digest/view/precision`.
        backbones: `digest_folder` of the model folders that hold the right weights, in hex, 8 digits or more.
        what: the head, for the message.

    Raises:
        WeightsError: other weights, or another view.
    """
    found = re.fullmatch("[^#/]+#([0-9a-f]{8})/bicubic224/[a-z0-9]+(?:/compiled)?", embedder_name)
    if found and found[1] in {backbone[:8] for backbone in backbones}:
        return
    raise WeightsError(
        f"{what}: made for OpenAI's CLIP of its size with the view bicubic224, known by the weights digests "
        f"{sorted(backbones)}, but the run uses '{embedder_name}'; use that CLIP or a head made for this one. "
        "If the folder does hold OpenAI's weights, add its digest to the head's backbones"
    )


def finite_rows(embeddings: Embeddings, dims: int, name: str) -> Floats:
    """Return embeddings, float16 N x `dims`, as float32; a row with a NaN or an infinity becomes all NaN.

    Raises:
        ValueError: another width or dtype: heads score the fp16-rounded embedding, live or stored.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != dims or embeddings.dtype != np.float16:
        raise ValueError(f"head '{name}': expected float16 N x {dims}, found {embeddings.dtype} {embeddings.shape}")
    rows = embeddings.astype(np.float32)
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    return rows


@dataclass(frozen=True, slots=True)
class LaionNsfwHead:
    """A `Classifier`: how likely a picture is sexual. Example: `LaionNsfwHead.load(path, sha256=pin, ...)`.

    mean, scale: float32, D. columns: those of categories. tables: float32, columns x 65,536: what stands for a
    value in such a column, after normalisation, by the 16 bits of the value.
    """

    name: str
    sha256: str
    mode: Mode
    layers: tuple[Layer, ...]
    mean: Floats
    scale: Floats
    columns: tuple[int, ...]
    tables: Floats

    @property
    def stand_in(self) -> bool:
        """No: these are LAION's weights, or they do not load."""
        return False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        sha256: str,
        embedder_name: str,
        dims: int,
        backbones: frozenset[str],
        mode: Mode = "faithful",
    ) -> LaionNsfwHead:
        """Read a published zip (https://github.com/LAION-AI/CLIP-based-NSFW-Detector, at d6bb8fe).

        Args:
            path: the zip.
            sha256: its pin, in hex.
            embedder_name: full name of the embedder whose embeddings it will score.
            dims: width of those embeddings: 768 for ViT-L/14, 512 for ViT-B/32.
            backbones: see `check_backbone`.
            mode: 'faithful' or 'mean_impute'.

        Raises:
            WeightsError: missing, not the pinned file, damaged, another file, or made for another embedder.
        """
        if dims not in _PUBLISHED:
            raise WeightsError(f"LAION's NSFW heads: expected {sorted(_PUBLISHED)} dims, found {dims}")
        published = _PUBLISHED[dims]
        check_backbone(embedder_name, backbones, what=f"head '{published.name}'")
        data = read_pinned(path, sha256)
        try:
            (mean, variance, *rest), vocabularies = _read_zip(data, published)
        except _DAMAGE as error:
            reason = f"{type(error).__name__} {error}"
            raise WeightsError(f"{path}: not LAION's '{published.folder}', get that zip: {reason}") from error
        layers = tuple(
            Layer(np.ascontiguousarray(kernel.T), bias) for bias, kernel in zip(rest[::2], rest[1::2], strict=True)
        )
        # Keras' Normalization divides by no less.
        scale = np.maximum(np.sqrt(variance), np.float32(1e-7))
        tables = np.zeros((len(vocabularies), 1 << 16), np.float32)
        if mode == "faithful":
            for table, column, texts in zip(tables, published.columns, vocabularies, strict=True):
                table[:] = (_ranks(texts) - mean[column]) / scale[column]
        return cls(published.name, sha256, mode, layers, mean, scale, published.columns, tables)

    @property
    def full_name(self) -> str:
        """The name with the first 8 hex digits of the file's digest, and the mode."""
        return f"{self.name}#{self.sha256[:8]}/{self.mode}"

    def score(self, embeddings: Embeddings) -> Scores:
        """Score a batch: float16, N x D in; float32, N, in [0, 1] or NaN out.

        Raises:
            ValueError: another width or dtype: the texts looked up are those of fp16-rounded values.
        """
        rows = (finite_rows(embeddings, len(self.mean), self.name) - self.mean) / self.scale
        for table, column in zip(self.tables, self.columns, strict=True):
            # NaN rows stay NaN by their other columns.
            rows[:, column] = table[embeddings[:, column].view(np.uint16)]
        for layer in self.layers[:-1]:
            rows = np.maximum(affine(rows, layer), np.float32(0))
        return sigmoid(affine(rows, self.layers[-1])[:, 0])


@cache
def _texts_of_halves() -> tuple[str, ...]:
    """Return all 65,536 float16 values as TensorFlow's AsString writes them, by their bits."""
    return tuple(f"{value:.6f}" for value in np.arange(1 << 16, dtype=np.uint16).view(np.float16).tolist())


def _ranks(texts: list[str]) -> Floats:
    """Return the published index of every float16 value: from 1 by frequency, 0 for what training never saw."""
    ranks = {text: number for number, text in enumerate(texts, 1)}
    return np.array([ranks.get(text, 0) for text in _texts_of_halves()], np.float32)


def _read_zip(data: bytes, published: _Published) -> tuple[list[Floats], list[list[str]]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        index, values, graph = (_member(archive, f"{published.folder}/{name}") for name in _MEMBERS)
    return _tensors(index, values, published.widths), _vocabularies(graph, len(published.columns))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > MAX_MEMBER_BYTES or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{name}': {info.file_size} bytes, compressed by method {info.compress_type}")
    return archive.read(info)


def _tensors(index: bytes, values: bytes, widths: tuple[int, ...]) -> list[Floats]:
    """Return mean, variance, then bias and kernel (inputs x outputs) of each layer: the index sorts by name."""
    shapes: list[tuple[int, ...]] = [(widths[0],), (widths[0],)]
    for inputs, outputs in pairwise(widths):
        shapes += [(outputs,), (inputs, outputs)]
    tensors = []
    for match, shape in zip(_TENSOR.finditer(index), shapes, strict=True):
        dims = tuple(_number(dim) for dim in _DIM.findall(match[1]))
        start, count = _number(match[2] or b"\0"), int(np.prod(shape))
        if dims != shape or _number(match[3]) != 4 * count or start + 4 * count > len(values):
            raise ValueError(f"expected a tensor {shape}, found {dims} at byte {start} of {len(values)}")
        tensors.append(np.frombuffer(values, "<f4", count, start).reshape(shape).astype(np.float32))
    if not all(np.isfinite(tensor).all() for tensor in tensors) or (tensors[1] < 0).any():
        raise ValueError("expected finite tensors and no variance below 0")
    return tensors


def _vocabularies(graph: bytes, count: int) -> list[list[str]]:
    """Return the texts of each column of categories: the graph keeps the tables in the order of the columns."""
    found = []
    for match in _VOCABULARY.finditer(graph):
        texts = re.findall("-?[01][.][0-9]{6}", match[2].decode())
        # The next constant holds the indices.
        indices = np.arange(1, len(texts) + 1, dtype="<i8").tobytes()
        if _number(match[1]) != len(texts) or indices not in graph[match.end() :][: len(indices) + 200]:
            raise ValueError(f"a vocabulary of {len(texts)} texts is not what the graph says")
        found.append(texts)
    if len(found) != count:
        raise ValueError(f"expected {count} vocabularies, found {len(found)}")
    return found


def _number(varint: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))
