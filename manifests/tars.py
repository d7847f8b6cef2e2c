"""What a tar holds: every member, where its bytes lie, which are images, and whether the archive is whole.

Owns the index of one tar, and what counts as an image. Leaves to others which members make a sample.

- Nothing is skipped in silence. Python's tarfile ends at the first bad header as if the archive ended there;
  here that is damage, and so is anything but zeros after the last member.
- Member names are never used as paths.
- An image is known by its first bytes or by its extension: a damaged one is still one to be judged.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Final

from manifests.records import FaultKind, split_member_name

HEAD_BYTES: Final = 32  # enough for `sniff`
IMAGE_EXTENSIONS: Final = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_CHUNK = 1 << 20
_BMP_HEADER_SIZES: Final = frozenset((12, 40, 52, 56, 64, 108, 124))
# What headers that lie make tarfile raise; MemoryError where a name claims to be longer than any memory.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar: its sample's key, its extension (lower case), and where its bytes lie."""

    key: str
    extension: str
    name: str
    offset: int
    size: int
    fault: FaultKind | None


@dataclass(frozen=True, slots=True)
class TarIndex:
    """All members of a tar in file order; `damage` says in words what is wrong with the archive, if anything."""

    members: tuple[Member, ...]
    damage: str | None


def index_tar(path: Path) -> TarIndex:
    """Index one tar; damage is reported, never raised.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        return TarIndex((), "the file is empty (0 bytes)")
    members: list[Member] = []
    damage: str | None = None
    with path.open("rb") as file:
        try:
            archive = tarfile.TarFile(fileobj=file, mode="r", encoding="utf-8", errors="surrogateescape")
        except _DAMAGE:
            return TarIndex((), "not a tar archive (compressed archives must be unpacked first)")
        while True:
            try:
                info = archive.next()
            except _DAMAGE:
                damage = f"the archive is cut or damaged near byte {archive.offset}"
                break
            if info is None:
                break
            if info.size < 0 or archive.offset < info.offset_data:  # reading on could lead round in a circle
                damage = f"unreadable bytes after byte {info.offset}; members may be missing"
                break
            if not info.isdir():
                members.append(_member(info, size))
        if members and members[-1].fault is FaultKind.CUT_SHORT:
            damage = "the archive ends inside its last member"
        elif damage is None:
            damage = _check_end(file, archive.offset, size)
    return TarIndex(tuple(members), damage)


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Return the bytes of one member."""
    file.seek(member.offset)
    return file.read(member.size)


def sniff(head: bytes) -> str | None:
    """Name the format by its first `HEAD_BYTES` bytes; None where it is not on the allow-list.

    A bitmap must show a known header size, since texts begin with "BM" too. BigTIFF is not on the list.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if head.startswith(b"BM") and len(head) >= 18 and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    return None


def is_image(extension: str, head: bytes) -> bool:
    """Say whether a member is an image: by its first `HEAD_BYTES` bytes, or by its extension (lower case)."""
    return sniff(head[:HEAD_BYTES]) is not None or extension.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS


def _member(info: tarfile.TarInfo, size: int) -> Member:
    raw = info.name.encode("utf-8", "surrogateescape")
    fault: FaultKind | None = None
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "backslashreplace")
        fault = FaultKind.BAD_NAME
    path = PurePosixPath(name)
    # Some systems that unpack a release take a backslash for a separator.
    if path.is_absolute() or ".." in path.parts or ".." in PureWindowsPath(name).parts or "\0" in name:
        fault = FaultKind.UNSAFE_NAME
    if not info.isreg() or info.issparse():
        fault = fault or FaultKind.LINK_MEMBER
    elif info.offset_data + info.size > size:
        fault = fault or FaultKind.CUT_SHORT
    key, extension = split_member_name(name)
    available = max(0, min(info.size, size - info.offset_data)) if info.isreg() else 0
    return Member(key, extension, name, info.offset_data, available, fault)


def _check_end(file: BinaryIO, offset: int, size: int) -> str | None:
    file.seek(offset)
    if size - offset < tarfile.BLOCKSIZE:
        return "the archive has no end mark; members may be missing"
    while chunk := file.read(_CHUNK):
        if chunk.count(0) != len(chunk):
            return f"unreadable bytes after byte {offset}; members may be missing"
    return None
