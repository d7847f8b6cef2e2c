"""Images made to harm a decoder, and a decode worker that comes to harm. Drawn shapes only.

Run as a program it is a decode worker whose decoder does what a mark at the start of the bytes says;
bytes without a mark go to the real decoder.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from manifests.records import FaultKind
from pipeline import decode_worker
from pipeline.image_pixels import Decoded, DecodeLimits, Flat, decode_image

WORKER_COMMAND = (sys.executable, "-P", "-S", str(Path(__file__).resolve()))

MARK = b"~a mark that must not outlive its image~"
HANG, SPIN, SEGV, KILL, CAP, SWELL, LIE, ONCE = (
    b"!hang!",
    b"!spin!",
    b"!segv!",
    b"!kill!",
    b"!cap!!",
    b"!swell",
    b"!lie!!",
    b"!once!",  # dies the first time; the path of a witness file follows
)


def drawn(width: int = 97, height: int = 61, mode: str = "RGB") -> Image.Image:
    """A picture without any symmetry: a gradient with three shapes."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.ellipse((width // 8, height // 8, width // 3, height // 2), fill=(200, 40, 40))
    pen.rectangle((width // 2, height // 4, width - width // 6, height // 3), fill=(30, 60, 220))
    pen.polygon(((width // 4, height - 3), (width // 2, height - 3), (width // 3, height // 2)), fill=(20, 160, 70))
    return image.convert(mode)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of `image` in one of the six formats; WebP is lossless unless said otherwise."""
    if name == "webp":
        options = {"lossless": True, **options}
    with io.BytesIO() as file:
        image.save(file, name.upper(), **options)
        return file.getvalue()


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand: `rows` are the raw scan lines, each with its leading 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(rows, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_one_bit(width: int, height: int) -> bytes:
    """A complete black picture of any size, in a few kilobytes."""
    return png(width, height, depth=1, colour=0, rows=bytes((1 + (width + 7) // 8) * height))


def gif_of_frames(frames: int) -> bytes:
    """A complete GIF of 1 x 1 pixel frames, 15 bytes each."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    return head + (b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00") * frames + b"\x3b"


def zipped() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("note.txt", "hidden behind a picture")
        return file.getvalue()


def marked_bytes(harm: bytes) -> bytes:
    """Bytes that bring the harm about, full of MARK."""
    return harm + MARK * 500


def same(left: NDArray[np.uint8], right: Image.Image) -> bool:
    return bool(np.array_equal(left, np.asarray(right.convert("RGB"))))


def hostile_decode(data: bytes, limits: DecodeLimits, out: Flat) -> Decoded | FaultKind:
    harm = data[: len(HANG)]
    if not harm.startswith(b"!"):
        return decode_image(data, limits, out)
    pattern = np.frombuffer(MARK * (out.size // len(MARK)), np.uint8)
    out[: pattern.size] = pattern
    if harm == HANG:
        time.sleep(3600)
    elif harm == SPIN:
        while True:
            pass
    elif harm == SEGV:
        ctypes.string_at(0)
    elif harm == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif harm == CAP:
        _fill_until_malloc_fails()
    elif harm == SWELL:
        hoard = [MARK * 1_000_000]
        while True:
            hoard.append(hoard[-1] + b"+")
    elif harm == LIE:
        return Decoded("png", 60_000, 60_000, 1)
    elif harm == ONCE:
        witness = Path(os.fsdecode(data[len(ONCE) :]))
        if not witness.exists():
            witness.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_image(encoded(drawn(), "png"), limits, out)
    raise AssertionError("this harm is unknown")


def _fill_until_malloc_fails() -> None:
    """What careless C does at the cap: it writes through the null pointer."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    filling = MARK * 100_000
    while True:
        block = libc.malloc(ctypes.c_size_t(len(filling)))
        ctypes.memmove(block or 0, filling, len(filling))


if __name__ == "__main__":
    decode_worker.main(hostile_decode)
