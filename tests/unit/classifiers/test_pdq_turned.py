from __future__ import annotations

import numpy as np
import pdqhash
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scrapes import draw

from classifiers.hashes.pdq import Pdq
from classifiers.hashes.pdq_linear import shrink, shrink_turned
from classifiers.hashes.pdq_turned import PdqTurned

TURNS = [
    lambda a: a,
    lambda a: a[:, ::-1],
    lambda a: a[::-1],
    lambda a: a[::-1, ::-1],
]
TURNS += [lambda a, turn=turn: np.swapaxes(turn(a), 0, 1) for turn in TURNS]


def distances(pixels: np.ndarray) -> list[int]:
    code = PdqTurned().encode(pixels)
    assert code is not None
    found = []
    for turn, row in zip(TURNS, code.codes, strict=True):
        bits, _ = pdqhash.compute(np.ascontiguousarray(turn(pixels)))
        expected = np.packbits(np.asarray(bits, np.uint8))
        found.append(int(np.bitwise_count(row ^ expected).sum()))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 400), st.integers(5, 400), st.integers(0, 2**32 - 1))
def test_shrinking_a_turned_picture_needs_no_pixel_moved(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for turn, small in zip(TURNS[:4], shrink_turned(pixels), strict=True):
        np.testing.assert_allclose(small, shrink(np.ascontiguousarray(turn(pixels))), atol=1e-3)


@pytest.mark.parametrize("size", [(160, 120), (321, 199), (512, 512), (1000, 613)])
def test_each_code_is_that_of_the_turned_picture_but_for_rounding(size):
    fine = np.random.default_rng(1).normal(0, 25, (size[1], size[0], 1))
    pixels = np.clip(np.asarray(draw(8, size=size)) + fine, 0, 255).astype(np.uint8)
    assert max(distances(pixels)) <= 2


@pytest.mark.shared_data
def test_fine_textures_that_sign_changes_miss_are_met(shared_data):
    missed = 0
    for name in ("brick", "grass", "gravel"):
        pixels = np.asarray(Image.open(shared_data / "photos" / f"{name}.png").convert("RGB"))
        assert max(distances(pixels)) <= 2
        approximate = Pdq().encode(pixels).codes
        turned = np.packbits(np.asarray(pdqhash.compute(np.ascontiguousarray(pixels[::-1, ::-1]))[0], np.uint8))
        missed += int(np.bitwise_count(approximate ^ turned).sum(axis=1).min() > 31)
    assert missed == 3


def test_a_plain_picture_is_not_usable():
    code = PdqTurned().encode(np.full((64, 80, 3), 128, np.uint8))
    assert code is not None
    assert not code.usable
