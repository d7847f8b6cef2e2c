"""The shrinking of PDQ as a linear operator: luma, two box blurs and the decimation to 64 x 64 in one go.

Owns the weights along each side and the fast way to apply them. Leaves the algorithm itself to `pdq_reference`,
and whether a result so near to it may be taken, to `pdq_rounding`.

- Blur and decimation are linear and separable: weighted sums of rows, exact in integers, then of columns.
- Against the exact value the result is off by less than a hundredth of what the reference rounds away.
- The weights of a side are made once and kept while it is among the last `_SIDES_CACHED`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from classifiers.hashes import pdq_reference as reference
from classifiers.signals import Pixels

LUMA = np.array([0.299, 0.587, 0.114])

_SIDES_CACHED = 256
_SUMS = reference.SMALL_SIDE + 1  # the last one stands in for a missing row
_LANES_AT_ONCE = 3 << 20  # of 1 byte, widened to 2 or 4: more would leave the cache
_NARROW_PX = 256  # to here, wider bands of columns multiply faster


def shrink(pixels: Pixels) -> NDArray[np.float32]:
    """Return the blurred and decimated luma, 64 x 64, 0 to 255.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    return _add_columns(_sum_rows(pixels, mirrored=False), *pixels.shape[:2], mirrored=False)


def shrink_turned(pixels: Pixels) -> NDArray[np.float32]:
    """Return `shrink` of the picture as it is, mirrored, upside down and turned by 180 degrees: 4 x 64 x 64.

    The decimation picks pixels off the middle, so these are not the same numbers in another order. Of the four
    other turns they are: those are the transposes. No pixel is moved; the weights run backwards.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    rows = [_sum_rows(pixels, mirrored=mirrored) for mirrored in (False, True)]
    return np.stack(
        [_add_columns(sums, *pixels.shape[:2], mirrored=mirrored) for sums in rows for mirrored in (False, True)]
    )


def _sum_rows(pixels: Pixels, *, mirrored: bool) -> NDArray[np.float32]:
    height, width, _ = pixels.shape
    lanes = pixels.reshape(height, width * 3)
    outputs = reference.SMALL_SIDE
    while outputs > 4 and lanes.size * outputs > _LANES_AT_ONCE * reference.SMALL_SIDE:
        outputs //= 2
    sums = np.empty((_SUMS, width * 3), np.float32)
    for output, start, weights in _row_bands(height, outputs, mirrored):
        sums[output : output + weights.shape[0]] = weights @ lanes[start : start + weights.shape[1]]
    return sums


def _add_columns(sums: NDArray[np.float32], height: int, width: int, *, mirrored: bool) -> NDArray[np.float32]:
    small = np.empty((_SUMS, reference.SMALL_SIDE), np.float32)
    for output, start, dense in _column_bands(width, mirrored):
        into = small[:, output : output + dense.shape[1]]
        np.matmul(sums[:, start : start + len(dense)], dense, out=into)
    window = reference.window_size(height)
    if window > 1:
        small[-2] += small[-1] / np.float32(window - 1)
    return small[:-1] / np.float32(window**2)


def row_sums(side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the 65 weighted sums along a side as a sparse matrix of whole numbers: weights, positions, ends.

    The first 64, divided by the square of the window, are the outputs; to the last of them belongs also the 65th,
    divided by window - 1. A box that is cut averages over window - 1 pixels, which is as if the mean of the last
    window - 1 pixels stood in the missing place. Where nothing is cut, the 65th sum is empty.
    """
    first, triangle, is_cut = _taps(side)
    positions = (first[:, None] + np.arange(len(triangle))).ravel()
    weights = np.tile(triangle, reference.SMALL_SIDE)
    ends = np.arange(_SUMS + 1) * len(triangle)
    if is_cut:
        stand_in = np.arange(side - reference.window_size(side) + 1, side)
        positions = np.concatenate((positions[:-1], stand_in))
        weights = np.concatenate((weights[:-1], np.ones_like(stand_in)))
        ends[-2] -= 1
    ends[-1] = len(positions)
    return weights, positions, ends


@lru_cache(maxsize=_SIDES_CACHED)
def _taps(side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], bool]:
    """Lay out two box blurs and the decimation along a side as one weighted sum for each output.

    A box twice is a triangle: 1, 2 ... window ... 2, 1, over window ** 2.

    Returns:
        The first position of each output (64), the weights (2 * window - 1), and whether the last output reaches
        past the end, by one position; no side cuts more.
    """
    window = reference.window_size(side)
    ahead = window // 2
    centres = np.array(reference.centres(side))
    triangle = window - np.abs(np.arange(2 * window - 1) - (window - 1))
    return centres - 2 * (window - 1 - ahead), triangle, bool(centres[-1] + 2 * ahead == side)


@lru_cache(maxsize=_SIDES_CACHED)
def _row_bands(side: int, outputs: int, mirrored: bool) -> list[tuple[int, int, sp.csr_array]]:
    """Return the 65 sums of rows, `outputs` at a time: the first output, the first row it reads, and the weights.

    They are whole numbers, so the sums are exact: in uint16 for sides to 2048 px, in float32 beyond.
    """
    weights, positions, ends = row_sums(side)
    if mirrored:
        positions = side - 1 - positions
    dtype = np.uint16 if reference.window_size(side) ** 2 * 255 < 2**16 else np.float32
    bands = []
    for output in range(0, reference.SMALL_SIDE, outputs):
        stop = output + outputs if output + outputs < reference.SMALL_SIDE else _SUMS
        band = slice(ends[output], ends[stop])
        start, end = int(positions[band].min()), int(positions[band].max()) + 1
        sparse = (weights[band].astype(dtype), positions[band] - start, ends[output : stop + 1] - ends[output])
        bands.append((output, start, sp.csr_array(sparse, shape=(stop - output, end - start))))
    return bands


@lru_cache(maxsize=_SIDES_CACHED)
def _column_bands(side: int, mirrored: bool) -> list[tuple[int, int, NDArray[np.float32]]]:
    """Return the same sums for columns, with the luma in them, some outputs at a time.

    Each band is its first output, the first lane (3 a pixel) that it reads, and lanes x outputs weights.
    """
    first, triangle, is_cut = _taps(side)
    outputs = 16 if side <= _NARROW_PX else 8
    window = reference.window_size(side)
    starts, stops = first[::outputs], first[outputs - 1 :: outputs] + len(triangle)
    means = np.zeros((len(starts), int((stops - starts).max()), outputs))
    places = (first.reshape(-1, outputs) - starts[:, None])[..., None] + np.arange(len(triangle))
    means[np.arange(len(starts))[:, None, None], places, np.arange(outputs)[:, None]] = triangle / window**2
    if is_cut:
        stops[-1] = side
        end = side - starts[-1]
        means[-1, end - window + 1 : end, -1] += means[-1, end, -1] / (window - 1)
    lanes = (means[:, :, None, :] * LUMA[:, None]).astype(np.float32).reshape(len(starts), -1, outputs)
    bands = []
    for band, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        dense = lanes[band, : 3 * (stop - start)]
        if mirrored:  # whole pixels change places, their colours do not
            dense = np.ascontiguousarray(dense.reshape(-1, 3, outputs)[::-1]).reshape(-1, outputs)
        bands.append((band * outputs, 3 * (side - stop if mirrored else start), dense))
    return bands
