from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from classifiers.hashes.pdq import Pdq
from classifiers.hashes.pdq_c512 import PdqC512, at_most_512, places

# facebook/ThreatExchange, pdq/wasm/test/TestData/PDQMD5TestData.csv: the C++ reference, compiled for browsers.
COMPILED = {
    "misc-small.jpg": "0007001f003f003f007f00ff00ff00ff01ff01ff01ff03ff03ff03ff03ff03ff",
    "misc-wee.jpg": "6227401f601ff4ccafcc9fad4b0d95d371a2eb7265a3285234d228ca94deeb2d",
    "mods-aaa-orig.jpg": "d8f8f0cee0f4a84f0637022a078f67f0b36e2ed596621e1d33e6339c4e9c9b22",
    "mods-blur-a-little.jpg": "d8f8f0cee0f4a84f0637022a078f67f0b36e2ed596621e1d33e6339c4e9c9b22",
    "mods-blur-a-lot.jpg": "d8f8f0cee0f4a84f0637022a078f67f0b36e2ed596621e1d33e6339c4e9c9b22",
    "mods-high-contrast.jpg": "d8f8f0cee0f4a84f0637022a078f67f0b36e2ed596621e1d33e6339c4e9c9b22",
    "mods-high-saturation.jpg": "d8f8f0cee0f4a84f0637022a038f67f0b36e2ed596631e1d33e6339c4e9c9b22",
    "mods-sharpen-a-little.jpg": "d8f8f0cee0f4a84f0e370222038f67f0b36e2ed596231e1d33e6b39c4e9c9b22",
    "mods-sharpen-a-lot.jpg": "d0f8f0cec0f4a84f0e370a22338f67f0b36a2ef596231e1d72e6a39c4e9c9b22",
    "mods-shrink-a-little.jpg": "d8f8f0cee0f4a84f0e370a22038f67f0b36e2ed596621e1d33e6339c4e9c9b22",
    "mods-shrink-a-lot.jpg": "d0f8f1ccc0f4a84d0a370a3a228f67f0b36e2ed5b6623e1d33e6339c4e9c9b22",
    "mods-square-128x128.jpg": "d8f8f1eec0f4a84f0e37022a078f63f0b36e2ed596621e1d33e6239c4e9c9b22",
    "mods-square-256x256.jpg": "d8f8f0cec4f4a84f0637022a078f67f0b36e2ee5b6621e1d33e6239c4e9c9b22",
    "mods-square-512x512.jpg": "d8f8f0cec0f4a84f0637022a278f67f0b36e2ed596621e1d33e6339c4e9c9b22",
}
OFF_BY_TWO_BITS = {"mods-sharpen-a-lot.jpg"}
# pdq/python/pdqhashing/tests/pdq_test.py: the Python reference, which keeps the aspect and antialiases.
PYTHON = {
    "dih-bridge-1-original.jpg": "d8f8f0cce0f4a84f0e370a22028f67f0b36e2ed596623e1d33e6b39c4e9c9b22",
    "dih-bridge-2-rotate-90.jpg": "38a50efd71c83f429013d68d0ffffc52e34e0e15ada952a9d29684214aa9e5af",
    "dih-bridge-3-rotate-180.jpg": "2dadda64b5a142e5d362209057da895ae63b8c7fc277b4b766b319361f893188",
    "dih-bridge-4-rotate-270.jpg": "a5f0a457248995e8c9065c275aaa54d8b61ba4bdf8fcfc0387c32f8b0bfc4f05",
    "dih-bridge-5-flipx.jpg": "d8f80f31e0f417b00e37f5dd028f980fb36ed12a9662c1e233e64c634e9c64dd",
    "dih-bridge-6-flipy.jpg": "0dad259bb1a1bd18d362576556da32a1e63b7380c2374b4866b3c6c91b89ce77",
    "dih-bridge-7-flip-plus-1.jpg": "f0a5e10271dcc0bd9c5309720fff018de34ef1e8ada9a956d2967ade1ea91a50",
    "dih-bridge-8-flip-minus-1.jpg": "69f05aa8a4996a17c146a2da5aaaab07b61b5b60f8fc07fc83c3d0740bfcb0fa",
}


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference_picture(shared_data, name):
    return np.asarray(Image.open(shared_data / "pdq" / "images" / name).convert("RGB"))


def distance(left, right):
    return int(np.bitwise_count(left ^ right).sum())


def same(left, right):
    return (left.codes == right.codes).all() and (left.quality, left.usable) == (right.quality, right.usable)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", COMPILED)
def test_a_picture_gets_the_code_that_the_compiled_reference_publishes(shared_data, name):
    code = PdqC512().encode(reference_picture(shared_data, name)).codes[0]
    published = np.frombuffer(bytes.fromhex(COMPILED[name]), np.uint8)
    assert distance(code, published) == (2 if name in OFF_BY_TWO_BITS else 0)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", PYTHON)
def test_codes_of_the_python_reference_are_within_its_published_tolerance(shared_data, name):
    code = PdqC512().encode(reference_picture(shared_data, name)).codes[0]
    assert distance(code, np.frombuffer(bytes.fromhex(PYTHON[name]), np.uint8)) <= 10


@pytest.mark.shared_data
def test_the_two_recipes_are_near_each_other_and_not_the_same(shared_data):
    distances = []
    for folder in ("pdq/images", "photos", "clip/images"):
        for path in sorted((shared_data / folder).iterdir()):
            if path.name != "truncated.jpg":
                pixels = np.asarray(Image.open(path).convert("RGB"))
                full, shrunk = Pdq().encode(pixels), PdqC512().encode(pixels)
                if full.usable and max(pixels.shape) > 512:
                    distances.append(distance(full.codes[0], shrunk.codes[0]))
    assert len(distances) >= 20
    assert max(distances) <= 18
    assert min(distances) > 0


@pytest.mark.parametrize("side", [5, 100, 511, 512, 513, 768, 1000, 1024, 1025, 4999])
def test_the_chosen_positions_are_those_that_a_pointer_walks_through(side):
    # As CImg lays it out: steps between whole positions, each the difference of two truncated products.
    position, walked = 0, []
    for x in range(512):
        walked.append(position)
        position += int((x + 1.0) * side / 512) - int(x * 1.0 * side / 512)
    assert places(side).tolist() == walked


@pytest.mark.parametrize("size", [(513, 513), (2000, 600), (600, 40), (40, 2000), (4, 600)])
def test_a_picture_with_a_longer_side_is_hashed_as_512_by_512_of_its_own_pixels(size):
    pixels = noise(*size)
    shrunk = np.array([[pixels[y * size[0] // 512, x * size[1] // 512] for x in range(512)] for y in range(512)])
    assert (at_most_512(pixels) == shrunk).all()
    assert same(PdqC512().encode(pixels), Pdq().encode(shrunk))


@pytest.mark.parametrize("size", [(512, 512), (512, 5), (300, 400), (64, 64), (5, 5)])
def test_a_picture_without_a_longer_side_is_hashed_as_it_is(size):
    pixels = noise(*size)
    assert at_most_512(pixels) is pixels
    assert same(PdqC512().encode(pixels), Pdq().encode(pixels))


def test_a_side_under_five_pixels_has_no_code_unless_the_other_is_shrunk():
    assert PdqC512().encode(noise(4, 512)) is None
    assert PdqC512().encode(noise(4, 513)) is not None
