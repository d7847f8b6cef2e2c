"""Images made smaller for a release: sizes, names, and that nothing but pixels goes on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scrapes import draw, encode

from pipeline.decode import DecodeLimits, Decoder, Picture
from pipeline.kept_tars import _jpeg_extension
from pipeline.resize import encode_jpeg


def picture(width: int, height: int) -> Picture:
    return Picture(np.full((height, width, 3), (200, 90, 30), np.uint8), "png", width, height, 1)


@pytest.mark.parametrize(
    ("size", "side", "wanted"),
    [
        ((640, 480), 240, (320, 240)),
        ((480, 641), 240, (240, 320)),
        ((640, 240), 240, (640, 240)),
        ((100, 80), 240, (100, 80)),
        ((1, 1), 1, (1, 1)),
        ((3, 70_000), 240, (3, 65_500)),
        ((70_000, 400), 256, (44_800, 256)),
    ],
)
def test_the_shorter_side_comes_down_and_never_goes_up(size, side, wanted):
    with Image.open(io.BytesIO(encode_jpeg(picture(*size), side=side, quality=95))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", wanted)


def test_only_pixels_go_on_upright_and_each_time_the_same():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "what a camera says of its owner"
    data = encode(draw(1, size=(300, 200)), "JPEG", exif=exif, comment=b"its owner", icc_profile=b"its owner")
    with Decoder(DecodeLimits()) as decoder:
        made = [encode_jpeg(one, side=100, quality=90) for one in decoder.decode([data, data])]
    assert made[0] == made[1]
    assert b"owner" not in made[0]
    with Image.open(io.BytesIO(made[0])) as image:
        assert (image.size, len(image.getexif())) == ((100, 150), 0)
        seen = np.asarray(image).astype(int)
    with Image.open(io.BytesIO(data)) as image:
        upright = image.transpose(Image.Transpose.ROTATE_270).resize((100, 150), Image.Resampling.LANCZOS)
    assert np.abs(seen - np.asarray(upright).astype(int)).mean() < 6


@pytest.mark.parametrize(
    ("extension", "taken", "wanted"),
    [
        ("jpg", {"jpg", "txt"}, "jpg"),
        ("second.jpeg", {"second.jpeg"}, "second.jpeg"),
        ("png", {"png", "json"}, "jpg"),
        ("second.webp", {"jpg", "second.webp"}, "second.jpg"),
        ("png", {"png", "jpg"}, "png.jpg"),
        ("png", {"png", "jpg", "png.jpg"}, "png.jpg.jpg"),
        ("", {""}, ""),
    ],
)
def test_an_image_is_called_jpg_unless_that_is_another_member(extension, taken, wanted):
    assert _jpeg_extension(extension, taken) == wanted
