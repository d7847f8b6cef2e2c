"""Where the thumbnail lies that a camera or an editor left in a file: it can show what was cropped away later.

Owns finding its bytes in JPEG, PNG, WebP and TIFF. Leaves decoding to the isolated decoder, which takes them like
any image, and the bars that cameras put round a thumbnail to the border views.

- Takes hostile bytes, never raises on them, and costs time linear in their length.
- Reads the second directory of an EXIF block (EXIF 2.32, 4.5.8), JPEG thumbnails only, of at most 1 MiB.
- None says that none was found, not that there is none: other places (Photoshop's, XMP's) are not searched.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

from manifests.tars import HEAD_BYTES, sniff
from pipeline.image_formats import image_end

MAX_THUMBNAIL_BYTES: Final = 1 << 20
MAX_PARTS: Final = 1 << 16  # segments or chunks looked at: more than any writer makes of 64 MiB

_JPEG_MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
_JPEG_BARE: Final = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_JPEG_HEADER_ENDS: Final = frozenset((0xD9, 0xDA))  # EOI, SOS
_APP1: Final = 0xE1
_EXIF: Final = b"Exif\0"  # and one byte more, which some writers do not set to 0
_PLACE, _LENGTH = 0x0201, 0x0202  # JPEGInterchangeFormat, JPEGInterchangeFormatLength
_INTEGERS: Final = {3: "H", 4: "I"}  # TIFF types SHORT and LONG


def find_thumbnail(data: bytes) -> bytes | None:
    """Return the JPEG thumbnail inside the EXIF data of an image; None where none was found.

    Args:
        data: the whole image file.

    Returns:
        The first thumbnail, cut at its own end where it has one.
    """
    blocks = _BLOCKS.get(sniff(data[:HEAD_BYTES]) or "")
    if blocks is None:
        return None
    try:
        for block in blocks(data):
            thumbnail = _of_block(block)
            if thumbnail is not None:
                return thumbnail[: image_end(thumbnail)]
    except struct.error:  # the parts of the file run past its end
        return None
    return None


def _of_block(block: memoryview) -> bytes | None:
    """Read a TIFF structure: header, first directory, second directory (TIFF 6.0, section 2)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, first)
        (second,) = struct.unpack_from(order + "I", block, first + 2 + 12 * count)
        if second == 0:
            return None
        (count,) = struct.unpack_from(order + "H", block, second)
        found: dict[int, int] = {}
        for entry in range(second + 2, second + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", block, entry)
            if tag in (_PLACE, _LENGTH) and kind in _INTEGERS and number == 1:
                (found[tag],) = struct.unpack_from(order + _INTEGERS[kind], block, entry + 8)
    except struct.error:
        return None
    place, length = found.get(_PLACE, 0), found.get(_LENGTH, 0)
    if not 0 < length <= MAX_THUMBNAIL_BYTES:
        return None
    thumbnail = bytes(block[place : place + length])
    return thumbnail if sniff(thumbnail[:HEAD_BYTES]) == "jpeg" else None


def _jpeg(data: bytes) -> Iterator[memoryview]:
    """Yield the EXIF segments before the first scan (ITU T.81, B.1.1; EXIF 2.32, 4.5.4)."""
    pos, view = 2, memoryview(data)
    for _ in range(MAX_PARTS):
        marker = _JPEG_MARKER.search(data, pos)
        if marker is None or data[marker.end() - 1] in _JPEG_HEADER_ENDS:
            return
        code, pos = data[marker.end() - 1], marker.end()
        if code in _JPEG_BARE:
            continue
        (length,) = struct.unpack_from(">H", data, pos)
        if code == _APP1 and data.startswith(_EXIF, pos + 2):
            yield view[pos + 8 : pos + length]
        pos += max(length, 2)


def _png(data: bytes) -> Iterator[memoryview]:
    """Yield the eXIf chunks (W3C PNG, 5.3 and 11.3.4.6)."""
    pos, view = 8, memoryview(data)
    for _ in range(MAX_PARTS):
        if pos >= len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, pos)
        if kind == b"eXIf":
            yield view[pos + 8 : pos + 8 + length]
        pos += 12 + length


def _webp(data: bytes) -> Iterator[memoryview]:
    """Yield the EXIF chunks (RFC 9649), some of which begin as in JPEG."""
    pos, view = 12, memoryview(data)
    for _ in range(MAX_PARTS):
        if pos >= len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, pos)
        if kind == b"EXIF":
            start = pos + 8 + 6 * data.startswith(_EXIF, pos + 8)
            yield view[start : pos + 8 + length]
        pos += 8 + length + length % 2


def _tiff(data: bytes) -> Iterator[memoryview]:
    yield memoryview(data)


_BLOCKS: Final[dict[str, Callable[[bytes], Iterator[memoryview]]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "tiff": _tiff,
}
