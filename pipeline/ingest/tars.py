"""What a tar holds: every member, where its bytes lie, and whether the archive is whole.

Owns the index of one tar. Leaves to `samples.py` which members make a sample.

- Nothing is skipped in silence. Python's tarfile ends at the first bad header as if the archive ended there;
  here that is damage, and so is anything but zeros after the last member.
- Member names are never used as paths.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from manifests.records import FaultKind, split_member_name

_CHUNK = 1 << 20
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
