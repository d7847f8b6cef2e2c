"""PDQ at full resolution, step by step as published: slow, obvious, and the one that decides.

Owns the algorithm down to the order of its float32 additions. Leaves speed, and whether a code may be used,
to `pdq`.

- Bit-identical to pdqhash 0.2.8 (`compute_float`, `compute`): the 16x16 block, so every code, and the quality.
- Running sums round in float32 on their way along a line, so each line is walked pixel by pixel.
- No BLAS and no reordering: the same bits on every machine.
- The eight codes come from one block, as in `pdqhash.compute_dihedral`; at exactly 64 x 64 that function blurs
  with a window of 1, which only rounds, and the block of `compute` is used for all eight.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.signals import Pixels

MIN_SIDE_PX = 5
SMALL_SIDE = 64  # the picture is shrunk to 64 x 64
BLOCK_SIDE = 16  # and its frequencies 1 to 16 are read, in both directions
PASSES = 2
MAX_QUALITY = 100
GRADIENT_PER_QUALITY = 90
VARIANTS = 8
_LINES_TURNED = 8
_LUMA_ROWS = 16  # at once: float64 copies of a whole picture would be large

Grey: TypeAlias = NDArray[np.float32]  # H x W, 0 to 255
Block: TypeAlias = NDArray[np.float32]  # 16 x 16

# float32 scale times float64 cosine, rounded once, as the C++ constant is made.
DCT: NDArray[np.float32] = np.array(
    [
        [
            float(np.float32(math.sqrt(2 / SMALL_SIDE)))
            * math.cos(math.pi / 2 / SMALL_SIDE * (i + 1) * (2 * j + 1))
            for j in range(SMALL_SIDE)
        ]
        for i in range(BLOCK_SIDE)
    ],
    dtype=np.float32,
)


def window_size(side: int) -> int:
    """Return the width in pixels of the box blur along a side: half an output pixel, rounded up."""
    return -(-side // (2 * SMALL_SIDE))


def centres(side: int) -> list[int]:
    """Return the 64 positions of a side that survive the shrinking."""
    return [int((i + 0.5) * side / SMALL_SIDE) for i in range(SMALL_SIDE)]


def block_of(pixels: Pixels) -> tuple[Block, int]:
    """Hash one picture up to the coefficients.

    Source: facebook/ThreatExchange, pdq/cpp/hashing/pdqhashing.cpp and pdq/cpp/downscaling/downscaling.cpp.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.

    Returns:
        The 16 x 16 float32 block of coefficients, and the quality, 0 to 100.
    """
    small = _shrink(_luma(pixels))
    return _project(_project(small).T).T, quality_of(small)


def codes_of(block: Block) -> NDArray[np.uint8]:
    """Return the codes of the picture and its seven turned and mirrored variants, 8 x 32 uint8.

    The order is that of `pdqhash.compute_dihedral`. A code is in the order of its hex text: bit 255 first.
    """
    odd = np.arange(BLOCK_SIDE) % 2 == 1
    by_row = np.where(odd, 1, -1)[:, None] * block
    by_column = np.where(odd, 1, -1)[None, :] * block
    by_both = np.where(odd[:, None] ^ odd[None, :], -1, 1) * block
    variants = [block, by_column.T, by_both, by_row.T, by_row, by_column, block.T, by_both.T]
    return np.stack([_bits(variant) for variant in variants])


def _luma(pixels: Pixels) -> Grey:
    grey = np.empty(pixels.shape[:2], np.float32)
    for top in range(0, len(pixels), _LUMA_ROWS):
        red, green, blue = np.moveaxis(pixels[top : top + _LUMA_ROWS], 2, 0)
        grey[top : top + _LUMA_ROWS] = red * 0.299 + green * 0.587 + blue * 0.114  # in float64, rounded once
    return grey


def _shrink(grey: Grey) -> Grey:
    height, width = grey.shape
    if (height, width) == (SMALL_SIDE, SMALL_SIDE):
        return grey
    for _ in range(PASSES):
        grey = _turned(_box_down(_turned(grey), window_size(width)))
        grey = _box_down(grey, window_size(height))
    return grey[np.ix_(centres(height), centres(width))]


def _box_down(grey: Grey, window: int) -> Grey:
    """Average over `window` pixels down each column; near the ends, over the pixels that are there."""
    length = len(grey)
    ahead = window // 2  # how far the window reaches past the pixel it is written to
    means = np.empty_like(grey)
    rows, written = list(grey), list(means)
    total = np.zeros(grey.shape[1], np.float32)
    inside = 0
    for right in range(length + ahead):
        left = right - window
        if right < length:
            np.add(total, rows[right], total)
            inside += 1
        if left >= 0:
            np.subtract(total, rows[left], total)
            inside -= 1
        if right >= ahead:
            np.divide(total, np.float32(inside), written[right - ahead])
    return means


def _turned(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the columns as contiguous lines, a few lines at a time: a whole picture at once misses the cache."""
    columns = np.empty(lines.shape[::-1], lines.dtype)
    for top in range(0, len(lines), _LINES_TURNED):
        columns[:, top : top + _LINES_TURNED] = lines[top : top + _LINES_TURNED].T
    return columns


def _project(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return DCT @ columns (64 x M), each sum taken from first to last in float32: 16 x M."""
    total = np.zeros((BLOCK_SIDE, columns.shape[1]), np.float32)
    for k in range(SMALL_SIDE):
        total += DCT[:, k, None] * columns[None, k, :]
    return total


def quality_of(small: Grey) -> int:
    """Return the quality, 0 to 100, of a picture shrunk to 64 x 64."""
    gradient = 0
    for steps in (small[:-1] - small[1:], small[:, :-1] - small[:, 1:]):
        percent = steps * np.float32(100) / np.float32(255)
        gradient += int(np.abs(percent.astype(np.int32)).sum())
    return min(MAX_QUALITY, gradient // GRADIENT_PER_QUALITY)


def _bits(block: Block) -> NDArray[np.uint8]:
    """Say of each coefficient whether it exceeds the lower median, which is what Torben's method finds."""
    lower_median = np.sort(block, axis=None)[block.size // 2 - 1]
    return np.packbits((block > lower_median).ravel()[::-1])
