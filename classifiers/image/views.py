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


def letterbox_view(pixels: Pixels, size: int, *, centred: bool) -> NDArray[np.uint8]:
    """Bring the longer side to `size` on a black square, centred or at its top left.

    The kernel is Pillow's antialiased bilinear.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    tall, wide = (max(1, round(size * side / max(height, width))) for side in (height, width))
    top, left = ((size - tall) // 2, (size - wide) // 2) if centred else (0, 0)
    view = np.zeros((size, size, 3), np.uint8)
    resized = Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BILINEAR)
    view[top : top + tall, left : left + wide] = np.asarray(resized)
    return view


def corner_view(pixels: Pixels, size: int) -> NDArray[np.uint8]:
    """Squash by the plain bilinear of TensorFlow's `align_corners`: four pixels make one, corner stays on corner.

    Upstream keeps the fractions; here the result is rounded to the nearest grey level, halves up.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    down, right = np.linspace(0, height - 1, size), np.linspace(0, width - 1, size)
    top, left = down.astype(np.int64)[:, None], right.astype(np.int64)
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    part = (right - left).astype(np.float32)[:, None]
    rows = [pixels[line, left] * (1 - part) + pixels[line, beside] * part for line in (top, below)]
    part = (down[:, None] - top).astype(np.float32)[:, :, None]
    return np.asarray(rows[0] * (1 - part) + rows[1] * part + 0.5, np.uint8)
