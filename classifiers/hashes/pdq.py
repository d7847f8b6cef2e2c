"""PDQ at full resolution, fast: `pdq:fullres`.

Owns the linear form of the hash, and when its result may be taken. Leaves the algorithm itself, and every picture
that hangs on rounding, to `pdq_reference`.

- Codes and quality are those of pdqhash 0.2.8, also where a picture turns out not usable.
- Blur and decimation are linear and separable: weighted sums of rows, exact in integers, then of columns.
- The reference rounds as it goes. Where that could change a bit or the quality, the reference decides: it costs
  about 50 times as much, and one or two photographs in a hundred need it.
- A code is the bytes of its hex text: `bytes.fromhex(text) == codes[0].tobytes()`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from classifiers.hashes import pdq_reference as reference
from classifiers.signals import HashCode, Pixels

MIN_QUALITY = 50  # a code below it is to be discarded (facebook/ThreatExchange, pdq/README.md)
# So near the median a bit says little about the picture: as a share of the largest coefficient, and in grey levels
# where all of them are small (a striped picture has no coefficient but rounding).
NEAR_SHARE = 1e-4
NEAR_LEVELS = 0.01
MAX_NEAR = 16

# How far the reference can stand from the exact value, as a share of the grey level (see `_drift`): seven times
# the rms that was measured on photographs, drawings and noise of 32 to 5000 px.
_DRIFT = 7e-6
_DRIFT_BETWEEN_NEIGHBOURS = 4.5e-6

_SIDES_CACHED = 256
_OUTPUTS_PER_COLUMN_BAND = 8
_LANES_AT_ONCE = 3 << 20  # of 1 byte, widened to 2 or 4: more would leave the cache
_MEDIAN = 127  # place of the lower median among 256

_LUMA = np.array([0.299, 0.587, 0.114])
_DCT = reference.DCT.astype(np.float64)
_PERCENT = np.float32(100 / 255)


def _signs() -> NDArray[np.float64]:
    """Return the four patterns of signs that turning and mirroring put on the block, 4 x 256."""
    plain = np.ones(reference.BLOCK_SIDE)
    alternating = np.where(np.arange(reference.BLOCK_SIDE) % 2 == 1, 1.0, -1.0)
    patterns = [(plain, plain), (alternating, plain), (plain, alternating), (alternating, alternating)]
    return np.stack([np.outer(by_row, by_column).ravel() for by_row, by_column in patterns])


def _bit_places() -> NDArray[np.intp]:
    """Return where each bit of the eight codes, first byte first, stands among the 4 x 256 signed bits."""
    plain, by_row, by_column, by_both = np.arange(4 * 256).reshape(4, 16, 16)
    variants = [plain, by_column.T, by_both, by_row.T, by_row, by_column, plain.T, by_both.T]
    return np.stack([variant.ravel()[::-1] for variant in variants])


_SIGNS = _signs()
_BIT_PLACES = _bit_places()
_FALLING = 1 / np.arange(1, reference.BLOCK_SIDE + 1)
_DRIFT_BY_FREQUENCY = np.add.outer(_FALLING, _FALLING).ravel()


class Pdq:
    """The hash kind `pdq:fullres`: eight 256-bit codes of a picture and of its turned and mirrored variants.

    The variants follow the order of `pdqhash.compute_dihedral`; row 0 is the picture itself. A picture is usable
    with a quality of 50 or more and at most 16 coefficients so near the median that their bits are noise, which
    shuts out constants, stripes and gradients.
    """

    @property
    def name(self) -> str:
        """Recipe: every pixel counts, the picture is not shrunk to 512 px first."""
        return "pdq:fullres"

    variants = 8
    code_bytes = 32

    def encode(self, pixels: Pixels) -> HashCode | None:
        """Hash one picture; None where a side is under 5 px.

        Args:
            pixels: H x W x 3 uint8, RGB.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"pixels: expected H x W x 3 uint8, found {pixels.shape} {pixels.dtype}")
        if min(pixels.shape[:2]) < reference.MIN_SIDE_PX:
            return None
        return encode_fast(pixels) or encode_slowly(pixels)


def encode_fast(pixels: Pixels) -> HashCode | None:
    """Hash one picture in the linear form; None where the rounding of the reference has to decide.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    small = _shrink(pixels)
    scale = _scale(small, pixels.shape[0] + pixels.shape[1])
    quality = _quality(small, _DRIFT_BETWEEN_NEIGHBOURS * scale)
    signed = _SIGNS * (_DCT @ small @ _DCT.T).ravel()
    ranked = np.sort(signed, axis=1)
    if quality is None or _is_crowded(ranked[0]) or _hangs(signed, ranked, _DRIFT * scale):
        return None
    return HashCode(_codes(signed > ranked[:, _MEDIAN, None]), quality, usable=quality >= MIN_QUALITY)


def encode_slowly(pixels: Pixels) -> HashCode:
    """Hash one picture by the reference: what `Pdq` answers for every picture.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    block, quality = reference.block_of(pixels)
    signed = _SIGNS * block.ravel()
    ranked = np.sort(signed, axis=1)
    near = np.abs(ranked[0] - ranked[0, _MEDIAN]) <= _near(ranked[0])
    usable = quality >= MIN_QUALITY and int(np.count_nonzero(near)) - 1 <= MAX_NEAR
    return HashCode(_codes(signed > ranked[:, _MEDIAN, None]), quality, usable=usable)


def _near(ranked: NDArray[np.float64]) -> float:
    """Return how near the median of a sorted block is near."""
    return max(NEAR_SHARE * float(max(-ranked[0], ranked[-1])), NEAR_LEVELS)


def _is_crowded(ranked: NDArray[np.float64]) -> bool:
    """Say of a sorted block whether so many are near its median that rounding could make it not usable."""
    reach = MAX_NEAR // 4
    below, median, above = ranked[_MEDIAN - reach], ranked[_MEDIAN], ranked[_MEDIAN + reach]
    return bool(min(median - below, above - median) <= _near(ranked))


def _hangs(signed: NDArray[np.float64], ranked: NDArray[np.float64], drift: float) -> bool:
    """Say whether any coefficient stands so near its median that the reference could see it on the other side."""
    gaps = ranked[:, _MEDIAN : _MEDIAN + 2] - ranked[:, _MEDIAN - 1 : _MEDIAN + 1]
    if gaps.min() > 2 * drift * _DRIFT_BY_FREQUENCY[0]:
        return False  # no two coefficients drift so far: nearly every picture ends here
    drifts = drift * _DRIFT_BY_FREQUENCY
    places = np.argsort(signed, axis=1)[:, _MEDIAN]
    near = np.abs(signed - ranked[:, _MEDIAN, None]) <= drifts + drifts[places, None]
    return bool(np.count_nonzero(near) > len(signed))  # the medians themselves always are


def _codes(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(bits.ravel()[_BIT_PLACES], axis=1)


def _scale(small: NDArray[np.float32], sides_px: int) -> float:
    """Return what the drift of the reference grows with: the grey level (rms), and slowly the sides.

    A running sum rounds at every step to a share of its size, so it drifts like a random walk along the side. The
    spectrum of such a walk falls as 1/frequency: coefficient i, j gets 1/(i+1) from the rows and 1/(j+1) from the
    columns.
    """
    level = math.sqrt(float(np.vdot(small, small))) / reference.SMALL_SIDE
    return level * math.sqrt(0.5 + sides_px / 1024)


def _quality(small: NDArray[np.float32], slack: float) -> int | None:
    """Return the quality of the 64 x 64 picture; None where gradients within `slack` of a whole number decide."""
    percent = small * _PERCENT
    margin = np.float32(slack) * _PERCENT
    down = np.abs(percent[:-1] - percent[1:])
    least = _whole(down - margin)
    if least >= reference.MAX_QUALITY * reference.GRADIENT_PER_QUALITY:
        return reference.MAX_QUALITY  # nearly every photograph ends here
    across = np.abs(percent[:, :-1] - percent[:, 1:])
    least += _whole(across - margin)
    most = _whole(down + margin) + _whole(across + margin)
    qualities = {min(reference.MAX_QUALITY, total // reference.GRADIENT_PER_QUALITY) for total in (least, most)}
    return qualities.pop() if len(qualities) == 1 else None


def _whole(gradients: NDArray[np.float32]) -> int:
    return int(np.trunc(gradients).sum())


def _shrink(pixels: Pixels) -> NDArray[np.float32]:
    """Return the blurred and decimated luma, 64 x 64, 0 to 255."""
    height, width, _ = pixels.shape
    lanes = pixels.reshape(height, width * 3)
    outputs = reference.SMALL_SIDE
    while outputs > 4 and lanes.size * outputs > _LANES_AT_ONCE * reference.SMALL_SIDE:
        outputs //= 4
    sums = np.empty((reference.SMALL_SIDE + 1, width * 3), np.float32)
    for output, start, weights in _row_bands(height, outputs):
        sums[output : output + weights.shape[0]] = weights @ lanes[start : start + weights.shape[1]]
    small = np.empty((len(sums), reference.SMALL_SIDE), np.float32)
    for output, start, dense in _column_bands(width):
        into = small[:, output : output + _OUTPUTS_PER_COLUMN_BAND]
        np.matmul(sums[:, start : start + len(dense)], dense, out=into)
    window = reference.window_size(height)
    if window > 1:
        small[-2] += small[-1] / np.float32(window - 1)
    return small[:-1] / np.float32(window**2)


def _taps(side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], bool]:
    """Lay out two box blurs and the decimation along a side as one weighted sum for each output.

    A box twice is a triangle: 1, 2 ... window ... 2, 1, over window ** 2.

    Returns:
        The first position of each output (64), the weights (2 * window - 1), and whether the last output reaches
        past the end, by one position; no side cuts more. A box that is cut averages over window - 1 pixels, which
        is as if the mean of the last window - 1 pixels stood in the missing place.
    """
    window = reference.window_size(side)
    ahead = window // 2
    centres = np.array(reference.centres(side))
    triangle = window - np.abs(np.arange(2 * window - 1) - (window - 1))
    return centres - 2 * (window - 1 - ahead), triangle, bool(centres[-1] + 2 * ahead == side)


@lru_cache(maxsize=_SIDES_CACHED)
def _row_bands(side: int, outputs: int) -> list[tuple[int, int, sp.csr_array]]:
    """Return the 65 weighted sums of rows, `outputs` at a time; the last one stands in for the missing row.

    Each band is its first output, the first row that it reads, and outputs x rows weights. They are whole numbers,
    so the sums are exact: in uint16 for sides to 2048 px, in float32 beyond.
    """
    first, triangle, is_cut = _taps(side)
    window = reference.window_size(side)
    rows = (first[:, None] + np.arange(len(triangle))).ravel()
    weights = np.tile(triangle, reference.SMALL_SIDE)
    if is_cut:
        stand_in = np.arange(side - window + 1, side)
        rows = np.concatenate((rows[:-1], stand_in))
        weights = np.concatenate((weights[:-1], np.ones_like(stand_in)))
    ends = np.append(np.arange(reference.SMALL_SIDE + 1) * len(triangle), len(rows))
    ends[-2] -= is_cut
    dtype = np.uint16 if window**2 * 255 < 2**16 else np.float32
    whole = sp.csr_array((weights.astype(dtype), rows, ends), shape=(reference.SMALL_SIDE + 1, side))
    bands = []
    for output in range(0, reference.SMALL_SIDE, outputs):
        is_last = output + outputs == reference.SMALL_SIDE
        end = side if is_last else int(first[output + outputs - 1]) + len(triangle)
        start = int(first[output])
        bands.append((output, start, whole[output : output + outputs + is_last, start:end]))
    return bands


@lru_cache(maxsize=_SIDES_CACHED)
def _column_bands(side: int) -> list[tuple[int, int, NDArray[np.float32]]]:
    """Return the same sums for columns, with the luma in them, eight outputs at a time.

    Each band is its first output, the first lane (3 a pixel) that it reads, and lanes x 8 weights.
    """
    first, triangle, is_cut = _taps(side)
    window = reference.window_size(side)
    means = triangle / window**2
    bands = []
    for output in range(0, reference.SMALL_SIDE, _OUTPUTS_PER_COLUMN_BAND):
        starts = (first[output : output + _OUTPUTS_PER_COLUMN_BAND] - first[output]).tolist()
        dense = np.zeros((starts[-1] + len(means), _OUTPUTS_PER_COLUMN_BAND))
        for column, start in enumerate(starts):
            dense[start : start + len(means), column] = means
        if is_cut and output + _OUTPUTS_PER_COLUMN_BAND == reference.SMALL_SIDE:
            dense[-window:-1, -1] += dense[-1, -1] / (window - 1)
            dense = dense[:-1]
        lanes = (dense[:, None, :] * _LUMA[:, None]).reshape(-1, _OUTPUTS_PER_COLUMN_BAND)
        bands.append((output, 3 * int(first[output]), lanes.astype(np.float32)))
    return bands
