"""One picture in every colour mode and EXIF orientation, through the decoder: the right hash or a fault."""

from __future__ import annotations

import io

import numpy as np
import pdqhash
import pytest
from PIL import Image
from scrapes import draw

from classifiers.hashes.pdq import Pdq
from manifests.records import FaultKind
from pipeline.decode import DecodeLimits, Decoder, Picture

PICTURE = draw(77, size=(400, 300))
RAMP = Image.linear_gradient("L").resize(PICTURE.size).point(lambda value: 255 if value > 60 else 4 * value)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def with_alpha(mode: str) -> Image.Image:
    picture = PICTURE.convert(mode)
    picture.putalpha(RAMP)
    return picture


def on_white(picture: Image.Image) -> Image.Image:
    full = picture.convert("RGBA")
    white = Image.new("RGBA", full.size, "white")
    return Image.alpha_composite(white, full).convert("RGB")


def sixteen() -> Image.Image:
    return Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257)


CASES = {
    "1 png": (saved(PICTURE.convert("1"), "PNG"), PICTURE.convert("1").convert("RGB")),
    "1 tiff": (saved(PICTURE.convert("1"), "TIFF"), PICTURE.convert("1").convert("RGB")),
    "L jpeg": (saved(PICTURE.convert("L"), "JPEG", quality=98), PICTURE.convert("L").convert("RGB")),
    "L png": (saved(PICTURE.convert("L"), "PNG"), PICTURE.convert("L").convert("RGB")),
    "LA png": (saved(with_alpha("L"), "PNG"), on_white(with_alpha("L"))),
    "P png": (saved(PICTURE.quantize(64), "PNG"), PICTURE.quantize(64).convert("RGB")),
    "P gif": (saved(PICTURE.quantize(64), "GIF"), PICTURE.quantize(64).convert("RGB")),
    "PA png": (
        saved(PICTURE.quantize(64), "PNG", transparency=bytes([128] * 64)),
        on_white(
            Image.merge("RGBA", (*PICTURE.quantize(64).convert("RGB").split(), Image.new("L", (400, 300), 128)))
        ),
    ),
    "RGBA png": (saved(with_alpha("RGB"), "PNG"), on_white(with_alpha("RGB"))),
    "RGBA webp": (saved(with_alpha("RGB"), "WEBP", lossless=True, exact=True), on_white(with_alpha("RGB"))),
    "CMYK jpeg": (saved(PICTURE.convert("CMYK"), "JPEG", quality=98), PICTURE),
    "CMYK tiff": (saved(PICTURE.convert("CMYK"), "TIFF"), PICTURE),
    "YCbCr jpeg": (saved(PICTURE.convert("YCbCr"), "JPEG", quality=98), PICTURE),
    "YCbCr tiff": (saved(PICTURE.convert("YCbCr"), "TIFF"), PICTURE),
    "LAB tiff": (saved(PICTURE.convert("RGB"), "TIFF"), PICTURE),
    "I;16 png": (saved(sixteen(), "PNG"), PICTURE.convert("L").convert("RGB")),
    "I;16 tiff": (saved(sixteen(), "TIFF"), PICTURE.convert("L").convert("RGB")),
    "F tiff": (saved(PICTURE.convert("F"), "TIFF"), PICTURE.convert("L").convert("RGB")),
    "bmp": (saved(PICTURE, "BMP"), PICTURE),
}


def reference(picture: Image.Image) -> np.ndarray:
    bits, _ = pdqhash.compute(np.asarray(picture))
    return np.packbits(np.asarray(bits, np.uint8))


@pytest.fixture(scope="module")
def decoder():
    with Decoder(DecodeLimits()) as made:
        yield made


def code_or_fault(decoder: Decoder, data: bytes) -> np.ndarray | FaultKind:
    (found,) = [
        Pdq().encode(item.pixels).codes[0] if isinstance(item, Picture) else item for item in decoder.decode([data])
    ]
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_mode_gives_the_hash_of_its_rgb_form_or_a_fault(decoder, name):
    data, rgb = CASES[name]
    found = code_or_fault(decoder, data)
    if isinstance(found, FaultKind):
        assert (name, found) == ("F tiff", FaultKind.UNDECODABLE)
        return
    assert int(np.bitwise_count(found ^ reference(rgb)).sum()) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_hash_of_the_upright_picture(decoder, orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = PICTURE if orientation == 1 else PICTURE.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = code_or_fault(decoder, saved(stored, "JPEG", quality=98, exif=exif))
    assert not isinstance(found, FaultKind)
    assert int(np.bitwise_count(found ^ reference(PICTURE)).sum()) <= 2
