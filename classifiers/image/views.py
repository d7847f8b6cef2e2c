"""The square views of the pixel nets, each as the net's publisher makes it, in uint8.

Leaves numbers (scale, mean, channel order) to the nets, and the view of the embedders to `embedders.views`.

- Pixels are only read; a view is fresh memory. Same pixels, same view.
- No picture, however long, is enlarged to more than 8 times the area of a view.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from classifiers.signals import Pixels, Views, check_pixels

Fit = Literal["squash", "shortest"]
Interpolation = Literal["bilinear", "bicubic"]
_MAX_LENGTH_TO_WIDTH = 8


def check_views(views: Views, size: int) -> None:
    """Refuse anything but uint8 N x size x size x 3.

    Raises:
        ValueError: another shape or dtype.
    """
    if views.dtype != np.uint8 or views.shape[1:] != (size, size, 3):
        raise ValueError(f"expected views uint8 N x {size} x {size} x 3, found {views.dtype} {views.shape}")


def centre_view(
    pixels: Pixels, size: int, resize_to: int, fit: Fit, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Resize with Pillow's antialiased kernel, then cut out the central `size` x `size`.

    Args:
        pixels: uint8, H x W x 3.
        size: side of the view in pixels.
        resize_to: 'squash' brings both sides to this many pixels, 'shortest' the shorter one.
        fit: 'squash' sees the whole picture, out of shape; 'shortest' sees its middle, in shape.
        interpolation: Pillow's kernel of that name.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    tall = wide = resize_to
    if fit == "shortest":
        short = min(height, width)
        down, right = (max(0, side - _MAX_LENGTH_TO_WIDTH * short) // 2 for side in (height, width))
        pixels = pixels[down : height - down, right : width - right]
        tall, wide = (resize_to * side // short for side in pixels.shape[:2])
    left, top = (wide - size) // 2, (tall - size) // 2
    resized = Image.fromarray(pixels).resize((wide, tall), Image.Resampling[interpolation.upper()])
    return np.array(resized.crop((left, top, left + size, top + size)))
