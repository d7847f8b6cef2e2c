"""Border views over sizes, colours and kinds of pictures."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.hashes.views import (
    MAX_LAYERS,
    MIN_AREA_ONE_IN,
    MIN_SIDE_PX,
    Bounds,
    border_layers,
    picture_views,
    stored_view,
    strip_border,
)

SETTINGS = settings(max_examples=150, deadline=None)


def noise(random, height, width):
    return random.integers(0, 256, (height, width, 3))


def boxes(random, height, width):
    pixels = np.zeros((height, width, 3)) + random.choice([0, 30, 128, 255], 3)
    for _ in range(int(random.integers(0, 6))):
        top, left = random.integers(0, height), random.integers(0, width)
        below, right = top + random.integers(1, height + 1), left + random.integers(1, width + 1)
        pixels[top:below, left:right] = random.choice([0, 10, 30, 128, 255], 3)
    return pixels


def frames(random, height, width):
    """Rings of plain colour, one inside the other, more than are stripped."""
    pixels = noise(random, height, width)
    ring = 0
    while ring * 2 < min(height, width) and random.random() < 0.9:
        thick = int(random.integers(1, 9))
        colour = random.integers(0, 256, 3)
        pixels[ring : ring + thick] = pixels[height - ring - thick : height - ring] = colour
        pixels[ring : height - ring, ring : ring + thick] = colour
        pixels[ring : height - ring, width - ring - thick : width - ring] = colour
        ring += thick
    return pixels


def slopes(random, height, width):
    y, x = np.mgrid[:height, :width]
    grey = random.uniform(0, 255) + random.uniform(-1, 1) * y + random.uniform(-1, 1) * x
    return np.repeat(grey[..., None], 3, axis=2) + random.normal(0, random.uniform(0, 8), (height, width, 1))


@st.composite
def pictures(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from([noise, boxes, frames, slopes]))
    pixels = kind(random, draw(st.integers(1, 200)), draw(st.integers(1, 200)))
    return np.clip(pixels, 0, 255).astype(np.uint8)


sides = st.integers(0, 80)
colours = st.tuples(*[st.integers(0, 255)] * 3)


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.integers(40, 150), st.integers(40, 150), sides, sides, sides, sides, colours)
def test_the_bounds_of_a_border_round_noise_are_exact(seed, height, width, top, bottom, left, right, colour):
    pixels = np.empty((height + top + bottom, width + left + right, 3), np.uint8)
    pixels[:] = colour
    inside = Bounds(top, top + height, left, left + width)
    inside.of(pixels)[:] = noise(np.random.default_rng(seed), height, width)
    too_little = height * width * MIN_AREA_ONE_IN < pixels.shape[0] * pixels.shape[1]
    expected = None if too_little or not top + bottom + left + right else inside
    assert strip_border(pixels) == expected


@SETTINGS
@given(pictures())
def test_each_layer_lies_inside_the_one_before_and_leaves_a_picture(pixels):
    height, width = pixels.shape[:2]
    layers = border_layers(pixels)
    assert len(layers) <= MAX_LAYERS
    before = Bounds(0, height, 0, width)
    for now in layers:
        assert now != before
        assert before.top <= now.top < now.bottom <= before.bottom
        assert before.left <= now.left < now.right <= before.right
        rows, columns = now.of(pixels).shape[:2]
        assert min(rows, columns) >= MIN_SIDE_PX
        assert rows * columns * MIN_AREA_ONE_IN >= height * width
        before = now


@SETTINGS
@given(pictures())
def test_a_mirrored_picture_has_mirrored_bounds(pixels):
    width = pixels.shape[1]
    mirrored = [Bounds(b.top, b.bottom, width - b.right, width - b.left) for b in border_layers(pixels)]
    assert list(border_layers(pixels[:, ::-1])) == mirrored


@SETTINGS
@given(pictures())
def test_a_second_strip_begins_where_the_layers_ended(pixels):
    layers = border_layers(pixels)
    if 0 < len(layers) < MAX_LAYERS:
        inner = layers[-1].of(pixels)
        again = border_layers(inner)  # only what was too little of the whole can be enough of the part
        assert all(b.of(inner).size * MIN_AREA_ONE_IN < pixels.size for b in again)


@SETTINGS
@given(pictures(), st.integers(1, 8))
def test_every_view_but_the_first_differs_and_nothing_is_written(pixels, orientation):
    before = pixels.copy()
    views = [view for _, view in picture_views(pixels, orientation)]
    assert views[0] is pixels
    assert all(view.shape != pixels.shape for view in views[2 if orientation > 1 else 1 :])
    assert (pixels == before).all()


@SETTINGS
@given(pictures(), st.integers(2, 8))
def test_a_stored_view_stored_again_by_the_inverse_is_the_picture(pixels, orientation):
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    assert (stored_view(stored_view(pixels, orientation), inverse) == pixels).all()
