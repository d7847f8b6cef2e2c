from __future__ import annotations

import numpy as np
import pytest

from classifiers.hashes import pdq_reference, pdq_rounding
from classifiers.hashes.pdq_linear import shrink

DCT = pdq_reference.DCT.astype(np.float64)
SIZES = [(64, 65), (100, 100), (127, 500), (129, 130), (300, 200), (512, 512), (40, 900), (900, 40)]


def noise(random, height, width):
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def dim(random, height, width):
    return random.integers(0, 9, (height, width, 3), dtype=np.uint8)


def stretched(random, height, width):
    small = random.integers(0, 256, (height // 9 + 1, width // 7 + 1, 3), dtype=np.uint8)
    return small.repeat(9, 0).repeat(7, 1)[:height, :width]


def banded(random, height, width):
    profiles = random.integers(0, 256, (3, width, 3), dtype=np.uint8)
    return profiles[np.arange(height) * 3 // height]


@pytest.mark.parametrize("make", [noise, dim, stretched, banded])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_reference_drifts_by_no_more_than_is_allowed_for(make, height, width):
    pixels = make(np.random.default_rng([height, width]), height, width)
    small = shrink(pixels)
    block, _ = pdq_reference.block_of(pixels)
    drift = (block - DCT @ small @ DCT.T).ravel()
    size = pdq_rounding.drift(height, width)
    deviation = np.sqrt(size.variance()) * pdq_rounding.level(small) * pdq_rounding.LIKENESS
    assert np.sqrt(np.mean((drift / deviation) ** 2)) < 1.2
    assert np.abs(drift / deviation).max() < 2 * pdq_rounding.DEVIATIONS


def test_only_the_gap_in_the_middle_can_hang():
    small = np.random.default_rng(0).normal(128, 40, (64, 64)).astype(np.float32)
    size = pdq_rounding.drift(300, 300)
    values = np.arange(256, dtype=np.float64)
    values[:127] = np.linspace(120, 120 + 1e-9, 127)  # as near to each other as can be, but far from the middle
    signed = np.tile(values, (4, 1))
    assert not pdq_rounding.hangs(small, 130.0, signed, signed[:, 127:129], size)
    signed[2, 128] = np.nextafter(127, 128)
    assert pdq_rounding.hangs(small, 130.0, signed, signed[:, 127:129], size)


def test_gradients_far_from_whole_percents_decide_the_quality_and_others_leave_it_open():
    steps = np.zeros((64, 64), np.float32)
    steps[::2] = 10.5 * 2.55
    assert pdq_rounding.quality(steps * 0, 1e-3) == 0
    assert pdq_rounding.quality(steps, 1e-3) == 100
    few = np.zeros((64, 64), np.float32)
    few[:10:2, :10] = 10 * 2.55  # ten to the last bit
    assert pdq_rounding.quality(few, 1e-3) is None
    assert pdq_rounding.quality(few * np.float32(1.01), 1e-3) is not None
