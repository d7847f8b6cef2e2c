from __future__ import annotations

import csv

import numpy as np
import pdqhash
import pytest
from PIL import Image

from classifiers.hashes import pdq_reference
from classifiers.hashes.pdq import Pdq, encode_fast, encode_slowly

# Both sides of every change of form: no blur, the undecimated square, odd and even windows, a last box that is cut
# or not, 16-bit sums up to 2048 rows, one band of rows or several.
SIZES = [
    (5, 5),
    (5, 1000),
    (64, 64),
    (64, 65),
    (127, 128),
    (128, 127),
    (129, 256),
    (257, 300),
    (512, 384),
    (1004, 1600),
    (2048, 40),
    (2049, 40),
    (3000, 1500),
]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drawn(height, width, seed=0):
    """A smooth picture of a few waves in each colour, between 0 and 255."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    waves = sum(
        random.normal(size=3) * np.cos(2 * np.pi * (random.uniform(0, 6) * y + random.uniform(0, 6) * x))[..., None]
        for _ in range(8)
    )
    return ((waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8)


def published(pixels):
    """The eight codes and the quality as pdqhash computes them."""
    bits, quality = pdqhash.compute_dihedral(pixels)
    return np.packbits(np.array(bits, bool), axis=1), quality


def distances(left, right):
    return np.bitwise_count(left ^ right).sum(axis=-1)


@pytest.mark.shared_data
def test_every_reference_picture_gets_its_published_codes_and_quality(shared_data):
    with (shared_data / "pdq" / "expected_fullres.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    for row in rows:
        pixels = np.asarray(Image.open(shared_data / "pdq" / "images" / row["file"]).convert("RGB"))
        expected = [row[f"dih{variant}"] for variant in range(8)]
        for code in (Pdq().encode(pixels), encode_slowly(pixels)):
            assert [variant.tobytes().hex() for variant in code.codes] == expected, row["file"]
            assert code.quality == int(row["quality"]), row["file"]
        assert bytes.fromhex(row["pdq"]) == code.codes[0].tobytes()


@pytest.mark.shared_data
def test_photographs_get_the_published_codes_and_most_without_the_reference(shared_data):
    answered = []
    for path in sorted((shared_data / "photos").iterdir()):
        if path.name != "truncated.jpg":
            pixels = np.asarray(Image.open(path).convert("RGB"))
            codes, quality = published(pixels)
            code = Pdq().encode(pixels)
            assert (code.codes == codes).all(), path.name
            assert (code.quality, code.usable) == (quality, True), path.name
            answered.append(encode_fast(pixels) is not None)
    assert sum(answered) > len(answered) / 2


@pytest.mark.parametrize("make", [noise, drawn])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_codes_and_quality_are_published_ones_at_every_size(make, height, width):
    pixels = make(height, width)
    codes, quality = published(pixels)
    code = Pdq().encode(pixels)
    assert code.quality == quality
    if code.usable:
        assert (code.codes == codes).all()


@pytest.mark.parametrize(("height", "width"), SIZES[:9])
def test_the_reference_has_the_very_floats_of_pdqhash(height, width):
    pixels = noise(height, width, seed=3)
    block, quality = pdq_reference.block_of(pixels)
    reversed_floats, published_quality = pdqhash.compute_float(pixels)
    assert (block.ravel()[::-1] == reversed_floats).all()
    assert quality == published_quality


def test_the_eight_variants_of_the_reference_are_those_of_the_fast_form():
    pixels = noise(200, 300)
    block, _ = pdq_reference.block_of(pixels)
    assert (pdq_reference.codes_of(block) == encode_slowly(pixels).codes).all()


def test_no_side_reaches_past_its_end_by_more_than_one_position():
    for side in range(5, 20_000):
        window = pdq_reference.window_size(side)
        ahead = window // 2
        first, *_, one_before, last = (int((i + 0.5) * side / 64) for i in (0, 62, 63))
        assert first - 2 * (window - 1 - ahead) >= 0
        assert one_before + 2 * ahead < side
        assert last + 2 * ahead <= side


def test_pictures_that_hang_on_rounding_get_the_published_codes():
    hanging = [pixels for seed in range(1500) if encode_fast(pixels := noise(70, 70, seed)) is None]
    assert 2 <= len(hanging) <= 60
    for pixels in hanging:
        codes, quality = published(pixels)
        code = Pdq().encode(pixels)
        assert (code.codes == codes).all()
        assert (code.quality, code.usable) == (quality, True)


def test_a_quality_that_hangs_on_rounding_is_the_published_one():
    # Steps of 51 levels are exactly 20 percent, so truncation decides every one of them.
    tiles = np.kron(np.arange(64 * 64).reshape(64, 64) % 5 == 0, np.ones((4, 4)))
    pixels = (tiles[..., None] * [51, 51, 51] + 20).astype(np.uint8)
    assert Pdq().encode(pixels).quality == pdqhash.compute(pixels)[1]


@pytest.mark.parametrize(("height", "width"), [(4, 100), (100, 4), (1, 1)])
def test_a_side_under_five_pixels_has_no_code(height, width):
    assert Pdq().encode(noise(height, width)) is None


def featureless():
    y, x = np.mgrid[:300, :400]
    return {
        "black": 0 * x,
        "white": 0 * x + 255,
        "vertical stripes": x // 10 % 2 * 255,
        "horizontal stripes": y // 10 % 2 * 200,
        "gradient": x * 255 // 400,
        "diagonal gradient": (x + y) * 255 // 700,
        "gradient with a hard edge": x * 255 // 400 + (x > 200) * -90,
        "radial gradient": np.clip(np.hypot(x - 200, y - 150), 0, 255),
    }


@pytest.mark.parametrize("name", featureless())
def test_a_picture_without_features_is_not_usable(name):
    grey = featureless()[name]
    pixels = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    assert not Pdq().encode(pixels).usable


def test_a_picture_that_equals_its_mirror_image_is_not_usable():
    half = noise(64, 32)
    assert not Pdq().encode(np.concatenate((half, half[:, ::-1]), axis=1)).usable


def test_a_faint_picture_is_not_usable():
    pixels = (drawn(256, 256) // 16 + 100).astype(np.uint8)
    code = Pdq().encode(pixels)
    assert code.quality < 50
    assert not code.usable


@pytest.mark.parametrize(
    ("variant", "turn"),
    [
        (1, lambda pixels: np.rot90(pixels, 1)),
        (2, lambda pixels: np.rot90(pixels, 2)),
        (3, lambda pixels: np.rot90(pixels, 3)),
        (4, lambda pixels: pixels[::-1]),
        (5, lambda pixels: pixels[:, ::-1]),
        (6, lambda pixels: pixels.transpose(1, 0, 2)),
        (7, lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2)),
    ],
)
def test_each_variant_is_near_the_code_of_the_picture_so_turned(variant, turn):
    pixels = drawn(400, 300, seed=4)
    variants = Pdq().encode(pixels).codes
    turned = Pdq().encode(turn(pixels)).codes[0]
    assert distances(variants[variant], turned) <= 16
    assert distances(variants[0], turned) > 31


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 3), np.float32),
        np.zeros((50, 50, 3), np.int8),
    ],
)
def test_anything_but_rgb_bytes_is_refused(pixels):
    with pytest.raises(ValueError, match="expected H x W x 3 uint8"):
        Pdq().encode(pixels)
