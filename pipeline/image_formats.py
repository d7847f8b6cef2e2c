"""Where an image ends, read from its bytes alone.

Owns the end of an image and the number of pictures it stores. Leaves the allow-list of formats and the sniffing to
`manifests.tars`, pixels to the decoders.

- Every function takes hostile bytes, never raises on them, and costs time linear in their length.
- The end is the image's own: the place where a decoder that obeys the format stops reading.
- `None` means that the end was not reached: the image is cut short, or its structure contradicts itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from manifests.tars import HEAD_BYTES, sniff

# A marker, past stuffed zeros (FF 00), restarts (D0 to D7) and fill bytes (FF FF). ITU T.81, B.1.1.
_JPEG_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_BARE: Final = frozenset((0x01, 0xD8))  # TEM and SOI: markers without a length
_EOI: Final = 0xD9
_APP2: Final = 0xE2
_MPF_NUMBER_OF_IMAGES: Final = 0xB001

_BMP_RLE8, _BMP_RLE4 = 1, 2
_BMP_PROFILES: Final = frozenset((0x4C494E4B, 0x4D424544))  # "LINK", "MBED": a profile lies in the file

_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_DATA: Final = ((273, 279), (324, 325), (513, 514))  # strips, tiles, old-style JPEG: places and lengths
_TIFF_DIRECTORIES: Final = {330: True, 34665: False, 34853: False, 40965: False}  # True: holds a picture


@dataclass(frozen=True, slots=True)
class Extent:
    """How far an image reaches.

    end: bytes from the start to the image's own end. frames: pictures stored, at least 1.
    """

    end: int
    frames: int


def measure(data: bytes) -> Extent | None:
    """Find an image's end and count its pictures in one walk; None where the end was not reached."""
    walk = _WALKS.get(sniff(data[:HEAD_BYTES]) or "")
    if walk is None:
        return None
    try:
        extent = walk(data)
    except (LookupError, ValueError, struct.error):  # the walk ran off the end, or read a nonsensical field
        return None
    return extent if extent is not None and extent.end <= len(data) else None


def image_end(data: bytes) -> int | None:
    """Return how many bytes belong to the image; None where its end was not reached."""
    extent = measure(data)
    return None if extent is None else extent.end


def is_padding(rest: bytes) -> bool:
    """Say whether the bytes behind an image are harmless: one run of 00, or of FF, or ASCII whitespace."""
    return not rest or rest.isspace() or (rest[0] in (0x00, 0xFF) and rest.count(rest[0]) == len(rest))


def _jpeg(data: bytes) -> Extent | None:
    """ITU T.81 markers to EOI; then, where an MPF index (CIPA DC-007) promises more, the JPEGs that follow."""
    end, promised = _jpeg_stream(data, 0)
    frames = 1
    while frames < promised:
        start = data.find(b"\xff\xd8\xff", end)
        if start < 0 or not is_padding(data[end:start]):
            break
        end, _ = _jpeg_stream(data, start)
        frames += 1
    return Extent(end, max(frames, promised))


def _jpeg_stream(data: bytes, start: int) -> tuple[int, int]:
    """Return where one JPEG stream ends and how many images its MPF index names."""
    images, pos = 1, start + 2
    while marker := _JPEG_MARKER.search(data, pos):
        code, pos = data[marker.end() - 1], marker.end()
        if code == _EOI:
            return pos, images
        if code in _JPEG_BARE:
            continue
        (length,) = struct.unpack_from(">H", data, pos)
        if length < 2:
            raise ValueError("a JPEG segment is shorter than its own length field")
        if code == _APP2 and data.startswith(b"MPF\0", pos + 2):
            images = max(images, _mpf_images(data[pos + 6 : pos + length]))
        pos += length
    raise ValueError("a JPEG stream has no end marker")


def _mpf_images(index: bytes) -> int:
    """An index that cannot be read promises nothing: what follows the image is then trailing bytes."""
    order = ">" if index.startswith(b"MM") else "<"
    try:
        (offset,) = struct.unpack_from(order + "I", index, 4)
        for tag, _, _, at in _tiff_entries(index, order, offset):
            if tag == _MPF_NUMBER_OF_IMAGES:
                return int(struct.unpack_from(order + "I", index, at)[0])
    except struct.error:
        return 1
    return 1


def _png(data: bytes) -> Extent | None:
    """Chunks to IEND (W3C PNG, 5.3). Every fcTL after the first IDAT starts one more picture."""
    pos, frames, pixels_begun = 8, 1, False
    while True:
        length, kind = struct.unpack_from(">I4s", data, pos)
        pos += 12 + length
        if kind == b"IDAT":
            pixels_begun = True
        elif kind == b"fcTL" and pixels_begun:
            frames += 1
        elif kind == b"IEND":
            return Extent(pos, frames)


def _webp(data: bytes) -> Extent | None:
    """The RIFF container (RFC 9649): chunks padded to even lengths. Every ANMF chunk is a picture."""
    (size,) = struct.unpack_from("<I", data, 4)
    end, pos, frames = 8 + size, 12, 0
    if end > len(data):
        return None
    while pos + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, pos)
        pos += 8 + length + length % 2
        frames += kind == b"ANMF"
    if pos > end + 1:  # one more than `end` where a writer left the last pad byte out of the size
        return None
    return Extent(min(end + size % 2, len(data)), max(1, frames))


def _gif(data: bytes) -> Extent | None:
    """Blocks to the trailer (GIF89a, appendix B). Every image descriptor is a picture."""
    pos, frames = 13 + _gif_table_bytes(data[10]), 0
    while (block := data[pos]) != 0x3B:
        if block == 0x21:
            pos = _gif_blocks_end(data, pos + 2)
        elif block == 0x2C:
            frames += 1
            pos = _gif_blocks_end(data, pos + 11 + _gif_table_bytes(data[pos + 9]))
        elif block == 0x00:  # a stray terminator, which every reader steps over
            pos += 1
        else:
            return None
    return Extent(pos + 1, max(1, frames))


def _gif_table_bytes(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _gif_blocks_end(data: bytes, pos: int) -> int:
    while size := data[pos]:
        pos += size + 1
    return pos + 1


def _bmp(data: bytes) -> Extent | None:
    """The pixel array behind the headers, and an embedded profile (BITMAPV5HEADER) where one follows."""
    start, header = struct.unpack_from("<II", data, 10)
    compression = 0
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (_BMP_RLE8, _BMP_RLE4):
        end = _bmp_runs_end(data, start, 1 if compression == _BMP_RLE8 else 2)
    else:
        end = start + (width * bits + 31) // 32 * 4 * abs(height)
    if header == 124 and struct.unpack_from("<I", data, 14 + 56)[0] in _BMP_PROFILES:
        profile_at, profile_bytes = struct.unpack_from("<II", data, 14 + 112)
        end = max(end, 14 + profile_at + profile_bytes if profile_bytes else 0)
    return Extent(end, 1) if end >= 14 + header else None


def _bmp_runs_end(data: bytes, pos: int, pixels_a_byte: int) -> int:
    while True:
        count, value = data[pos], data[pos + 1]
        pos += 2
        if count == 0 and value == 1:
            return pos
        if count == 0 and value == 2:
            pos += 2
        elif count == 0 and value > 2:
            packed = -(-value // pixels_a_byte)
            pos += packed + packed % 2


def _tiff(data: bytes) -> Extent | None:
    """The greatest extent over all directories, their values, strips and tiles (TIFF 6.0).

    Directories that share bytes could make the walk quadratic: together they may not be longer than the file.
    """
    order = "<" if data.startswith(b"II") else ">"
    end, frames, left, seen = 8, 0, len(data), set[int]()
    todo: list[tuple[int, bool]] = [(struct.unpack_from(order + "I", data, 4)[0], True)]
    while todo:
        offset, is_picture = todo.pop()
        (count,) = struct.unpack_from(order + "H", data, offset)
        table_end = offset + 2 + 12 * count
        (following,) = struct.unpack_from(order + "I", data, table_end)
        values: dict[int, NDArray[np.uint64]] = {}
        end, left = max(end, table_end + 4), left - 12 * count - 6
        for tag, kind, number, at in _tiff_entries(data, order, offset):
            size = _TIFF_SIZES.get(kind, 0) * number
            end = max(end, at + size)
            if tag in _TIFF_PLACES:
                left -= size if size > 4 else 0
                if left >= 0:
                    values[tag] = _tiff_integers(data, order, kind, number, at)
        if left < 0 or offset in seen:
            return None
        seen.add(offset)
        frames += is_picture
        for places, lengths in _TIFF_DATA:
            if places in values:
                end = max(end, int((values[places] + values[lengths]).max(initial=0)))
        todo += [(int(at), picture) for tag, picture in _TIFF_DIRECTORIES.items() for at in values.get(tag, ())]
        if following:
            todo.append((following, is_picture))
    return Extent(end, frames)


_TIFF_PLACES: Final = frozenset(tag for pair in _TIFF_DATA for tag in pair) | frozenset(_TIFF_DIRECTORIES)


def _tiff_entries(data: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, number of values and their place, for every entry of a directory."""
    (count,) = struct.unpack_from(order + "H", data, offset)
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, number, place = struct.unpack_from(order + "HHII", data, entry)
        yield tag, kind, number, place if _TIFF_SIZES.get(kind, 0) * number > 4 else entry + 8


def _tiff_integers(data: bytes, order: str, kind: int, number: int, at: int) -> NDArray[np.uint64]:
    if kind not in (3, 4, 13):
        raise ValueError("a TIFF place or length is not an integer")
    return np.frombuffer(data, f"{order}u{_TIFF_SIZES[kind]}", number, at).astype(np.uint64)


_WALKS: Final[dict[str, Callable[[bytes], Extent | None]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
}
