"""Tars of kept samples: the bytes of their members and nothing else of the source.

Owns what a released tar looks like. Leaves to others which samples are kept.

- Member bytes are held against the digests that were judged, and copied unchanged or encoded anew by the caller.
- Headers are made new (name, size, mode 0644, no times, no owners): what hides in a source's headers or padding
  was judged by nobody and is not released.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from manifests import durable
from manifests.commits import FileDigest

_CHUNK = 1 << 20


class SourceChangedError(ValueError):
    """The source of a kept sample does not hold the bytes that were judged."""


@dataclass(frozen=True, slots=True)
class KeptMember:
    """A member to copy: its name, where its bytes lie in the source, and their judged SHA-256 if it was judged.

    encode: makes the bytes that are written of those that were judged; None: the same.
    """

    name: str
    offset: int
    size: int
    sha256: bytes | None
    encode: Callable[[bytes], bytes] | None = None


def write_kept_shard(source: Path, members: Sequence[KeptMember], target: Path) -> FileDigest:
    """Write a tar of `members`, in the order given, with the promises of `durable.create`.

    Raises:
        SourceChangedError: the source does not hold the judged bytes; nothing is written.
        OSError: the disk is full.
    """
    with source.open("rb") as origin, durable.create(target, replace=True) as file:
        with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for member in members:
                info = tarfile.TarInfo(member.name)
                info.size = member.size
                origin.seek(member.offset)
                reader = _Checked(origin, member.size)
                data = b"" if member.encode is None else reader.read()
                try:
                    if member.encode is None:
                        archive.addfile(info, reader)
                except OSError as error:
                    if "unexpected end of data" not in str(error):
                        raise
                    raise SourceChangedError(f"{source}: shorter than when it was judged") from None
                if member.sha256 is not None and reader.digest() != member.sha256:
                    raise SourceChangedError(
                        f"{source}: an image is not the one that was judged; restore the shard"
                    )
                if member.encode is not None:
                    data = member.encode(data)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        file.seek(0)
        digest, size = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(target.name, digest.hexdigest(), size)


class _Checked:
    """A reader of the next `size` bytes of a file that digests what it hands out."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left, self._digest = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self._digest.update(data)
        return data

    def digest(self) -> bytes:
        return self._digest.digest()
