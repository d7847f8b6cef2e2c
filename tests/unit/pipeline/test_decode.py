from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hostile_images as hostile
import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from manifests.records import FaultKind
from pipeline.decode import DecodeLimits, Decoder, Picture
from pipeline.decode_worker import FORMATS, REPLY, pack_reply, unpack_reply
from pipeline.errors import RunError
from pipeline.image_pixels import Decoded

LIMITS = DecodeLimits(max_bytes=4 << 20, max_pixels=2_000_000)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(LIMITS) as decoder:
        yield decoder


def decode(decoder: Decoder, data: bytes) -> FaultKind | NDArray[np.uint8]:
    (result,) = (item if isinstance(item, FaultKind) else item.pixels.copy() for item in decoder.decode([data]))
    return result


def pixels(decoder: Decoder, data: bytes) -> NDArray[np.uint8]:
    result = decode(decoder, data)
    assert not isinstance(result, FaultKind)
    return result


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_comes_out_as_pillow_shows_it_and_says_what_it_was(decoder: Decoder, name: str) -> None:
    data = hostile.encoded(hostile.drawn(), name)
    with closing(decoder.decode([data])) as results:
        picture = next(results)
        assert isinstance(picture, Picture)
        assert (picture.format, picture.width, picture.height, picture.orientation) == (name, 97, 61, 1)
        assert picture.pixels.flags.c_contiguous
        assert hostile.same(picture.pixels, Image.open(io.BytesIO(data)))


@pytest.mark.shared_data
def test_every_shared_photo_equals_pillow(decoder: Decoder, shared_data: Path) -> None:
    found = sorted(shared_data.rglob("*.jpg")) + sorted((shared_data / "photos").glob("*.png"))
    assert len(found) > 30
    for path in found:
        result = decode(decoder, path.read_bytes())
        if path.name == "truncated.jpg":
            assert result is FaultKind.TRUNCATED
        else:
            assert isinstance(result, np.ndarray)
            assert hostile.same(result, Image.open(path)), path.name


@pytest.mark.parametrize("name", FORMATS)
def test_every_part_of_an_image_is_a_fault(decoder: Decoder, name: str) -> None:
    whole = hostile.encoded(hostile.drawn(200, 150), name)
    parts = [whole[: len(whole) * tenth // 10] for tenth in range(10)]
    faults = list(decoder.decode(parts))
    assert faults[0] is FaultKind.EMPTY
    assert set(faults[1:]) == {FaultKind.TRUNCATED}


@pytest.mark.parametrize("name", FORMATS)
def test_an_archive_behind_an_image_is_a_fault_and_padding_is_not(decoder: Decoder, name: str) -> None:
    whole = hostile.encoded(hostile.drawn(), name)
    assert decode(decoder, whole + hostile.zipped()) is FaultKind.TRAILING_BYTES
    for padding in (b"\0" * 100, b"\xff" * 3, b"\r\n"):
        assert hostile.same(pixels(decoder, whole + padding), Image.open(io.BytesIO(whole)))


def test_trailing_bytes_can_be_let_through() -> None:
    limits = DecodeLimits(max_bytes=1 << 20, max_pixels=100_000, trailing_bytes="copy")
    with Decoder(limits) as lenient:
        for name in FORMATS:
            whole = hostile.encoded(hostile.drawn(), name)
            assert hostile.same(pixels(lenient, whole + hostile.zipped()), Image.open(io.BytesIO(whole)))


@pytest.mark.parametrize("name", ["gif", "png", "webp", "tiff", "mpo"])
def test_animations_are_quarantined_or_judged_by_their_first_picture(decoder: Decoder, name: str) -> None:
    first = hostile.drawn(30, 30)
    others = [first.rotate(90), first.rotate(180)]
    data = hostile.encoded(first, name, save_all=True, append_images=others)
    assert decode(decoder, data) is FaultKind.ANIMATED
    for most, expected in ((3, None), (2, FaultKind.TOO_MANY_FRAMES)):
        limits = DecodeLimits(max_bytes=1 << 20, max_pixels=100_000, animated="first-frame", max_frames=most)
        with Decoder(limits) as lenient:
            found = decode(lenient, data)
            if expected is None:
                assert isinstance(found, np.ndarray)
                assert hostile.same(found, Image.open(io.BytesIO(data)))
            else:
                assert found is expected


def test_sizes_are_capped_before_decoding() -> None:
    with Decoder(DecodeLimits(max_bytes=20_000, max_pixels=99 * 99)) as decoder:
        fits = Image.new("RGB", (99, 99))
        for name in ("jpeg", "png", "webp", "gif", "tiff"):
            options = {"compression": "tiff_lzw"} if name == "tiff" else {}
            assert pixels(decoder, hostile.encoded(fits, name, **options)).shape == (99, 99, 3)
            over = hostile.encoded(Image.new("RGB", (109, 90)), name, **options)
            assert decode(decoder, over) is FaultKind.TOO_MANY_PIXELS
        assert decode(decoder, bytes(20_001)) is FaultKind.TOO_MANY_BYTES
        assert decode(decoder, bytes(20_000)) is FaultKind.NOT_AN_IMAGE
        assert decode(decoder, b"") is FaultKind.EMPTY


def test_images_are_pulled_as_workers_become_free() -> None:
    pulled = 0

    def images() -> Iterator[bytes]:
        nonlocal pulled
        for _ in range(10):
            pulled += 1
            yield hostile.encoded(hostile.drawn(10, 10), "png")

    with Decoder(LIMITS, workers=3) as decoder:
        assert pulled == 0
        for number, _ in enumerate(decoder.decode(images())):
            assert pulled == min(10, number + 3)


def test_a_run_that_stops_early_does_not_disturb_the_next(decoder: Decoder) -> None:
    images = [hostile.encoded(hostile.drawn(40, 30 + extra), "png") for extra in range(3)]
    with Decoder(LIMITS, workers=2) as pair:
        results = pair.decode(images)
        next(results)
        with pytest.raises(RuntimeError, match="finish one"):
            next(pair.decode(images))
        results.close()
        assert [item.height for item in pair.decode(images) if isinstance(item, Picture)] == [30, 31, 32]


def test_a_decoder_that_is_not_entered_refuses() -> None:
    with pytest.raises(RuntimeError, match="enter the Decoder"):
        next(Decoder(LIMITS).decode([b""]))


def test_a_worker_that_does_not_start_is_an_error_and_not_a_fault() -> None:
    with (
        pytest.raises(RunError, match=r"did not start \(exit code 1\)"),
        Decoder(LIMITS, worker_command=["/bin/false"]),
    ):
        pass


def test_an_old_pillow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL, "__version__", "12.3.0")
    with pytest.raises(RunError, match=r"Pillow 12\.3\.0 found"), Decoder(LIMITS):
        pass


@pytest.mark.parametrize("wrong", [{"cpu_s": 0}, {"wall_s": -1.0}, {"animated": "all"}, {"trailing_bytes": "drop"}])
def test_limits_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DecodeLimits(**wrong)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        REPLY.pack(0, 0, 1, 10, 10)[:-1],
        REPLY.pack(0, 0, 1, 10, 10) + b"x",
        REPLY.pack(0, len(FORMATS), 1, 10, 10),
        REPLY.pack(0, 0, 0, 10, 10),
        REPLY.pack(0, 0, 9, 10, 10),
        REPLY.pack(0, 0, 1, 0, 10),
        REPLY.pack(0, 0, 1, 2_000_001, 1),
        REPLY.pack(200, 0, 0, 0, 0),
    ],
)
def test_a_reply_that_breaks_the_rules_is_a_crash(message: bytes) -> None:
    assert unpack_reply(message, LIMITS) is FaultKind.DECODER_CRASH


def test_a_reply_survives_the_wire() -> None:
    for outcome in (Decoded("webp", 7, 9, 6), FaultKind.ANIMATED, FaultKind.MEMORY_LIMIT):
        assert unpack_reply(pack_reply(outcome), LIMITS) == outcome
