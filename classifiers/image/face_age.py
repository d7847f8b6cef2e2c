"""The youngest apparent age in a picture, by face-api.js' tiny face detector and age net, run by torch on the CPU.

Owns the two nets and what an age means as a score. Evidence, never proof: it may only tighten. The age net is 5
years off on average between 9 and 18; the detector finds no small, turned or drawn face, and sees no bodies.

- Only a folder with the pinned digest is read; a weight that is missing or of another shape is a `WeightsError`.
- Each view is scored by itself on one thread: its score is the same to the bit in any batch.
- 0.0 where no face was seen: that says nothing about the people in a picture.

Source: justadudewhohacks/face-api.js, src/{tinyFaceDetector,tinyYolov2,xception,ageGenderNet}. Upstream resizes
with the browser's canvas, this with Pillow's bilinear; without its landmarks a face is cut out as it was detected.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from classifiers.image.nsfwjs import Weights, one_thread, pad_same, read_tfjs_weights, to_tensor
from classifiers.image.preprocessing import FACE_AGE
from classifiers.image.views import check_views, letterbox_view
from classifiers.signals import Pixels, Scores, Views
from classifiers.weights import WeightsError, check_pin

_MANIFESTS = [f"{net}_model-weights_manifest.json" for net in ("tiny_face_detector", "age_gender")]
SIZE, AGE_SIZE, _CELL = 416, 112, 32
_MIN_SURENESS, _MAX_OVERLAP = 0.5, 0.4
_ANCHORS = torch.tensor(
    ((1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308))
)
_DETECTOR_MEAN = torch.tensor((117.001, 114.697, 97.404)).view(1, 3, 1, 1)
_AGE_MEAN = torch.tensor((122.782, 117.001, 104.298)).view(1, 3, 1, 1)


def score_age(age: float) -> float:
    """Return 1 at 15 years and below, 0 at 35 and above, linear between; NaN stays NaN.

    So 0.5 is an apparent age of 25 and 0.85 one of 18: with an error of 5 years between 9 and 18, a cut at 18
    would miss many of those just below it, and 25 is the margin that age checks use.
    """
    return float(np.clip((35.0 - age) / (35.0 - 15.0), 0.0, 1.0))


class FaceAge:
    """A `PixelNet`: `score_age` of the youngest face; 0.0 without one; NaN only if a net gives no finite number."""

    name = FACE_AGE.name

    def __init__(self, folder: Path, *, sha256: str = FACE_AGE.sha256) -> None:
        """Check the pin and read the two nets.

        Args:
            folder: the weights and manifests of the detector and of the age net, nothing else.
            sha256: the pin: the folder's `digest_folder`.

        Raises:
            WeightsError: missing, not the pinned folder, or other weights than these nets have.
        """
        check_pin(folder, sha256, what=FACE_AGE.name)
        try:
            manifests = [json.loads((folder / name).read_bytes()) for name in _MANIFESTS]
            self._detector, self._ages = (read_tfjs_weights(folder, manifest) for manifest in manifests)
            with one_thread():
                find_boxes(_detect(torch.zeros(1, 3, SIZE, SIZE), self._detector))
                float(_age(torch.zeros(1, 3, AGE_SIZE, AGE_SIZE), self._ages))
        except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{folder}: not the nets that were expected: {error!r}") from error
        # The files were read a second time.
        check_pin(folder, sha256, what=FACE_AGE.name)
        self.full_name = replace(FACE_AGE, sha256=sha256).full_name

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return the whole picture with the longer side at 416 px, at the top left of a black square."""
        return letterbox_view(pixels, SIZE, centred=False)

    def ages(self, views: Views) -> list[list[float]]:
        """Return the apparent age of every face of each view, the surest face first; NaN where a net overflows.

        Raises:
            ValueError: not uint8 N x 416 x 416 x 3.
        """
        check_views(views, SIZE)
        with one_thread():
            return [self._ages_in(view) for view in views]

    def score(self, views: Views) -> Scores:
        """Return `score_age` of the youngest face of each view, float32 N."""
        return np.array([score_age(np.min(ages, initial=np.inf)) for ages in self.ages(views)], np.float32)

    def _ages_in(self, view: NDArray[np.uint8]) -> list[float]:
        cells = _detect((to_tensor(view) - _DETECTOR_MEAN) / 256, self._detector)
        if not cells.isfinite().all():
            return [float("nan")]
        faces = (view[top:bottom, left:right] for left, top, right, bottom in find_boxes(cells))
        squares = [to_tensor(letterbox_view(face, AGE_SIZE, centred=True)) for face in faces]
        return [float(_age((square - _AGE_MEAN) / 256, self._ages)) for square in squares]


def find_boxes(cells: torch.Tensor) -> list[list[int]]:
    """Return left, top, right, bottom of the faces in a view, in pixels, the surest first.

    Of two boxes that share more than 0.4 of the area that they cover together, the surer stays.

    Args:
        cells: what the detector gives, 13 x 13 x 5 anchors x (x, y, width, height, sureness).
    """
    sure, places = torch.sigmoid(cells[..., 4]).flatten(), torch.arange(SIZE // _CELL)
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1)[:, :, None]
    middle = (torch.sigmoid(cells[..., :2]) + grid) * _CELL
    half = torch.exp(cells[..., 2:4]) * _ANCHORS * (_CELL / 2)
    corners = torch.cat((middle - half, middle + half), dim=-1).reshape(-1, 4)
    corners = corners[torch.argsort(sure, descending=True, stable=True)[: int((sure > _MIN_SURENESS).sum())]]
    chosen = []
    while len(corners):
        chosen.append([int(side) for side in corners[0].floor().clamp(0, SIZE)])
        shared = torch.minimum(corners[:, 2:], corners[0, 2:]) - torch.maximum(corners[:, :2], corners[0, :2])
        both, areas = shared.clamp(min=0).prod(dim=1), (corners[:, 2:] - corners[:, :2]).prod(dim=1)
        corners = corners[1:][(both <= _MAX_OVERLAP * (areas + areas[0] - both))[1:]]
    return [box for box in chosen if box[2] > box[0] and box[3] > box[1]]


def _detect(rows: torch.Tensor, weights: Weights) -> torch.Tensor:
    rows = _convolve(rows, weights, "conv0")
    for number in range(1, 6):
        rows = functional.max_pool2d(pad_same(functional.leaky_relu(rows, 0.1), 2, 2, -torch.inf), 2)
        rows = _separable(functional.pad(rows, (1, 1, 1, 1)), weights, f"conv{number}")
    rows = functional.max_pool2d(pad_same(functional.leaky_relu(rows, 0.1), 2, 1, -torch.inf), 2, 1)
    rows = _convolve(rows, weights, "conv8")
    return rows[0].permute(1, 2, 0).reshape(*rows.shape[2:], len(_ANCHORS), -1)


def _age(rows: torch.Tensor, weights: Weights) -> torch.Tensor:
    rows = torch.relu(_convolve(pad_same(rows, 3, 2), weights, "entry_flow/conv_in", 2))
    rows = _reduce(rows, weights, "entry_flow/reduction_block_0", first=True)
    rows = _reduce(rows, weights, "entry_flow/reduction_block_1")
    for block in ("middle_flow/main_block_0", "middle_flow/main_block_1"):
        inner = rows
        for number in range(3):
            inner = _separable(pad_same(torch.relu(inner), 3, 1), weights, f"{block}/separable_conv{number}")
        rows = rows + inner
    rows = _reduce(rows, weights, "exit_flow/reduction_block")
    rows = torch.relu(_separable(pad_same(rows, 3, 1), weights, "exit_flow/separable_conv"))
    pooled = functional.avg_pool2d(rows, 7, 2)[:, :, 0, 0]
    return functional.linear(pooled, weights["fc/age/weights"], weights["fc/age/bias"])


def _reduce(rows: torch.Tensor, weights: Weights, name: str, *, first: bool = False) -> torch.Tensor:
    inner = rows if first else torch.relu(rows)
    inner = _separable(pad_same(inner, 3, 1), weights, f"{name}/separable_conv0")
    inner = _separable(pad_same(torch.relu(inner), 3, 1), weights, f"{name}/separable_conv1")
    inner = functional.max_pool2d(pad_same(inner, 3, 2, -torch.inf), 3, 2)
    return inner + _convolve(rows, weights, f"{name}/expansion_conv", 2)


def _separable(rows: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    deep = weights[f"{name}/depthwise_filter"]
    rows = functional.conv2d(rows, deep, groups=len(deep))
    return functional.conv2d(rows, weights[f"{name}/pointwise_filter"], weights[f"{name}/bias"])


def _convolve(rows: torch.Tensor, weights: Weights, name: str, stride: int = 1) -> torch.Tensor:
    return functional.conv2d(rows, weights[f"{name}/filters"], weights[f"{name}/bias"], stride)
