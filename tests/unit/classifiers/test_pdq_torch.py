from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers.hashes.pdq import Pdq, encode_fast
from classifiers.hashes.pdq_c512 import PdqC512
from classifiers.hashes.pdq_torch import encode_batch, encode_linearly

SIZES = [
    (5, 5),
    (5, 300),
    (64, 64),
    (64, 65),
    (127, 128),
    (129, 256),
    (256, 256),
    (512, 384),
    (2049, 40),
    (40, 2049),
]
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_CUDA)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=["highest", "medium"])
def precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def noise(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def waves(height, width, seed):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    grey = sum(
        random.normal(size=3) * np.cos(2 * np.pi * (random.uniform(0, 9) * y + random.uniform(0, 9) * x))[..., None]
        for _ in range(12)
    )
    return ((grey - grey.min()) / np.ptp(grey) * 255).astype(np.uint8)


def boxes(height, width, seed):
    random = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.uint8) + random.integers(0, 256, 3, dtype=np.uint8)
    for _ in range(30):
        top, left = random.integers(0, height), random.integers(0, width)
        below, right = top + random.integers(1, height + 1), left + random.integers(1, width + 1)
        pixels[top:below, left:right] = random.integers(0, 256, 3)
    return pixels


def blank(height, width, seed):
    return np.full((height, width, 3), seed, np.uint8)


def same(left, right):
    assert type(left.quality) is type(right.quality)
    assert type(left.usable) is type(right.usable)
    assert left.codes.dtype == right.codes.dtype
    return (left.codes == right.codes).all() and (left.quality, left.usable) == (right.quality, right.usable)


def assert_equal_to_one_by_one(pictures, device, kind):
    batch = encode_batch(torch.as_tensor(np.stack(pictures), device=device), kind)
    assert len(batch) == len(pictures)
    assert all(same(code, kind.encode(pixels)) for code, pixels in zip(batch, pictures, strict=True))


@pytest.mark.parametrize("kind", [Pdq(), PdqC512()], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_batch_has_the_codes_of_its_pictures(device, kind, height, width):
    pictures = [make(height, width, seed) for make in (noise, waves, boxes, blank) for seed in range(4)]
    assert_equal_to_one_by_one(pictures, device, kind)


def test_no_precision_setting_of_the_host_changes_a_code(device, precision):
    pictures = [make(300, 400, seed) for make in (noise, waves, boxes) for seed in range(4)]
    assert_equal_to_one_by_one(pictures, device, Pdq())


@pytest.mark.shared_data
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1024, 768), (100, 90)])
def test_photographs_have_their_codes_and_nearly_all_without_the_processor(device, shared_data, size):
    paths = [path for path in sorted((shared_data / "photos").iterdir()) if path.name != "truncated.jpg"]
    pictures = [np.asarray(Image.open(path).convert("RGB").resize(size)) for path in paths]
    assert_equal_to_one_by_one(pictures, device, Pdq())
    sure = encode_linearly(torch.as_tensor(np.stack(pictures), device=device)).sure
    assert int(sure.sum()) >= len(pictures) - 2


def test_pictures_that_hang_on_rounding_are_left_to_the_reference(device):
    hanging = [pixels for seed in range(400) if encode_fast(pixels := noise(60, 60, seed)) is None]
    assert len(hanging) >= 2
    assert not encode_linearly(torch.as_tensor(np.stack(hanging), device=device)).sure.any()
    assert_equal_to_one_by_one([*hanging, noise(60, 60, 401)], device, Pdq())


def test_a_picture_is_hashed_alike_in_any_company(device):
    pictures = torch.as_tensor(np.stack([waves(90, 120, seed) for seed in range(9)]), device=device)
    together = encode_batch(pictures, Pdq())
    alone = [encode_batch(pictures[row : row + 1], Pdq())[0] for row in range(9)]
    assert all(same(left, right) for left, right in zip(together, alone, strict=True))


def test_no_pictures_have_no_codes(device):
    assert encode_batch(torch.zeros((0, 90, 90, 3), dtype=torch.uint8, device=device), Pdq()) == []


def test_pictures_that_cannot_be_hashed_have_no_code(device):
    assert encode_batch(torch.zeros((3, 4, 90, 3), dtype=torch.uint8, device=device), Pdq()) == [None] * 3


@pytest.mark.parametrize(
    ("shape", "dtype"), [((50, 50, 3), torch.uint8), ((2, 3, 50, 50), torch.uint8), ((2, 50, 50, 3), torch.float32)]
)
def test_anything_but_batches_of_rgb_bytes_is_refused(shape, dtype):
    with pytest.raises(ValueError, match="expected N x H x W x 3 uint8"):
        encode_batch(torch.zeros(shape, dtype=dtype), Pdq())
