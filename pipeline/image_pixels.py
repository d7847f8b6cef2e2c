"""The one way from the bytes of an image to 8-bit RGB pixels, and what one image may cost.

Owns the limits, the checks before any decoding, and the choice of decoder. Leaves finding the image's end to
`image_formats`, and surviving a decoder that crashes, hangs or swells to `decode_worker` and `decode`.

- JPEG goes through simplejpeg in strict mode (Pillow where the sampling is unusual), the others through Pillow.
- Colour profiles are ignored. Alpha is matted on white. 16-bit grey is scaled by 1/257 and rounded; 16-bit
  colour keeps its high byte. The EXIF orientation is applied.
- What has no one true 8-bit picture (floats, 32-bit integers, 12-bit or inverted 16-bit grey) is UNDECODABLE.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from manifests.records import FaultKind
from manifests.tars import HEAD_BYTES, sniff
from pipeline.errors import RunError
from pipeline.image_formats import is_padding, measure

PILLOW_FLOOR: Final = (13, 0)

_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "png": PngImageFile,
    "webp": WebPImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
}
_GREY_16: Final = frozenset(("I;16", "I;16B", "I;16L", "I;16N"))
_EIGHT_BIT: Final = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"))
_STRIP_PIXELS: Final = 1 << 20  # converted at a time, so that conversion adds little to the decoder's memory
# What the decoders raise on hostile bytes. Anything else ends the worker, and is a DECODER_CRASH.
_REFUSALS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

Flat = NDArray[np.uint8]  # room for the pixels, 3 bytes each
Pixels = NDArray[np.uint8]  # H x W x 3, RGB


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one image may cost.

    memory_mb: MiB of the worker's own memory, of which the interpreter needs about 60; the slot through which
    bytes and pixels travel is not in it. cpu_s: CPU seconds; the kernel acts on the next whole second.
    wall_s: against a decoder that sleeps; an image that runs into it is tried once more, alone.
    animated: what happens to an image that stores several pictures (GIF, APNG, WebP, MPO, TIFF pages).
    trailing_bytes: what happens to an image with something other than padding behind its end.

    Raises:
        ValueError: a limit is not above 0, or a choice is unknown.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 64_000_000
    max_frames: int = 1000
    cpu_s: int = 10
    wall_s: float = 30.0
    memory_mb: int = 1024
    animated: Literal["quarantine", "first-frame"] = "quarantine"
    trailing_bytes: Literal["quarantine", "copy"] = "quarantine"

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_frames", "cpu_s", "wall_s", "memory_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"decode limit {name} is {getattr(self, name)}: it must be above 0")
        for name, known in (("animated", "first-frame"), ("trailing_bytes", "copy")):
            if getattr(self, name) not in ("quarantine", known):
                raise ValueError(f"decode limit {name} is {getattr(self, name)!r}: say 'quarantine' or {known!r}")

    @property
    def pixels_at(self) -> int:
        """Where the pixels begin in the slot: the page boundary behind the bytes of the image."""
        return -(-self.max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def slot_bytes(self) -> int:
        """Size of the slot. It is sparse: only what an image touches takes memory."""
        return self.pixels_at + 3 * self.max_pixels


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture whose pixels lie in the slot. Width and height are those after orientation (EXIF, 1 to 8)."""

    format: str
    width: int
    height: int
    orientation: int


Decode = Callable[[bytes, DecodeLimits, Flat], Decoded | FaultKind]


def require_pillow() -> None:
    """Refuse a Pillow whose decoders are known to be unsafe.

    Raises:
        RunError: Pillow is older than `PILLOW_FLOOR`.
    """
    if tuple(int(part) for part in PIL.__version__.split(".")[:2]) < PILLOW_FLOOR:
        raise RunError(
            f"Pillow {PIL.__version__} found, 13.0.0 or later needed: older JPEG decoders overflow the heap. "
            "Install 'pillow>=13.0.0'."
        )


def decode_image(data: bytes, limits: DecodeLimits, out: Flat) -> Decoded | FaultKind:
    """Decode one image into `out` (3 bytes a pixel, RGB, row by row), or say why not. For the worker only."""
    name = sniff(data[:HEAD_BYTES])
    if name is None:
        return FaultKind.NOT_AN_IMAGE
    extent = measure(data)
    if extent is None:
        return FaultKind.TRUNCATED
    if extent.frames > limits.max_frames:
        return FaultKind.TOO_MANY_FRAMES
    if extent.frames > 1 and limits.animated == "quarantine":
        return FaultKind.ANIMATED
    if limits.trailing_bytes == "quarantine" and not is_padding(data[extent.end :]):
        return FaultKind.TRAILING_BYTES
    # Pillow itself looks where it allocates early (WebP, GIF): it raises above twice this number.
    Image.MAX_IMAGE_PIXELS = (limits.max_pixels + 1) // 2
    try:
        return _jpeg(data, limits, out) if name == "jpeg" else _pillow(name, data, limits, out)
    except MemoryError:
        return FaultKind.MEMORY_LIMIT
    except Image.DecompressionBombError:
        return FaultKind.TOO_MANY_PIXELS
    except _REFUSALS as refusal:
        return _reason(str(refusal).lower())


def _reason(message: str) -> FaultKind:
    """The decoders written in C tell their reasons apart only in words."""
    if "out of memory" in message or "insufficient memory" in message:
        return FaultKind.MEMORY_LIMIT
    if "truncated" in message or "premature end" in message:
        return FaultKind.TRUNCATED
    return FaultKind.UNDECODABLE


def _jpeg(data: bytes, limits: DecodeLimits, out: Flat) -> Decoded | FaultKind:
    with JpegImageFile(io.BytesIO(data)) as image:
        orientation = _orientation(image)
        if math.prod(image.size) > limits.max_pixels:
            return FaultKind.TOO_MANY_PIXELS
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:  # a sampling that it has no name for
            return Decoded("jpeg", *_store(image, orientation, out), orientation)
    if width * height > limits.max_pixels:
        return FaultKind.TOO_MANY_PIXELS
    if space in ("CMYK", "YCCK"):
        inks = simplejpeg.decode_jpeg(data, "CMYK")
        inverted = Image.frombuffer("CMYK", (width, height), inks, "raw", "CMYK;I", 0, 1)  # Adobe's convention
        return Decoded("jpeg", *_store(inverted, orientation, out), orientation)
    pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=out[: 3 * width * height])
    if orientation != 1:
        pixels = _turned(pixels, orientation)
        out[: pixels.size] = pixels.reshape(-1)
    return Decoded("jpeg", pixels.shape[1], pixels.shape[0], orientation)


def _pillow(name: str, data: bytes, limits: DecodeLimits, out: Flat) -> Decoded | FaultKind:
    with _PLUGINS[name](io.BytesIO(data)) as image:
        if math.prod(image.size) > limits.max_pixels:
            return FaultKind.TOO_MANY_PIXELS
        orientation = _orientation(image)
        image.load()
        if math.prod(image.size) > limits.max_pixels:
            return FaultKind.TOO_MANY_PIXELS
        if image.mode not in _EIGHT_BIT | _GREY_16 or (name == "png" and not _png_is_plain(data, image)):
            return FaultKind.UNDECODABLE
        turn = orientation
        if isinstance(image, TiffImageFile):
            turn = 1  # Pillow turns TIFF while loading
            if image.mode in _GREY_16 and not _tiff_is_plain(image):
                return FaultKind.UNDECODABLE
        return Decoded(name, *_store(image, turn, out), orientation)


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return int(orientation) if orientation in range(1, 9) else 1


def _png_is_plain(data: bytes, image: Image.Image) -> bool:
    """Mend the transparent grey of 2 and 4 bits, which Pillow compares unscaled; refuse that of 16-bit colour."""
    depth, key = data[24], image.info.get("transparency")
    if data[12:16] != b"IHDR" or (image.mode == "RGB" and depth == 16 and key is not None):
        return False
    if image.mode == "L" and depth in (2, 4) and isinstance(key, int):
        image.info["transparency"] = key * 255 // ((1 << depth) - 1)
    return True


def _tiff_is_plain(image: TiffImageFile) -> bool:
    """Say whether 16-bit grey holds 16 bits and shows 0 as black; Pillow neither scales nor inverts the others."""
    tags = ExifTags.Base
    return image.tag_v2.get(tags.BitsPerSample) == (16,) and image.tag_v2.get(tags.PhotometricInterpretation) == 1


def _store(image: Image.Image, turn: int, out: Flat) -> tuple[int, int]:
    """Write a loaded or lazy image as RGB, turned upright, into `out`; return its width and height."""
    width, height = image.size
    room = out[: 3 * width * height] if turn == 1 else np.empty(3 * width * height, np.uint8)
    pixels = room.reshape(height, width, 3)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _rgb(image.crop((0, top, width, bottom)))
    if turn != 1:
        pixels = _turned(pixels, turn)
        out[: pixels.size] = pixels.reshape(-1)
    return pixels.shape[1], pixels.shape[0]


def _rgb(strip: Image.Image) -> Pixels:
    if strip.mode in _GREY_16:
        grey = np.asarray(strip).astype(np.uint32)
        level = ((grey + 128) // 257).astype(np.uint8)
        if "transparency" in strip.info:
            level[grey == strip.info["transparency"]] = 255
        return np.repeat(level[..., None], 3, axis=2)
    if not strip.has_transparency_data:
        return np.asarray(strip.convert("RGB"))
    rgba = np.asarray(strip.convert("RGBA")).astype(np.uint16)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels upright (EXIF 2.32, tag 274) into fresh memory. Whole pixels move, 3 times as fast as bytes."""
    whole = np.ascontiguousarray(pixels).view("V3")[..., 0]
    if orientation >= 5:
        whole = whole.T
    if orientation in (2, 3, 6, 7):
        whole = whole[:, ::-1]
    if orientation in (3, 4, 7, 8):
        whole = whole[::-1]
    upright: Pixels = np.ascontiguousarray(whole).view(np.uint8).reshape(*whole.shape, 3)
    return upright
