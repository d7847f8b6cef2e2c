"""The MobileNetV2 of nsfwjs, read from its published TensorFlow.js files and run by torch on the CPU.

Owns the reading of TensorFlow.js weights and the forward pass. Leaves getting the files to others.

- Only a folder with the pinned digest is read; no pickle, no code from the files. A weight that is missing or of
  another shape is a `WeightsError`.
- Each view is scored by itself on one thread: its score is the same to the bit in any batch, for any number of
  threads. (Two threads sum some 1 x 1 convolutions in another order than one: 1e-6 apart.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from classifiers.embedders.views import borrow
from classifiers.image.preprocessing import NSFWJS
from classifiers.image.views import check_views, corner_view
from classifiers.signals import Pixels, Scores, Views
from classifiers.weights import WeightsError, check_pin

SIZE = 224
CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
_SCORED = [CLASSES.index("Porn"), CLASSES.index("Hentai")]
_BLOCKS, _HALVING = 17, (1, 3, 6, 13)
_NORM = ("moving_mean", "moving_variance", "gamma", "beta")

Weights = dict[str, torch.Tensor]


class NsfwJs:
    """A `PixelNet`: the sum of the probabilities of Porn and Hentai. Sexy (swimwear, underwear) is not in it."""

    name = NSFWJS.name

    def __init__(self, folder: Path, *, sha256: str = NSFWJS.sha256) -> None:
        """Check the pin and build the net.

        Args:
            folder: holds model.json and the weights that it names, nothing else.
            sha256: the pin: the folder's `digest_folder`.

        Raises:
            WeightsError: missing, not the pinned folder, or anything in it that is not expected.
        """
        check_pin(folder, sha256, what=NSFWJS.name)
        try:
            model = json.loads((folder / "model.json").read_bytes())
            self._weights = read_tfjs_weights(folder, model["weightsManifest"])
            self.classes(np.zeros((1, SIZE, SIZE, 3), np.uint8))
        except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{folder}: not the net that was expected: {error!r}") from error
        # The files were read a second time.
        check_pin(folder, sha256, what=NSFWJS.name)
        self.full_name = replace(NSFWJS, sha256=sha256).full_name

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return the whole picture, squashed; see `corner_view`."""
        return corner_view(pixels, SIZE)

    def classes(self, views: Views) -> NDArray[np.float32]:
        """Return the probabilities of the five `CLASSES`, float32 N x 5.

        Raises:
            ValueError: not uint8 N x 224 x 224 x 3.
        """
        check_views(views, SIZE)
        rows = np.empty((len(views), len(CLASSES)), np.float32)
        with one_thread():
            for row, view in zip(rows, views, strict=True):
                row[:] = self._forward(to_tensor(view) / 255)[0].numpy()
        return rows

    def score(self, views: Views) -> Scores:
        """Return Porn + Hentai, float32 N, NaN where the net does not give finite probabilities."""
        return np.asarray(np.minimum(self.classes(views)[:, _SCORED].sum(axis=1), 1), np.float32)

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = functional.relu6(self._convolve(rows, "Conv1", "bn_Conv1", 2))
        for number in range(_BLOCKS):
            block, inner = f"block_{number}" if number else "expanded_conv", rows
            if number:
                inner = functional.relu6(self._convolve(inner, f"{block}_expand"))
            stride = 2 if number in _HALVING else 1
            inner = functional.relu6(self._convolve(inner, f"{block}_depthwise", stride=stride))
            inner = self._convolve(inner, f"{block}_project")
            rows = rows + inner if rows.shape == inner.shape else inner
        rows = functional.relu6(self._convolve(rows, "Conv_1", "Conv_1_bn")).mean(dim=(2, 3))
        for name in ("dense_1", "dense_2", "dense_3"):
            rows = functional.linear(
                torch.relu(rows), self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"]
            )
        return torch.softmax(rows, dim=1)

    def _convolve(self, rows: torch.Tensor, name: str, norm: str = "", stride: int = 1) -> torch.Tensor:
        kernel = self._weights[f"{name}/{'depthwise_' * name.endswith('depthwise')}kernel"]
        groups = rows.shape[1] // kernel.shape[1]
        rows = functional.conv2d(pad_same(rows, kernel.shape[2], stride), kernel, stride=stride, groups=groups)
        mean, variance, gain, bias = (self._weights[f"{norm or f'{name}_BN'}/{part}"] for part in _NORM)
        return functional.batch_norm(rows, mean, variance, gain, bias, eps=1e-3)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread meanwhile, and keep no gradients."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def to_tensor(view: NDArray[np.uint8]) -> torch.Tensor:
    """Return float32 1 x 3 x S x S of a view, 0 to 255, its memory still channels-last."""
    return borrow(np.ascontiguousarray(view[None])).permute(0, 3, 1, 2).float()


def pad_same(pixels: torch.Tensor, kernel: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """Pad N x C x H x W as TensorFlow's 'same' does: what is odd goes to the bottom and the right."""
    totals = [
        max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in (pixels.shape[3], pixels.shape[2])
    ]
    edges = [part for total in totals for part in (total // 2, total - total // 2)]
    return functional.pad(pixels, edges, value=value)


def read_tfjs_weights(folder: Path, manifest: list[dict[str, Any]]) -> Weights:
    """Read the tensors of a TensorFlow.js weights manifest, those of 8 bits as float32(value * scale + min).

    Their axes are turned to torch's order: kernels out x in x H x W, depthwise ones in x 1 x H x W, dense out x in.

    Raises:
        ValueError: more than one group, another dtype, a number that is not finite, or a shard of another length
            than its tensors.
        KeyError: a field is missing.
        OSError: a shard cannot be read.
    """
    (group,) = manifest
    data = b"".join((folder / Path(name).name).read_bytes() for name in group["paths"])
    weights, start = {}, 0
    for entry in group["weights"]:
        small = entry.get("quantization", {"dtype": "<f4", "scale": 1.0, "min": 0.0})
        if entry["dtype"] != "float32" or small["dtype"] not in ("uint8", "<f4"):
            raise ValueError(f"weight '{entry['name']}': expected float32, or uint8 standing for it")
        # Also refuses to read past the end.
        values = np.frombuffer(data, small["dtype"], int(np.prod(entry["shape"])), start)
        start += values.nbytes
        values = (values.astype(np.float64) * small["scale"] + small["min"]).astype(np.float32)
        axes = {4: (2, 3, 0, 1) if "depthwise" in entry["name"] else (3, 2, 0, 1), 2: (1, 0)}
        values = values.reshape(entry["shape"]).transpose(axes.get(len(entry["shape"])))
        weights[entry["name"]] = torch.from_numpy(np.ascontiguousarray(values))
    if start != len(data) or not all(bool(values.isfinite().all()) for values in weights.values()):
        raise ValueError(f"expected {start} bytes of finite weights, found {len(data)} bytes")
    return weights
