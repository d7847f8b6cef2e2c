from __future__ import annotations

import io
import struct

import hostile_images as hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from manifests.records import FaultKind
from pipeline.decode import DecodeLimits, Decoder
from pipeline.exif_thumbnail import MAX_PARTS, MAX_THUMBNAIL_BYTES, find_thumbnail

THUMBNAIL = hostile.encoded(hostile.drawn(32, 24), "jpeg")
SETTINGS = settings(max_examples=200, deadline=None)


def block(
    thumbnail=THUMBNAIL, *, order="<", place=None, length=None, kinds=(4, 4), tags=(0x0201, 0x0202), second=None
):
    """An EXIF block: a first directory with an orientation, a second one with a thumbnail."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    first = struct.pack(order + "HHHIHH", 1, 0x0112, 3, 1, 1, 0)
    entries = 3
    start = 8 + len(first) + 4
    body = start + 2 + 12 * entries + 4
    values = (body if place is None else place, len(thumbnail) if length is None else length)
    directory = struct.pack(order + "HHHIHH", entries, 0x0103, 3, 1, 6, 0)
    for tag, kind, value in zip(tags, kinds, values, strict=True):
        field = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, 1) + field
    link = struct.pack(order + "I", start if second is None else second)
    return head + first + link + directory + bytes(4) + thumbnail


def stored(exif, name, **options):
    return hostile.encoded(hostile.drawn(), name, exif=b"Exif\0\0" + exif, **options)


def jpeg_with(*segments):
    plain = hostile.encoded(hostile.drawn(), "jpeg")
    parts = [struct.pack(">BBH", 0xFF, code, len(body) + 2) + body for code, body in segments]
    return plain[:2] + b"".join(parts) + plain[2:]


def chunk(kind, body):
    return struct.pack(">I4s", len(body), kind) + body + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_a_thumbnail_is_found_where_pillow_finds_it(name, order):
    data = stored(block(order=order), name)
    exif = Image.open(io.BytesIO(data)).getexif()
    assert exif.get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(THUMBNAIL)
    assert find_thumbnail(data) == THUMBNAIL


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_thumbnail_in_the_second_directory_of_a_tiff_is_found(order):
    assert find_thumbnail(block(order=order)) == THUMBNAIL


def test_a_webp_block_without_the_prefix_is_found():
    body = block() + bytes(len(block()) % 2)
    chunks = struct.pack("<4sI", b"VP8 ", 2) + b"ab" + struct.pack("<4sI", b"EXIF", len(block())) + body
    assert find_thumbnail(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks) == THUMBNAIL


def test_an_exif_chunk_behind_the_pixels_of_a_png_is_found():
    plain = hostile.encoded(hostile.drawn(), "png")
    assert find_thumbnail(plain[:-12] + chunk(b"eXIf", block()) + plain[-12:]) == THUMBNAIL


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "bmp", "tiff"])
def test_an_image_without_a_thumbnail_has_none(name):
    assert find_thumbnail(hostile.encoded(hostile.drawn(), name)) is None


def test_an_exif_block_without_a_second_directory_has_none():
    assert find_thumbnail(stored(block(second=0), "jpeg")) is None


def test_the_first_exif_segment_that_has_a_thumbnail_gives_it():
    exif = b"Exif\0\0"
    segments = [(0xE1, exif + block(second=0)), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xE1, exif + block())]
    assert find_thumbnail(jpeg_with(*segments)) == THUMBNAIL
    assert find_thumbnail(jpeg_with((0xE2, exif + block()))) is None


def test_fill_bytes_and_bare_markers_are_stepped_over():
    data = jpeg_with((0xE1, b"Exif\0\0" + block()))
    assert find_thumbnail(data[:2] + b"\xff\x01\xff\xff\xff" + data[2:]) == THUMBNAIL


def test_bytes_behind_the_thumbnail_are_left_out():
    assert find_thumbnail(stored(block(THUMBNAIL + b"maker's notes"), "jpeg")) == THUMBNAIL


def test_a_thumbnail_that_is_cut_short_is_given_as_it_is():
    assert find_thumbnail(stored(block(THUMBNAIL[:-9], length=len(THUMBNAIL)), "jpeg")) == THUMBNAIL[:-9]


def test_short_integers_are_read():
    assert find_thumbnail(stored(block(kinds=(3, 3)), "jpeg")) == THUMBNAIL
    assert find_thumbnail(stored(block(kinds=(3, 3), order=">"), "jpeg")) == THUMBNAIL


@pytest.mark.parametrize(
    "damage",
    [
        {"length": 0},
        {"length": 0xFFFFFFFF},
        {"place": 0xFFFFFFFF},
        {"place": 0},
        {"second": 0xFFFFFFF0},
        {"second": 8},  # a directory that is its own successor
        {"kinds": (4, 5)},
        {"tags": (0x0201, 0x0201)},
        {"thumbnail": b"GIF89a" + bytes(40)},
        {"thumbnail": b""},
    ],
    ids=str,
)
def test_a_damaged_block_gives_none(damage):
    assert find_thumbnail(stored(block(**damage), "jpeg")) is None


def test_a_thumbnail_above_the_bound_gives_none():
    body = THUMBNAIL + bytes(MAX_THUMBNAIL_BYTES - len(THUMBNAIL))
    assert find_thumbnail(stored(block(body), "png")) == THUMBNAIL
    assert find_thumbnail(stored(block(body + b"\0"), "png")) is None


def test_no_more_parts_are_looked_at_than_the_bound():
    head, exif = hostile.encoded(hostile.drawn(), "png")[:33], chunk(b"eXIf", block())
    empty = chunk(b"tEXt", b"")
    assert find_thumbnail(head + empty * (MAX_PARTS - 2) + exif) == THUMBNAIL
    assert find_thumbnail(head + empty * MAX_PARTS + exif) is None
    assert find_thumbnail(b"\xff\xd8" + b"\xff\xe0\x00\x02" * MAX_PARTS + jpeg_with((0xE1, block()))[2:]) is None


WHOLE = [stored(block(), name) for name in ("jpeg", "png", "webp")] + [block(), block(order=">")]


@SETTINGS
@given(st.sampled_from(WHOLE), st.data())
def test_hostile_bytes_give_a_jpeg_within_them_or_none(whole, data):
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(len(whole), 200) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(whole)))])
    found = find_thumbnail(damaged)
    assert found is None or (found.startswith(b"\xff\xd8\xff") and found in damaged)


HEADS = [
    b"\xff\xd8\xff\xe1",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x10\0\0\0WEBP",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"",
]


@SETTINGS
@given(st.sampled_from(HEADS), st.binary(max_size=300))
def test_random_bytes_never_raise(head, body):
    assert find_thumbnail(head + body) is None or b"\xff\xd8\xff" in body


def test_the_isolated_decoder_takes_a_thumbnail_like_any_image():
    found = find_thumbnail(stored(block(), "jpeg"))
    with Decoder(DecodeLimits()) as decoder:
        for picture in decoder.decode([found]):
            assert not isinstance(picture, FaultKind)
            assert (picture.width, picture.height) == (32, 24)
            expected = np.asarray(Image.open(io.BytesIO(THUMBNAIL))).astype(int)
            assert np.abs(picture.pixels - expected).max() <= 2
