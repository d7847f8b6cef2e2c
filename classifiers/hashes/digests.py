"""Digests of the bytes of a file: the first thing taken of every image, before any decoder sees it.

Owns which digests there are and how a file is named by them. Leaves to others where the bytes come from.

- One pass over the bytes, all three digests.
- MD5 and SHA-1 are taken because the lists of hotlines are made of them; nothing here rests on their strength.
- The repr of digests shows none: a digest of a sample that was not kept must not reach a log.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

UID_BYTES = 16
DIGEST_WIDTHS = {"md5": 16, "sha1": 20, "sha256": 32}  # bytes
_CHUNK_BYTES = 1 << 16  # stays in the nearest cache for the second and third digest


@dataclass(frozen=True, slots=True, repr=False)
class Digests:
    """The digests of one file, as raw bytes (16, 20 and 32)."""

    md5: bytes
    sha1: bytes
    sha256: bytes

    @property
    def uid(self) -> bytes:
        """The name of the file by its content: the first 16 bytes of the SHA-256."""
        return self.sha256[:UID_BYTES]

    def __repr__(self) -> str:
        return "Digests(...)"


def take_digests(data: bytes | memoryview) -> Digests:
    """Take all digests of `data` in one pass.

    Args:
        data: the whole file; a memoryview must be contiguous.
    """
    view = memoryview(data).cast("B")
    md5 = hashlib.md5(usedforsecurity=False)
    sha1 = hashlib.sha1(usedforsecurity=False)
    sha256 = hashlib.sha256()
    for start in range(0, len(view), _CHUNK_BYTES):
        chunk = view[start : start + _CHUNK_BYTES]
        md5.update(chunk)
        sha1.update(chunk)
        sha256.update(chunk)
    return Digests(md5.digest(), sha1.digest(), sha256.digest())
