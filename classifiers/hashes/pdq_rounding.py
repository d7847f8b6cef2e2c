"""Where the rounding of the PDQ reference decides: how far it drifts, and which results hang on it.

Owns the bound on the reference's error, and the judgement that a code made without that error is the reference's.
Leaves making codes to `pdq`, and the pictures that hang, to `pdq_reference`.

- The reference keeps running sums in float32. A sum of `window` pixels rounds at every step to a share of its size,
  so its error walks at random along the line: independently on every line, unless lines are alike.
- The spectrum of such a walk falls as 1/frequency: coefficient i, j gets its share from the columns by 1/(i+1),
  from the rows by 1/(j+1), and a little from the sums of the DCT itself.
- Only which 128 coefficients are the largest matters, so only the gap in the middle can hang.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from classifiers.hashes import pdq_reference as reference

# So near the median a bit says little about the picture: as a share of the largest coefficient, and in grey levels
# where all of them are small (a striped picture has no coefficient but rounding).
NEAR_SHARE = 1e-4
NEAR_LEVELS = 0.01
MAX_NEAR = 16
MEDIAN = reference.BLOCK_SIDE**2 // 2 - 1  # place of the lower median in rising order

# So many deviations by `Drift.variance` decide nothing. Measured on photographs, drawings, text, noise and repeated
# pixels of 5 to 3000 px, the true deviation is about half of one, at worst as much, and on alike lines at worst
# twice as much: a bit is wrong in less than one picture in ten million.
DEVIATIONS = 3.5
LIKENESS = 2
_GRADIENT_DEVIATIONS = 3  # the true one is a third of it; thousands of gradients drift, so few decide
ALIKE_LEVELS = 1e-3
ALIKE_SHARE = 0.02
_DCT_DRIFT = 2.5e-7  # of the grey level, rms
_UNIT = 2.0**-23  # the largest step of float32, as a share of the value
_SIZES_CACHED = 1024

_PERCENT = np.float32(100 / 255)
_ONES = np.ones(reference.SMALL_SIDE * (reference.SMALL_SIDE - 1), np.float32)
_FALLING = 1 / np.arange(1, reference.BLOCK_SIDE + 1) ** 2


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the reference stands from the exact value for pictures of one size, as a share of the grey level.

    down, across: variance at the lowest frequency by the walks along columns and along rows. gap: two coefficients
    farther apart keep their order. gradient: a difference of neighbours in the 64 x 64 picture changes by less.
    """

    down: float
    across: float
    gap: float
    gradient: float

    def variance(self) -> NDArray[np.float64]:
        """Return the variance of each coefficient, 256."""
        return np.add.outer(self.down * _FALLING, self.across * _FALLING).ravel() + _DCT_DRIFT**2


@lru_cache(maxsize=_SIZES_CACHED)
def drift(height: int, width: int) -> Drift:
    """Return the drift of pictures of one size."""
    down, across = _walk(height, width), _walk(width, height)
    gap = DEVIATIONS * LIKENESS * math.sqrt(2 * (down + across + _DCT_DRIFT**2))
    gradient = _GRADIENT_DEVIATIONS * math.sqrt((down + across) * math.pi**2 / reference.SMALL_SIDE)
    return Drift(down, across, gap, gradient)


def _walk(along: int, across: int) -> float:
    """Return the variance that the two passes along a side give to its lowest frequency.

    Each pixel enters the sum and leaves it, and both steps round; the mean is the sum over `window`. No averaging
    over neighbouring lines is counted on, so that repeated lines are covered.
    """
    window = reference.window_size(along)
    steps = ((window + 1) / window) ** 2 + 1 if window > 1 else 2 * 4  # of 2 pixels: half of the steps are ties
    repeats = max(1.0, reference.SMALL_SIDE / across)
    lengths = reference.PASSES * along * reference.SMALL_SIDE / math.pi**2
    return lengths * repeats * steps * _UNIT**2 / 12


def level(small: NDArray[np.float32]) -> float:
    """Return the grey level (rms) of a 64 x 64 picture."""
    return math.sqrt(float(np.vdot(small, small))) / reference.SMALL_SIDE


def hangs(
    small: NDArray[np.float32], grey: float, signed: NDArray[np.float64], gaps: NDArray[np.float64], size: Drift
) -> bool:
    """Say whether the reference could see another 128 coefficients as the largest.

    Args:
        small: 64 x 64, blurred luma.
        grey: its level.
        signed: 4 x 256, the block under each pattern of signs.
        gaps: 4 x 2, the two coefficients of each that stand beside the gap in the middle, in rising order.
        size: the drift of the picture's size.
    """
    if min(high - low for low, high in gaps.tolist()) > grey * size.gap:
        return False  # nearly every picture ends here
    reach = DEVIATIONS * grey * (LIKENESS if _is_alike(small) else 1)
    variance = size.variance()
    for values, (low, high) in zip(signed, gaps, strict=True):
        below = (values <= low) & (values >= high - grey * size.gap)
        above = (values >= high) & (values <= low + grey * size.gap)
        apart = np.subtract.outer(values[above], values[below])
        if np.any(apart <= reach * np.sqrt(np.add.outer(variance[above], variance[below]))):
            return True
    return False


def _is_alike(small: NDArray[np.float32]) -> bool:
    """Say whether so many neighbours are equal that lines may round alike."""
    flat = sum(np.count_nonzero(np.abs(np.diff(small, axis=axis)) < ALIKE_LEVELS) for axis in (0, 1))
    return bool(flat > ALIKE_SHARE * 2 * len(_ONES))


def near(ranked: NDArray[np.float64]) -> float:
    """Return how near the median of a sorted block is near."""
    return max(NEAR_SHARE * float(max(-ranked[0], ranked[-1])), NEAR_LEVELS)


def is_crowded(ranked: NDArray[np.float64]) -> bool:
    """Say of a sorted block whether so many are near its median that rounding could make it not usable."""
    reach = MAX_NEAR // 4
    below, median, above = ranked[MEDIAN - reach], ranked[MEDIAN], ranked[MEDIAN + reach]
    return bool(min(median - below, above - median) <= near(ranked))


def quality(small: NDArray[np.float32], slack: float) -> int | None:
    """Return the quality of the 64 x 64 picture; None where gradients within `slack` of a whole number decide."""
    down = np.abs(small[:-1] - small[1:])
    least = _whole(down, -slack)
    if least >= reference.MAX_QUALITY * reference.GRADIENT_PER_QUALITY:
        return reference.MAX_QUALITY  # nearly every photograph ends here
    across = np.abs(small[:, :-1] - small[:, 1:])
    least += _whole(across, -slack)
    most = _whole(down, slack) + _whole(across, slack)
    qualities = {min(reference.MAX_QUALITY, total // reference.GRADIENT_PER_QUALITY) for total in (least, most)}
    return qualities.pop() if len(qualities) == 1 else None


def _whole(gradients: NDArray[np.float32], slack: float) -> int:
    """Add up the gradients, `slack` larger, in whole percents: the sum is under 2 ** 24, so exact in float32."""
    percents = gradients + np.float32(slack)
    percents *= _PERCENT
    return int(np.vdot(np.trunc(percents, percents), _ONES))
