from __future__ import annotations

import io
import struct

import hostile_images as hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from manifests.tars import HEAD_BYTES, sniff
from pipeline.image_formats import image_end, is_padding, measure

FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff")
WHOLE = {
    "jpeg": hostile.encoded(hostile.drawn(), "jpeg"),
    "jpeg progressive": hostile.encoded(hostile.drawn(), "jpeg", progressive=True),
    "jpeg with restarts": hostile.encoded(hostile.drawn(), "jpeg", restart_marker_blocks=1),
    "png": hostile.encoded(hostile.drawn(), "png"),
    "webp": hostile.encoded(hostile.drawn(), "webp"),
    "webp lossy": hostile.encoded(
        hostile.drawn(mode="RGBA"), "webp", lossless=False, exif=b"Exif\0\0II*\0\x08\0\0\0"
    ),
    "gif": hostile.encoded(hostile.drawn(), "gif"),
    "gif interlaced": hostile.encoded(hostile.drawn(), "gif", interlace=True, comment=b"a note"),
    "bmp": hostile.encoded(hostile.drawn(), "bmp"),
    "bmp palette": hostile.encoded(hostile.drawn(mode="P"), "bmp"),
    "tiff": hostile.encoded(hostile.drawn(), "tiff"),
    "tiff packed": hostile.encoded(hostile.drawn(), "tiff", compression="tiff_lzw"),
    "tiff in strips": hostile.encoded(hostile.drawn(200, 700), "tiff", strip_size=4096),
}


def bitmap_in_runs(*runs: int) -> bytes:
    body = bytes(runs)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(body), 0, 0, 2, 0)
    palette = bytes((0, 0, 0, 0, 255, 255, 255, 0))
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


WHOLE["bmp in runs"] = bitmap_in_runs(4, 1, 0, 0, 0, 3, 1, 0, 1, 0, 1, 1, 0, 1)


def frames(name: str, count: int) -> bytes:
    pictures = [hostile.drawn(20 + index, 20) for index in range(count)]
    if name in ("gif", "png", "webp"):
        pictures = [hostile.drawn(20, 20).rotate(90 * index) for index in range(count)]
    return hostile.encoded(pictures[0], name, save_all=True, append_images=pictures[1:])


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_image_ends_at_its_last_byte(name: str) -> None:
    assert sniff(WHOLE[name][:HEAD_BYTES]) == name.partition(" ")[0]
    assert image_end(WHOLE[name]) == len(WHOLE[name])


@pytest.mark.parametrize("name", WHOLE)
@given(rest=st.binary(max_size=64))
def test_what_follows_an_image_does_not_move_its_end(name: str, rest: bytes) -> None:
    assert image_end(WHOLE[name] + rest) == len(WHOLE[name])


@pytest.mark.parametrize("name", WHOLE)
def test_no_end_is_found_in_any_part_of_an_image(name: str) -> None:
    whole = WHOLE[name]
    for cut in {*range(0, len(whole), max(1, len(whole) // 100)), len(whole) - 1}:
        assert image_end(whole[:cut]) is None


HEADS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"GIF89a", b"II*\0", b"MM\0*"]
HEADS += [b"BM" + bytes(12) + bytes((size,)) + bytes(3) for size in (12, 40, 124)]
HEADS += [whole[:cut] for whole in WHOLE.values() for cut in (40, 200)]


@given(head=st.sampled_from(HEADS), body=st.binary(max_size=400))
def test_hostile_bytes_give_an_end_within_them_or_none(head: bytes, body: bytes) -> None:
    extent = measure(head + body)
    assert extent is None or (0 < extent.end <= len(head + body) and extent.frames >= 1)


@given(name=st.sampled_from(sorted(WHOLE)), at=st.integers(0), value=st.integers(0, 255))
def test_one_changed_byte_gives_an_end_within_the_bytes_or_none(name: str, at: int, value: int) -> None:
    changed = bytearray(WHOLE[name])
    changed[at % len(changed)] = value
    end = image_end(bytes(changed))
    assert end is None or 0 < end <= len(changed)


@pytest.mark.parametrize(
    "text", [b"BMW 320i for sale, one owner, low mileage", b"RIFF raff", b"GIF", b"MMXX", b"", b"BM"]
)
def test_a_text_is_not_an_image(text: bytes) -> None:
    assert sniff(text[:HEAD_BYTES]) is None
    assert measure(text) is None


def test_a_thumbnail_inside_a_jpeg_does_not_end_it() -> None:
    thumbnail = hostile.encoded(hostile.drawn(16, 16), "jpeg")
    whole = hostile.encoded(hostile.drawn(), "jpeg", exif=b"Exif\0\0" + thumbnail)
    assert whole.count(b"\xff\xd9") >= 2
    assert image_end(whole) == len(whole)


def test_fill_bytes_before_a_marker_are_part_of_a_jpeg() -> None:
    whole = WHOLE["jpeg"]
    filled = whole[:2] + b"\xff\xff\xff" + whole[2:-2] + b"\xff\xff" + whole[-2:]
    assert image_end(filled + b"tail") == len(filled)


@pytest.mark.parametrize("name", ["gif", "png", "webp", "tiff", "mpo"])
def test_stored_pictures_are_counted_as_pillow_counts_them(name: str) -> None:
    several = frames(name, 3)
    with Image.open(io.BytesIO(several)) as image:
        assert sum(1 for _ in ImageSequence.Iterator(image)) == 3
    extent = measure(several)
    assert extent is not None
    assert extent.frames == 3
    assert is_padding(several[extent.end :])  # Pillow rounds TIFF pages up to 16 bytes


def test_a_multi_picture_index_counts_even_where_its_pictures_are_missing() -> None:
    several = frames("mpo", 2)
    first = several[: several.index(b"\xff\xd9\xff\xd8") + 2]
    extent = measure(first)
    assert extent is not None
    assert extent.frames == 2


def test_a_jpeg_behind_a_jpeg_without_an_index_is_not_part_of_it() -> None:
    assert image_end(WHOLE["jpeg"] * 2) == len(WHOLE["jpeg"])


def test_a_picture_in_a_sub_directory_counts() -> None:
    tags = struct.pack("<HHHII", 1, 330, 13, 1, 26) + bytes(4)
    strip = struct.pack("<HHHIIHHII", 2, 273, 4, 1, 60, 279, 4, 1, 10) + bytes(4)
    whole = b"II*\0" + struct.pack("<I", 8) + tags + strip
    extent = measure(whole + bytes(70 - len(whole)))
    assert extent is not None
    assert (extent.end, extent.frames) == (70, 2)


@pytest.mark.parametrize("following", [8, 10])
def test_tiff_directories_that_loop_or_overlap_have_no_end(following: int) -> None:
    entries = b"".join(struct.pack("<HHII", 256, 3, 1, 1) for _ in range(3))
    assert measure(b"II*\0" + struct.pack("<IH", 8, 3) + entries + struct.pack("<I", following) + bytes(20)) is None


@pytest.mark.parametrize("rest", [b"", b"\0" * 9, b"\xff", b"\n", b" \r\n\t"])
def test_one_kind_of_padding_is_harmless(rest: bytes) -> None:
    assert is_padding(rest)


@pytest.mark.parametrize("rest", [b"\0\xff", b"PK\x03\x04", b"\n\0", b"\0\0\x01", b"a"])
def test_anything_else_is_not_padding(rest: bytes) -> None:
    assert not is_padding(rest)
