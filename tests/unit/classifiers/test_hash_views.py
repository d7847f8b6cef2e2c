from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from classifiers.hashes.pdq import Pdq
from classifiers.hashes.views import (
    ORIENTED,
    STORED,
    STRIPPED,
    STRIPPED_ONCE,
    Bounds,
    border_layers,
    picture_views,
    stored_view,
    strip_border,
    stripped_view,
)

WHITE, BLACK, GREY, BLUE = (255, 255, 255), (0, 0, 0), (128, 128, 128), (20, 40, 200)
ORIENTATION_TAG = 0x0112


def textured(seed=0, height=160, width=210):
    """Smooth blobs with grain and no symmetry: nothing of it is a border."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(40, 216, (9, 12, 3), np.uint8)).resize((width, height), 3)
    pixels = np.asarray(coarse) + random.normal(0, 12, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def framed(pixels, top=0, bottom=0, left=0, right=0, colour=WHITE):
    height, width = pixels.shape[:2]
    out = np.empty((height + top + bottom, width + left + right, 3), np.uint8)
    out[:] = colour
    out[top : top + height, left : left + width] = pixels
    return out


def jpeg(pixels, quality=90):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def distance(one, other):
    codes = [Pdq().encode(pixels).codes[0] for pixels in (one, other)]
    return int(np.bitwise_count(codes[0] ^ codes[1]).sum())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_the_stored_view_upright_gives_the_picture_back(orientation):
    upright = textured()
    stored = stored_view(upright, orientation)
    if orientation == 1:
        assert stored is None
        return
    image = Image.fromarray(stored)
    image.getexif()[ORIENTATION_TAG] = orientation
    assert (np.asarray(ImageOps.exif_transpose(image)) == upright).all()


@pytest.mark.parametrize("orientation", [0, 9, -1])
def test_an_unknown_orientation_is_refused(orientation):
    with pytest.raises(ValueError, match="EXIF knows 1 to 8"):
        stored_view(textured(), orientation)


@pytest.mark.parametrize(
    "pixels", [np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3)), np.zeros((20, 20, 4), "u1")]
)
def test_pixels_of_another_shape_or_dtype_are_refused(pixels):
    for view in (border_layers, lambda pixels: stored_view(pixels, 3)):
        with pytest.raises(ValueError, match="expected H x W x 3 uint8"):
            view(pixels)


@pytest.mark.parametrize("colour", [WHITE, BLACK, GREY, BLUE])
@pytest.mark.parametrize(
    "sides",
    [
        {"top": 20, "bottom": 31, "left": 12, "right": 5},
        {"top": 40, "bottom": 40},
        {"left": 37, "right": 36},
        {"bottom": 24},
        {"right": 1},
    ],
)
def test_a_border_of_any_colour_is_found_on_the_sides_that_have_it(colour, sides):
    picture = textured()
    top, left = sides.get("top", 0), sides.get("left", 0)
    expected = Bounds(top, top + picture.shape[0], left, left + picture.shape[1])
    bordered = framed(picture, **sides, colour=colour)
    assert strip_border(bordered) == expected
    assert (stripped_view(bordered) == picture).all()
    found = strip_border(jpeg(bordered))
    assert found is not None
    for side in ("top", "bottom", "left", "right"):
        assert abs(getattr(found, side) - getattr(expected, side)) <= 1


def test_each_side_may_have_a_colour_of_its_own():
    picture = textured()
    bordered = framed(picture, top=10, colour=WHITE)
    bordered = framed(bordered, left=14, colour=BLACK)
    bordered = framed(bordered, bottom=9, colour=BLUE)
    bordered = framed(bordered, right=22, colour=GREY)
    assert (stripped_view(bordered) == picture).all()


def test_borders_inside_each_other_are_layers_from_the_outside():
    picture = textured(height=100)
    letterbox = framed(picture, top=30, bottom=30, colour=BLACK)
    padded = framed(letterbox, left=25, right=25, colour=WHITE)
    assert border_layers(padded) == (Bounds(0, 160, 25, 235), Bounds(30, 130, 25, 235))
    assert (border_layers(padded)[0].of(padded) == letterbox).all()
    assert (stripped_view(padded) == picture).all()


def test_a_picture_without_a_border_has_none():
    assert strip_border(textured()) is None
    assert strip_border(jpeg(textured())) is None
    assert stripped_view(textured()) is None


@pytest.mark.parametrize("colour", [WHITE, BLACK, BLUE])
@pytest.mark.parametrize("shape", [(200, 300), (1, 1), (5, 400), (16, 16)])
def test_a_picture_of_one_colour_has_no_border(shape, colour):
    assert strip_border(framed(np.zeros((0, 0, 3), np.uint8), top=shape[0], left=shape[1], colour=colour)) is None


def test_two_plain_halves_are_no_border():
    halves = np.concatenate([np.zeros((80, 160, 3), np.uint8), np.full((80, 160, 3), 255, np.uint8)])
    assert strip_border(halves) is None


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 7, 3), (7, 0, 3), (15, 15, 3), (2, 300, 3)])
def test_a_picture_too_small_to_strip_has_no_border(shape):
    assert strip_border(np.zeros(shape, np.uint8)) is None


def test_too_little_left_is_no_border():
    assert strip_border(framed(textured(height=15, width=60), top=20, bottom=20)) is None
    assert strip_border(framed(textured(height=30, width=30), top=60, bottom=60, left=60, right=60)) is None


def test_a_thin_strip_padded_to_a_square_is_found():
    strip = textured(height=18, width=256)
    assert (stripped_view(framed(strip, top=119, bottom=119)) == strip).all()


def test_a_small_picture_amid_a_wide_frame_is_found_on_all_sides():
    picture = textured(height=60, width=70)
    assert (stripped_view(framed(picture, top=100, bottom=60, left=80, right=60)) == picture).all()


def test_dust_on_a_border_does_not_end_it():
    bordered = framed(textured(), top=30, bottom=30, colour=BLACK)
    bordered[5, 100:102], bordered[12, 7] = 255, 200
    assert strip_border(bordered) == Bounds(30, 190, 0, 210)


def test_noise_within_the_tolerance_does_not_end_a_border():
    noise = np.random.default_rng(1).integers(-10, 11, (220, 210, 1))
    bordered = framed(textured(), top=30, bottom=30, colour=GREY).astype(int)
    bordered[:30] += noise[:30]
    bordered[-30:] += noise[-30:]
    assert strip_border(bordered.astype(np.uint8)) == Bounds(30, 190, 0, 210)


def test_text_on_a_bar_ends_it():
    bordered = framed(textured(), bottom=40, colour=WHITE)
    bordered[180:184, 40:80] = 0
    assert strip_border(bordered) == Bounds(0, 184, 0, 210)


def test_a_fading_border_is_stripped_as_far_as_the_tolerance_of_four_layers():
    fading = np.repeat(np.linspace(255, 155, 100).astype(np.uint8)[:, None], 210, axis=1)[..., None].repeat(3, 2)
    layers = border_layers(np.concatenate([fading, textured()]))
    assert [bounds.top for bounds in layers] == [12, 25, 38, 51]


def test_what_luma_does_not_see_is_no_border():
    red_and_green = np.zeros((120, 120, 3), np.uint8)
    red_and_green[:, ::2] = (150, 0, 0)
    red_and_green[:, 1::2] = (0, 77, 0)
    assert strip_border(red_and_green) is None


def test_bars_of_long_lines_are_found_from_samples():
    picture = textured(height=500, width=2600)
    assert strip_border(framed(picture, top=200, bottom=199)) == Bounds(200, 700, 0, 2600)


def test_a_slice_of_a_larger_array_can_be_viewed():
    bordered = framed(textured(), top=30, bottom=30)
    larger = np.zeros((300, 400, 3), np.uint8)
    larger[20:240, 50:260] = bordered
    part = larger[20:240, 50:260]
    assert strip_border(part) == Bounds(30, 190, 0, 210)
    assert (stored_view(part, 6) == stored_view(bordered, 6)).all()


def test_only_views_that_differ_are_made():
    assert [name for name, _ in picture_views(textured(), 1)] == [ORIENTED]
    assert [name for name, _ in picture_views(textured(), 6)] == [ORIENTED, STORED]
    bordered = framed(textured(), top=30, bottom=30)
    assert [name for name, _ in picture_views(bordered, 1)] == [ORIENTED, STRIPPED]
    twice = framed(bordered, left=20, right=20, colour=BLACK)
    views = dict(picture_views(twice, 8))
    assert list(views) == [ORIENTED, STORED, STRIPPED, STRIPPED_ONCE]
    assert (views[STRIPPED] == textured()).all()
    assert (views[STRIPPED_ONCE] == bordered).all()


def test_only_wanted_views_are_made():
    twice = framed(framed(textured(), top=30, bottom=30), left=20, right=20, colour=BLACK)
    for wanted in ([], [STORED], [STRIPPED_ONCE], [STRIPPED, ORIENTED]):
        assert {name for name, _ in picture_views(twice, 3, wanted)} == set(wanted)
    with pytest.raises(ValueError, match="unknown"):
        list(picture_views(twice, 3, ["sideways"]))


def test_a_padded_copy_matches_only_without_its_border():
    picture = textured(height=120)
    copy = jpeg(framed(picture, top=45, bottom=45))
    assert distance(copy, picture) > 31
    assert distance(stripped_view(copy), picture) <= 10


@pytest.mark.shared_data
def test_bounds_on_photographs_survive_jpeg_90(shared_data):
    random = np.random.default_rng(4)
    right = total = 0
    for path in sorted((shared_data / "photos").glob("*")) + sorted((shared_data / "clip" / "images").glob("*")):
        if path.stem == "truncated":
            continue
        photo = np.asarray(Image.open(path).convert("RGB"))
        if strip_border(photo) is not None:
            continue
        height, width = photo.shape[:2]
        for colour in (WHITE, BLACK, GREY):
            top, bottom, left, right_px = (int(n) for n in random.integers(0, 60, 4))
            found = strip_border(jpeg(framed(photo, top, bottom, left, right_px, colour)))
            expected = (top, top + height, left, left + width)
            seen = (found.top, found.bottom, found.left, found.right) if found else (-9, -9, -9, -9)
            right += max(abs(a - b) for a, b in zip(seen, expected, strict=True)) <= 1
            total += 1
    assert total >= 30
    assert right >= 0.95 * total
