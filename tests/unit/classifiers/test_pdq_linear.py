from __future__ import annotations

import numpy as np
import pytest

from classifiers.hashes import pdq_reference
from classifiers.hashes.pdq_linear import LUMA, row_sums, shrink

SIDES = [5, 6, 63, 64, 65, 127, 128, 129, 191, 256, 257, 300, 512, 513, 1000, 2048, 2049, 3001]


def boxed(line):
    """One box blur as published, in float64: over the pixels that are there."""
    window = pdq_reference.window_size(len(line))
    ahead = window // 2
    return np.array(
        [line[max(0, i + ahead - window + 1) : i + ahead + 1].mean(axis=0) for i in range(len(line))],
    )


@pytest.mark.parametrize("side", SIDES)
def test_the_weighted_sums_of_a_side_are_two_box_blurs_and_the_chosen_positions(side):
    weights, positions, ends = row_sums(side)
    dense = np.zeros((65, side))
    for row in range(65):
        dense[row, positions[ends[row] : ends[row + 1]]] = weights[ends[row] : ends[row + 1]]
    window = pdq_reference.window_size(side)
    if window > 1:
        dense[63] += dense[64] / (window - 1)
    twice = boxed(boxed(np.eye(side)))[pdq_reference.centres(side)]
    assert np.allclose(dense[:64] / window**2, twice, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [*zip(SIDES, reversed(SIDES), strict=True), (256, 256), (1500, 2100)])
def test_a_picture_is_shrunk_to_the_exact_means_of_its_luma(height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    by_row, by_column = (boxed(boxed(np.eye(side)))[pdq_reference.centres(side)] for side in (height, width))
    exact = by_row @ (pixels @ LUMA) @ by_column.T
    assert np.abs(shrink(pixels) - exact).max() < 1e-4
