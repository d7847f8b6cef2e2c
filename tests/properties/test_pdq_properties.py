"""The fast hash against pdqhash and against the slow form, over sizes and kinds of pictures."""

from __future__ import annotations

import numpy as np
import pdqhash
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.hashes import pdq_reference
from classifiers.hashes.pdq import Pdq, encode_fast, encode_slowly

SETTINGS = settings(max_examples=80, deadline=None)


def noise(random, height, width):
    return random.integers(0, 256, (height, width, 3))


def grains(random, height, width):
    """Noise of a few pixels' size, faint or strong, on any ground."""
    size = int(random.integers(1, 40))
    small = random.normal(0, random.uniform(5, 80), (height // size + 1, width // size + 1, 3))
    return random.integers(0, 256, 3) + small.repeat(size, 0).repeat(size, 1)[:height, :width]


def boxes(random, height, width):
    pixels = np.zeros((height, width, 3)) + random.choice([0, 51, 102, 254, 255], 3)
    for _ in range(int(random.integers(0, 30))):
        top, left = random.integers(0, height), random.integers(0, width)
        below, right = top + random.integers(1, height + 1), left + random.integers(1, width + 1)
        pixels[top:below, left:right] = random.choice([0, 51, 102, 254, 255], 3)
    return pixels


def waves(random, height, width):
    y, x = np.mgrid[:height, :width]
    grey = sum(
        random.uniform(0, 60) * np.sin(random.uniform(0, 0.2) * y + random.uniform(0, 0.2) * x) for _ in range(5)
    )
    return np.repeat(128 + grey[..., None], 3, axis=2)


def constant(random, height, width):
    return np.zeros((height, width, 3)) + random.integers(0, 256, 3)


PRIMES = (5, 7, 61, 127, 131, 257, 509, 1021, 2039, 4999)


@st.composite
def sides(draw):
    """Two sides of 5 to 5,000 px, one of them short where the other is long, so that a case stays cheap."""
    long = draw(st.integers(5, 5000) | st.sampled_from(PRIMES))
    short = draw(st.integers(5, max(5, min(5000, 250_000 // long))))
    return draw(st.permutations((long, short)))


@st.composite
def pictures(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from([noise, grains, boxes, waves, constant]))
    height, width = draw(sides())
    return np.clip(kind(random, height, width), 0, 255).astype(np.uint8)


@settings(max_examples=500, deadline=None)
@given(pictures())
def test_quality_and_every_usable_code_are_those_of_pdqhash(pixels):
    code = Pdq().encode(pixels)
    bits, quality = pdqhash.compute(pixels)
    variants, _ = pdqhash.compute_dihedral(pixels)
    assert code.quality == quality
    assert (np.unpackbits(code.codes[0]) == bits).all()
    if code.usable:
        assert (np.unpackbits(code.codes, axis=1) == np.array(variants)).all()


@SETTINGS
@given(pictures())
def test_where_the_fast_form_answers_the_slow_form_answers_the_same(pixels):
    fast = encode_fast(pixels)
    if fast is not None:
        slow = encode_slowly(pixels)
        assert (fast.codes == slow.codes).all()
        assert (fast.quality, fast.usable) == (slow.quality, slow.usable)


@SETTINGS
@given(pictures())
def test_the_slow_form_has_the_floats_of_pdqhash(pixels):
    block, quality = pdq_reference.block_of(pixels)
    floats, published_quality = pdqhash.compute_float(pixels)
    assert (block.ravel()[::-1] == floats).all()
    assert quality == published_quality


@SETTINGS
@given(pictures())
def test_no_code_has_more_than_half_of_its_bits(pixels):
    code = Pdq().encode(pixels)
    assert (np.bitwise_count(code.codes).sum(axis=1) <= 128).all()
