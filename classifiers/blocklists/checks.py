"""Which values no list may hold, because they would match by accident.

Owns the reasons. They are fixed phrases: a value never enters a message.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import CODE_ALGORITHM, CODE_WIDTHS, UID, WIDTHS, Rows

EQUAL_BITS = "all bits are equal"
OF_NO_BYTES = "the digest of an empty file or text, which would match every one"
LOW_WEIGHT = "too few or too many bits are set for the code of a real picture"
QUALITY_ZERO = "the pattern that a picture of quality 0 gives"
WRONG_WIDTH = "a value of the wrong length for its algorithm"

# A code is the comparison of coefficients with their median: half of its bits are set, fewer where many are equal.
_LEAST_SHARE = 0.25
_HASHES = (hashlib.md5, hashlib.sha1, hashlib.sha256)
_OF_NO_BYTES = {len(digest): digest for digest in (hash_(usedforsecurity=False).digest() for hash_ in _HASHES)}


def unusable(algorithm: str, values: Rows) -> dict[str, NDArray[np.intp]]:
    """Return the rows that cannot be meant, by reason; each row once.

    Args:
        algorithm: one of `algorithms.WIDTHS`.
        values: uint8 N x any width.

    Raises:
        ValueError: the algorithm is unknown.
    """
    if algorithm not in WIDTHS:
        raise ValueError(f"expected one of {', '.join(WIDTHS)}, found an unknown algorithm")
    if values.shape[1] != WIDTHS[algorithm]:
        return {WRONG_WIDTH: np.arange(len(values))} if len(values) else {}
    tests = {EQUAL_BITS: (values == values[:, :1]).all(axis=1) & np.isin(values[:, 0], (0, 255))}
    if algorithm == CODE_ALGORITHM:
        tests[QUALITY_ZERO] = _is_staircase(values)
    if algorithm in CODE_WIDTHS:
        share = np.bitwise_count(values).mean(axis=1) / 8
        tests[LOW_WEIGHT] = (share < _LEAST_SHARE) | (share > 1 - _LEAST_SHARE)
    else:
        digest = _OF_NO_BYTES[32][:16] if algorithm == UID else _OF_NO_BYTES[values.shape[1]]
        tests[OF_NO_BYTES] = (values == np.frombuffer(digest, np.uint8)).all(axis=1)
    found: dict[str, NDArray[np.intp]] = {}
    seen = np.zeros(len(values), np.bool_)
    for reason, bad in tests.items():
        rows = np.flatnonzero(bad & ~seen)
        if len(rows):
            found[reason] = rows
            seen[rows] = True
    return found


def _is_staircase(values: Rows) -> NDArray[np.bool_]:
    """Say which PDQ codes are rows of ones from the right (0007 001f 003f ...): facebook/ThreatExchange#1609."""
    words = np.ascontiguousarray(values).view(">u2").astype(np.uint32)
    return np.asarray(((words & (words + 1)) == 0).all(axis=1), np.bool_)
