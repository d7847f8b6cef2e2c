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


def test_codes_are_rows_of_bytes_with_a_quality_in_percent_or_none(kind):
    code = kind.encode(picture())
    assert code.codes.dtype == np.uint8
    assert code.codes.shape == (kind.variants, kind.code_bytes)
    assert code.quality is None or (type(code.quality) is int and 0 <= code.quality <= 100)
    assert code.usable
    assert type(code.usable) is bool


def test_a_kind_has_a_quality_for_every_picture_or_for_none(kind):
    pictures = [picture(), picture(5, 5), np.full((90, 70, 3), 30, np.uint8)]
    assert len({kind.encode(pixels).quality is None for pixels in pictures}) == 1


@pytest.mark.parametrize("size", [(5, 5), (5, 600), (64, 64), (300, 90), (513, 200), (700, 900)])
def test_every_picture_has_the_number_and_width_of_codes_that_the_kind_states(kind, size):
    code = kind.encode(picture(*size))
    assert code.codes.shape == (kind.variants, kind.code_bytes)
    assert type(kind.variants) is type(kind.code_bytes) is int


def test_the_same_pixels_give_the_same_code_whoever_asks(kind):
    assert same(kind.encode(picture()), HASH_KINDS[kind.name]().encode(picture()))


@pytest.mark.parametrize("size", [(120, 160), (600, 700)])
def test_the_code_depends_on_the_pixels_and_not_on_how_they_lie_in_memory(kind, size):
    height, width = size
    pixels = picture(height, width)
    code = kind.encode(pixels)
    wide = np.zeros((2 * height, 2 * width, 3), np.uint8)
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
    assert np.bitwise_count(bits[0] ^ bits[1]).sum() > 8 * kind.code_bytes // 4


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("size", [(120, 160), (900, 600)])
def test_a_blank_picture_is_not_usable(kind, level, size):
    code = kind.encode(np.full((*size, 3), level, np.uint8))
    assert not code.usable


def test_a_picture_that_cannot_be_hashed_has_no_code_at_all(kind):
    assert kind.encode(picture(1, 1)) is None
    assert kind.encode(picture(4, 100)) is None


@pytest.mark.parametrize("shape", [(50, 50), (50, 50, 1), (50, 50, 4), (1, 50, 50, 3)])
def test_anything_but_the_pixels_of_one_rgb_picture_is_refused(kind, shape):
    with pytest.raises(ValueError, match="expected H x W x 3 uint8"):
        kind.encode(np.zeros(shape, np.uint8))


def test_other_dtypes_are_refused(kind):
    with pytest.raises(ValueError, match="expected H x W x 3 uint8"):
        kind.encode(np.zeros((50, 50, 3), np.float32))


def test_the_repr_of_a_code_shows_none_of_it(kind):
    assert repr(kind.encode(picture())).startswith("<classifiers.signals.HashCode object at ")
