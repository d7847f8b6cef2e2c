"""The plain search for codes: every query against every code, in numpy. Exact by construction.

Owns the answer that every faster search is held against. Memory is bounded but for the hits themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import Rows
from classifiers.blocklists.hits import CodeHits, join_hits

_QUERIES_AT_ONCE = 64
_CODES_AT_ONCE = 4096  # 64 x 4096 pairs of 8 bytes: 2 MiB


def scan_codes(codes: Rows, queries: Rows, radius: int) -> CodeHits:
    """Return every pair that differs in at most `radius` bits.

    Args:
        codes: uint8 N x W, W a multiple of 8, in any order.
        queries: uint8 Q x W.
        radius: in bits; a distance equal to it is within.

    Raises:
        ValueError: the widths differ, or the radius is negative.
    """
    entries, asked = words_of(codes, queries, radius)
    parts = []
    for row in range(0, len(asked), _QUERIES_AT_ONCE):
        some = asked[row : row + _QUERIES_AT_ONCE]
        for start in range(0, len(entries), _CODES_AT_ONCE):
            tile = entries[start : start + _CODES_AT_ONCE]
            apart = np.zeros((len(some), len(tile)), np.int16)
            for word in range(entries.shape[1]):
                apart += np.bitwise_count(some[:, word, None] ^ tile[None, :, word])
            query, entry = np.nonzero(apart <= radius)
            parts.append(CodeHits(query + row, entry + start, apart[query, entry]))
    return join_hits(parts)


def words_of(codes: Rows, queries: Rows, radius: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return both as read-only words of 64 bits, uint64 N x W / 8.

    Raises:
        ValueError: the widths differ or are no multiple of 8, or the radius is negative.
    """
    width = codes.shape[-1]
    if codes.ndim != 2 or queries.ndim != 2 or queries.shape[1] != width or not width or width % 8:
        raise ValueError(
            f"codes {codes.shape}, queries {queries.shape}: expected rows of one width, 8 bytes or more"
        )
    if radius < 0:
        raise ValueError(f"radius: expected at least 0, found {radius}")
    entries = np.ascontiguousarray(codes).view(np.uint64)
    asked = np.ascontiguousarray(queries).view(np.uint64)
    entries.flags.writeable = asked.flags.writeable = False
    return entries, asked
