from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from stand_ins import draw_picture

from classifiers.embedders.views import square_view

Pixels = NDArray[np.uint8]


def view(picture: Pixels) -> Pixels:
    return square_view(picture, 224)


def pillow_view(picture: Pixels, size: int = 224) -> Pixels:
    """What torchvision's Resize(size, BICUBIC) and CenterCrop(size) make of a Pillow image.

    In two calls, across and then down: Pillow 13 turns the two passes round for some tall pictures.
    """
    height, width = picture.shape[:2]
    tall, wide = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    top, left = round((tall - size) / 2.0), round((wide - size) / 2.0)
    across = Image.fromarray(picture).resize((wide, height), Image.Resampling.BICUBIC)
    resized = across.resize((wide, tall), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def most_apart(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(np.int16) - b).max())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 99))
@example(1, 1, 0)
@example(224, 224, 0)
@example(17, 1, 0)
@example(225, 223, 0)
@example(451, 225, 0)
@example(1000, 1500, 0)
def test_a_view_is_within_one_grey_level_of_pillow(height: int, width: int, seed: int) -> None:
    short, long = sorted((height, width))
    if long > 8 * short:
        height, width = (8 * short, short) if height > width else (short, 8 * short)
    picture = draw_picture(height, width, seed)
    expected = pillow_view(picture).astype(np.int16)
    apart = np.abs(view(picture) - expected)
    # The noise holds every case of rounding, ties too.
    assert (apart > 1).mean() < 2e-4
    assert apart.max() <= 2


@pytest.mark.shared_data
def test_views_of_photographs_are_within_one_grey_level_of_pillow(shared_data: Path) -> None:
    names = ["photos/astronaut.png", "photos/chelsea.png", "photos/coffee.png", "photos/retina.jpg"]
    names += ["pdq/images/mods-shrink-a-lot.jpg", "pdq/images/misc-wee.jpg", "pdq/images/dih-bridge-1-original.jpg"]
    names += [f"clip/images/{path.name}" for path in sorted((shared_data / "clip/images").glob("*.jpg"))]
    for name in names:
        with Image.open(shared_data / name) as image:
            picture = np.asarray(image.convert("RGB"))
        assert most_apart(view(picture), pillow_view(picture)) <= 1, name


@pytest.mark.parametrize("shape", [(9, 1), (1, 17), (1, 100)])
def test_the_centre_of_a_very_long_picture_stays_where_it_is(shape: tuple[int, int]) -> None:
    picture = draw_picture(*shape)
    assert most_apart(view(picture), pillow_view(picture)) <= 1


def test_of_a_very_long_picture_only_the_middle_is_seen() -> None:
    picture = draw_picture(13, 400)
    expected = view(picture)
    # 296 columns more than 8 times the height: 148 from each end.
    picture[:, :148] = picture[:, 252:] = 0
    assert most_apart(view(picture), expected) == 0
    ramp = np.broadcast_to((np.arange(400) % 256)[None, :, None], (13, 400, 3)).astype(np.uint8)
    assert most_apart(view(ramp), pillow_view(ramp)) <= 1


@pytest.mark.parametrize("shape", [(1, 2_000_000), (2_000_000, 1)])
def test_a_line_of_pixels_is_seen_without_filling_the_memory(shape: tuple[int, int]) -> None:
    square = view(np.full((*shape, 3), 77, np.uint8))
    assert square.shape == (224, 224, 3)
    assert (square == 77).all()


def test_a_view_is_the_same_for_any_layout_of_the_pixels_and_writes_to_none() -> None:
    picture = draw_picture(300, 500)
    before = picture.copy()
    expected = view(picture)
    picture.flags.writeable = False
    mirrored = np.ascontiguousarray(picture[::-1, ::-1])[::-1, ::-1]
    padded = np.pad(picture, ((5, 5), (5, 5), (0, 0)))[5:-5, 5:-5]
    for same in (picture, mirrored, padded, np.asfortranarray(picture)):
        assert most_apart(view(same), expected) == 0
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("shape", [(224, 224), (224, 300), (448, 448), (10, 10)])
def test_a_view_is_fresh_memory(shape: tuple[int, int]) -> None:
    picture = draw_picture(*shape)
    assert not np.shares_memory(view(picture), picture)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5, 3))],
)
def test_only_rgb_pixels_are_viewed(wrong: Pixels) -> None:
    with pytest.raises(ValueError, match="expected pixels uint8 H x W x 3"):
        view(wrong)


def test_the_number_of_threads_changes_no_view() -> None:
    threads = torch.get_num_threads()
    found = set()
    for count in (1, 2):
        torch.set_num_threads(count)
        found.add(view(draw_picture(900, 700)).tobytes() + view(draw_picture(90, 70)).tobytes())
    torch.set_num_threads(threads)
    assert len(found) == 1
