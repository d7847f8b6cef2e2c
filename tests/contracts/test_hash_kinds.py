"""What every `HashKind` keeps, whatever its recipe. A new one in the registry is found here."""

from __future__ import annotations

import numpy as np
import pytest

from classifiers.hashes.registry import HASH_KINDS
from classifiers.signals import HashCode


@pytest.fixture(params=HASH_KINDS)
def kind(request):
    return HASH_KINDS[request.param]()


def picture(height=120, width=160, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(left: HashCode, right: HashCode) -> bool:
    return (left.codes == right.codes).all() and (left.quality, left.usable) == (right.quality, right.usable)


def test_a_kind_is_registered_under_its_own_name(kind):
    assert HASH_KINDS[kind.name]().name == kind.name


def test_codes_are_rows_of_bytes_with_a_quality_in_percent(kind):
    code = kind.encode(picture())
    assert code.codes.dtype == np.uint8
    assert code.codes.ndim == 2
    assert 0 <= code.quality <= 100
    assert code.usable
    assert type(code.quality) is int
    assert type(code.usable) is bool


def test_every_picture_has_as_many_codes_of_one_width(kind):
    shapes = {kind.encode(picture(height, width)).codes.shape for height, width in [(5, 5), (64, 64), (300, 90)]}
    assert len(shapes) == 1


def test_the_same_pixels_give_the_same_code_whoever_asks(kind):
    assert same(kind.encode(picture()), HASH_KINDS[kind.name]().encode(picture()))


def test_the_code_depends_on_the_pixels_and_not_on_how_they_lie_in_memory(kind):
    pixels = picture(120, 160)
    code = kind.encode(pixels)
    wide = np.zeros((240, 320, 3), np.uint8)
    wide[::2, ::2] = pixels
    assert same(kind.encode(wide[::2, ::2]), code)
    assert same(kind.encode(np.asfortranarray(pixels)), code)


def test_pixels_are_only_read(kind):
    pixels = picture()
    kept = pixels.copy()
    pixels.flags.writeable = False
    assert kind.encode(pixels) is not None
    assert (pixels == kept).all()


def test_different_pictures_have_codes_far_apart(kind):
    bits = [kind.encode(picture(seed=seed)).codes[0] for seed in range(2)]
    assert np.bitwise_count(bits[0] ^ bits[1]).sum() > 8 * len(bits[0]) // 4


def test_a_blank_picture_is_not_usable(kind):
    code = kind.encode(np.full((120, 160, 3), 90, np.uint8))
    assert not code.usable


def test_a_picture_that_cannot_be_hashed_has_no_code_at_all(kind):
    assert kind.encode(picture(1, 1)) is None
