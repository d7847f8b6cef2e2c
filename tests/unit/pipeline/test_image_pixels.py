from __future__ import annotations

import io
import struct
from typing import Any

import hostile_images as hostile
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from manifests.records import FaultKind
from pipeline.image_pixels import DecodeLimits, decode_image

LIMITS = DecodeLimits(max_bytes=4 << 20, max_pixels=2_000_000)
ORIENTATION = 0x0112
# How a picture must be stored for the orientation 1 to 8 to bring it back: the inverse of each turn.
TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
)


@pytest.fixture(autouse=True)
def _keep_pillow_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


def decode(data: bytes) -> tuple[NDArray[np.uint8], int] | FaultKind:
    """Pixels and orientation; here, in the test's own process, since these images are harmless."""
    room = np.zeros(3 * LIMITS.max_pixels, np.uint8)
    decoded = decode_image(data, LIMITS, room)
    if isinstance(decoded, FaultKind):
        return decoded
    shape = (decoded.height, decoded.width, 3)
    return room[: decoded.height * decoded.width * 3].reshape(shape), decoded.orientation


def pixels(data: bytes) -> NDArray[np.uint8]:
    result = decode(data)
    assert not isinstance(result, FaultKind)
    return result[0]


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_every_kind_of_jpeg_equals_pillow(mode: str, options: dict[str, Any]) -> None:
    data = hostile.encoded(hostile.drawn(mode=mode), "jpeg", **options)
    assert hostile.same(pixels(data), Image.open(io.BytesIO(data)))


def test_ycck_equals_pillow() -> None:
    inks = hostile.encoded(hostile.drawn(mode="CMYK"), "jpeg")
    transform = inks.index(b"Adobe") + 11
    ycck = inks[:transform] + b"\x02" + inks[transform + 1 :]
    assert hostile.same(pixels(ycck), Image.open(io.BytesIO(ycck)))


def test_a_sampling_without_a_name_equals_pillow() -> None:
    plain = hostile.encoded(Image.new("RGB", (16, 8), (128, 128, 128)), "jpeg", subsampling=0)
    frame, scan = plain.index(b"\xff\xc0"), plain.index(b"\xff\xda")
    # The second component is twice as wide as the first. One unit of four flat blocks in the standard codes.
    unusual = plain[: frame + 14] + b"\x21" + plain[frame + 15 : scan + 14] + b"\x28\x00\x3f\xff\xd9"
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg_header(unusual)
    assert (pixels(unusual) == 128).all()
    assert hostile.same(pixels(unusual), Image.open(io.BytesIO(unusual)))


@pytest.mark.parametrize("name", ["png", "webp", "tiff", "jpeg"])
def test_all_orientations_of_one_picture_come_out_the_same(name: str) -> None:
    upright = hostile.drawn()
    for orientation, turn in enumerate(TURNS, start=1):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = upright if turn is None else upright.transpose(turn)
        data = hostile.encoded(stored, name, exif=exif)
        result = decode(data)
        assert not isinstance(result, FaultKind)
        found, applied = result
        assert applied == orientation
        if name == "jpeg":
            assert hostile.same(found, ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert np.abs(found.astype(int) - rgb(upright)).mean() < (8 if name == "jpeg" else 1e-9)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *((mode, "png") for mode in ("1", "L", "LA", "P", "RGBA")),
        *((mode, "tiff") for mode in ("L", "P", "RGBA", "CMYK", "YCbCr")),
        ("P", "gif"),
        ("1", "bmp"),
        ("RGBA", "webp"),
    ],
)
def test_every_mode_becomes_rgb(mode: str, name: str) -> None:
    image = hostile.drawn(mode=mode)
    assert np.array_equal(pixels(hostile.encoded(image, name)), rgb(image))


def test_lab_becomes_rgb() -> None:
    image = hostile.drawn()
    found = pixels(hostile.encoded(image.convert("LAB"), "tiff"))
    assert np.abs(found.astype(int) - rgb(image)).mean() < 4


def test_alpha_is_matted_on_white() -> None:
    colours = np.zeros((1, 256, 4), np.uint8)
    colours[0, :, 0] = 200
    colours[0, :, 3] = np.arange(256)
    alpha = np.arange(256) / 255
    expected = np.stack([200 * alpha + 255 * (1 - alpha), 255 * (1 - alpha), 255 * (1 - alpha)], axis=-1)
    found = pixels(hostile.encoded(Image.fromarray(colours), "png"))
    assert np.abs(found[0] - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0)).convert(mode)
    image.paste(255 if mode in ("1", "L") else (255, 0, 0) if mode == "RGB" else 0, (0, 0, 2, 4))
    black = image.getpixel((7, 0))
    found = pixels(hostile.encoded(image, "png", transparency=black))
    assert (found[:, 2:] == 255).all()


@pytest.mark.parametrize("name", ["png", "gif", "webp"])
def test_palette_transparency_is_white(name: str) -> None:
    image = Image.new("RGBA", (8, 4), (10, 20, 30, 0))
    image.paste((200, 0, 0, 255), (0, 0, 4, 4))
    found = pixels(hostile.encoded(image if name == "gif" else image.quantize(), name))
    assert (found[:, 4:] == 255).all()
    assert (found[:, :4] == (200, 0, 0)).all()


def test_transparent_grey_of_two_bits_is_scaled_before_it_is_compared() -> None:
    chunk = hostile.png_chunk(b"tRNS", struct.pack(">H", 1))
    data = hostile.png(4, 1, depth=2, colour=0, rows=b"\0\x1b", extra=chunk)
    assert pixels(data)[0, :, 0].tolist() == [0, 255, 170, 255]


def test_sixteen_bit_grey_is_scaled_and_rounded() -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32768, 65406, 65407, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 127, 128, 254, 255, 255]
    for name in ("png", "tiff"):
        found = pixels(hostile.encoded(Image.fromarray(values), name))
        assert found[0, :, 0].tolist() == expected
        assert (found[..., 0] == found[..., 2]).all()
    keyed = hostile.png(
        2, 1, depth=16, colour=0, rows=b"\0\x01\x02\x03\x04", extra=hostile.png_chunk(b"tRNS", b"\x01\x02")
    )
    assert pixels(keyed)[0, :, 0].tolist() == [255, 3]


def test_sixteen_bit_grey_in_both_byte_orders_of_tiff() -> None:
    values = np.arange(0, 65536, 257, np.uint16).reshape(16, 16)
    for order, kind in ((b"II*\0", "<"), (b"MM\0*", ">")):
        for photometric, expected in ((1, list(range(256))), (0, None)):
            tags = [(256, 16), (257, 16), (258, 16), (259, 1), (262, photometric), (273, 122), (277, 1), (278, 16)]
            entries = b"".join(struct.pack(f"{kind}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
            entries += struct.pack(f"{kind}HHIHH", 279, 3, 1, 512, 0)
            data = order + struct.pack(f"{kind}IH", 8, 9) + entries + bytes(4)
            found = decode(data.ljust(122, b"\0") + values.astype(f"{kind}u2").tobytes())
            if expected is None:  # white is zero: Pillow would not invert it
                assert found is FaultKind.UNDECODABLE
            else:
                assert not isinstance(found, FaultKind)
                assert found[0][..., 0].ravel().tolist() == expected


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_scale_are_no_picture(mode: str) -> None:
    assert decode(hostile.encoded(hostile.drawn(mode="L").convert(mode), "tiff")) is FaultKind.UNDECODABLE


def test_sixteen_bit_colour_with_a_transparent_colour_is_undecodable() -> None:
    chunk = hostile.png_chunk(b"tRNS", bytes(6))
    assert pixels(hostile.png(1, 1, depth=16, colour=2, rows=bytes(7))).tolist() == [[[0, 0, 0]]]
    keyed = hostile.png(1, 1, depth=16, colour=2, rows=bytes(7), extra=chunk)
    assert decode(keyed) is FaultKind.UNDECODABLE


def test_a_damaged_jpeg_is_a_fault_even_where_a_lenient_decoder_would_show_grey() -> None:
    whole = hostile.encoded(hostile.drawn(300, 300), "jpeg")
    cut_inside = whole[: len(whole) // 2] + b"\xff\xd9"
    assert rgb(Image.open(io.BytesIO(cut_inside))).shape == (300, 300, 3)
    assert decode(cut_inside) in (FaultKind.TRUNCATED, FaultKind.UNDECODABLE)
