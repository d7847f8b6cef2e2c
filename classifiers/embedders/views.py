"""The square view that a tower reads, made from a picture of any size: shortest side, centre crop.

Owns the pixels of a view. Leaves normalisation to the embedder and colour spaces to the decoder.

- Pixels are only read, and may lie in memory that must not be written; a view is always fresh memory.
- Same pixels, same view, for any number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from classifiers.signals import Pixels

# The view of a longer picture is that of its middle: a line of pixels enlarged to the height of a view
# would else be as long as memory allows.
MAX_LENGTH_TO_WIDTH = 8


def square_view(pixels: Pixels, size: int, *, squash: bool = False) -> NDArray[np.uint8]:
    """Return `size` x `size` x 3: the shortest side brought to `size` by antialiased bicubic, the centre cut out.

    With `squash` both sides are brought to `size`, and nothing is cut.

    Within one grey level of Pillow's `resize` and `crop`; in noise, one value in 10,000 may be two off. (Pillow
    13 passes down before across for some tall pictures; before it, and here, across always comes first.)
    Of a picture more than 8 times as long as wide, only the middle is looked at.

    Args:
        pixels: uint8, H x W x 3, any size from one pixel.
        size: side of the view in pixels.
        squash: see the whole picture, out of shape.

    Raises:
        ValueError: not such an array.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"expected pixels uint8 H x W x 3, found {pixels.dtype} {pixels.shape}")
    middle = np.ascontiguousarray(pixels) if squash else _middle(pixels)
    height, width = middle.shape[:2]
    short = min(height, width)
    # torchvision's rounding: the long side down, the crop to the nearest, halves to even.
    tall, wide = (size, size) if squash else (size * height // short, size * width // short)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    picture = borrow(middle).permute(2, 0, 1).unsqueeze(0)
    resized = _enlarge(picture, tall, wide) if short < size else _reduce(picture, tall, wide)
    square = resized[0, :, top : top + size, left : left + size]
    return square.permute(1, 2, 0).contiguous().numpy()


def borrow(array: NDArray[np.uint8]) -> torch.Tensor:
    """Return a tensor over the same memory, without a copy, for somebody who will never write to it."""
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Borrowed(array)))


class _Borrowed:
    """torch has no read-only tensors and warns of arrays that must not be written: this one says it may be."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def _middle(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    most = MAX_LENGTH_TO_WIDTH * min(height, width)
    # The same from both ends, so that the centre stays where it is.
    down, right = max(0, height - most) // 2, max(0, width - most) // 2
    return np.ascontiguousarray(pixels[down : height - down, right : width - right])


def _reduce(picture: torch.Tensor, tall: int, wide: int) -> torch.Tensor:
    """Resize 1 x 3 x H x W uint8, channels last, with torch's kernel for bytes: several times Pillow's speed."""
    return interpolate(picture, size=(tall, wide), mode="bicubic", antialias=True)


def _enlarge(picture: torch.Tensor, tall: int, wide: int) -> torch.Tensor:
    """The same in float32: the weights of the kernel for bytes are too coarse where one of them is near 1."""
    rows = picture.float()
    # Pillow rounds after each of its two passes.
    for size in ((picture.shape[2], wide), (tall, wide)):
        rows = interpolate(rows, size=size, mode="bicubic", antialias=True).add_(0.5).floor_().clamp_(0, 255)
    return rows.to(torch.uint8)
