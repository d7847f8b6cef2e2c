from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from classifiers.hashes.imagehash_kinds import ALGORITHMS, ImageHashKind, kind_name

LIBRARY = {
    "phash": imagehash.phash,
    "dhash": imagehash.dhash,
    "whash": imagehash.whash,
    "ahash": imagehash.average_hash,
}


@pytest.fixture(params=LIBRARY)
def algorithm(request):
    return request.param


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2).astype(np.uint8)


def test_these_are_all_algorithms():
    assert set(ALGORITHMS) == set(LIBRARY)


def test_the_name_holds_the_version_of_the_library(algorithm):
    assert kind_name(algorithm) == f"{algorithm}:imagehash-{imagehash.__version__}"


@pytest.mark.parametrize("size", [(5, 5), (64, 64), (300, 200), (90, 700)])
@pytest.mark.parametrize("seed", range(5))
def test_the_code_is_the_hex_text_of_the_library(algorithm, size, seed):
    pixels = noise(*size, seed)
    code = ImageHashKind(algorithm).encode(pixels)
    assert code.codes.tobytes().hex() == str(LIBRARY[algorithm](Image.fromarray(pixels)))


@pytest.mark.shared_data
def test_photographs_get_the_codes_of_the_library_and_are_usable(algorithm, shared_data):
    for path in sorted((shared_data / "photos").iterdir()):
        if path.name != "truncated.jpg":
            picture = Image.open(path).convert("RGB")
            code = ImageHashKind(algorithm).encode(np.asarray(picture))
            assert code.codes.tobytes().hex() == str(LIBRARY[algorithm](picture)), path.name
            assert code.usable, path.name


def test_a_distance_between_codes_is_the_distance_of_the_library(algorithm):
    pictures = [noise(80, 90, seed) for seed in range(2)]
    left, right = (ImageHashKind(algorithm).encode(pixels).codes for pixels in pictures)
    one, other = (LIBRARY[algorithm](Image.fromarray(pixels)) for pixels in pictures)
    assert np.bitwise_count(left ^ right).sum() == one - other


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_plain_pictures_are_not_usable(algorithm, level):
    assert not ImageHashKind(algorithm).encode(np.full((90, 60, 3), level, np.uint8)).usable


@pytest.mark.parametrize("step", [1, -1])
def test_an_even_gradient_has_no_usable_dhash(step):
    gradient = np.tile(np.arange(256)[::step], (200, 1))
    assert not ImageHashKind("dhash").encode(grey(gradient)).usable


def test_there_is_no_measure_of_quality(algorithm):
    assert ImageHashKind(algorithm).encode(noise(50, 50)).quality is None


def test_an_algorithm_without_a_name_in_the_library_is_refused():
    with pytest.raises(KeyError):
        ImageHashKind("colorhash")
