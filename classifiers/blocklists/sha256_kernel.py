"""SHA-256 (FIPS 180-4) of many short texts, compiled with numba: 16 side by side, one in each lane of a vector.

Some three times as fast as a call for each, of which the most is not hashing.

- Texts are slices of one buffer, so that nothing is copied or made an object of.
- No kernel holds the interpreter's lock or starts a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from math import isqrt
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Lanes = NDArray[np.uint32]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_LANES = 16
_MOST = 4096  # bytes of a text that is hashed here; longer ones are few


def jit(function: _Function) -> _Function:
    """Compile a kernel, once for all processes where its compiled form can be kept."""
    make = partial(numba.njit, nogil=True, forceinline=True, boundscheck=False, error_model="numpy")
    try:
        return cast(_Function, make(cache=True)(function))
    except RuntimeError:  # nowhere to write the compiled form: every process compiles for itself
        return cast(_Function, make()(function))


def _root_bits(prime: int, power: int) -> int:
    """Return the first 32 bits of the fraction of a prime's square (2) or cube (3) root."""
    if power == 2:
        return isqrt(prime << 64) & 0xFFFFFFFF
    low, high, wanted = 0, 1 << 40, prime << 96
    while low < high:
        middle = (low + high + 1) >> 1
        low, high = (middle, high) if middle**3 <= wanted else (low, middle - 1)
    return low & 0xFFFFFFFF


_PRIMES = [n for n in range(2, 312) if all(n % d for d in range(2, isqrt(n) + 1))]
_ROUNDS = np.array([_root_bits(prime, 3) for prime in _PRIMES], np.uint32)
_BEGIN = np.array([_root_bits(prime, 2) for prime in _PRIMES[:8]], np.uint32)


@jit
def _turn(word: np.uint32, bits: int) -> np.uint32:
    return np.uint32((word >> np.uint32(bits)) | (word << np.uint32(32 - bits)))


@jit
def _round(
    a: Lanes,
    b: Lanes,
    c: Lanes,
    d: Lanes,
    e: Lanes,
    f: Lanes,
    g: Lanes,
    h: Lanes,
    words: Lanes,
    constant: np.uint32,
) -> None:
    for i in range(_LANES):
        x, y = e[i], a[i]
        mixed = (
            h[i] + (_turn(x, 6) ^ _turn(x, 11) ^ _turn(x, 25)) + ((x & f[i]) ^ (~x & g[i])) + constant + words[i]
        )
        d[i] += mixed
        h[i] = mixed + (_turn(y, 2) ^ _turn(y, 13) ^ _turn(y, 22)) + ((y & b[i]) ^ (y & c[i]) ^ (b[i] & c[i]))


@jit
def _compress(words: Lanes, state: Lanes, blocks: Places, block: int) -> None:
    for i in range(np.uint64(16), np.uint64(64)):
        for lane in range(_LANES):
            x, y = words[i - np.uint64(15), lane], words[i - np.uint64(2), lane]
            words[i, lane] = words[i - np.uint64(16), lane] + words[i - np.uint64(7), lane]
            words[i, lane] += _turn(x, 7) ^ _turn(x, 18) ^ (x >> np.uint32(3))
            words[i, lane] += _turn(y, 17) ^ _turn(y, 19) ^ (y >> np.uint32(10))
    v = state.copy()
    a, b, c, d, e, f, g, h = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    for i in range(0, 64, 8):
        _round(a, b, c, d, e, f, g, h, words[i], _ROUNDS[i])
        _round(h, a, b, c, d, e, f, g, words[i + 1], _ROUNDS[i + 1])
        _round(g, h, a, b, c, d, e, f, words[i + 2], _ROUNDS[i + 2])
        _round(f, g, h, a, b, c, d, e, words[i + 3], _ROUNDS[i + 3])
        _round(e, f, g, h, a, b, c, d, words[i + 4], _ROUNDS[i + 4])
        _round(d, e, f, g, h, a, b, c, words[i + 5], _ROUNDS[i + 5])
        _round(c, d, e, f, g, h, a, b, words[i + 6], _ROUNDS[i + 6])
        _round(b, c, d, e, f, g, h, a, words[i + 7], _ROUNDS[i + 7])
    for i in range(8):
        for lane in range(_LANES):
            if block < blocks[lane]:
                state[i, lane] += v[i, lane]


@jit
def _hash(
    data: Bytes, starts: Places, ends: Places, heads: Bytes, sizes: Places, which: Places, order: Places, out: Bytes
) -> None:
    words, state = np.empty((64, _LANES), np.uint32), np.empty((8, _LANES), np.uint32)
    room, blocks = np.zeros((_LANES, _MOST + 96), np.uint8), np.zeros(_LANES, np.int64)
    for group in range(0, len(order), _LANES):
        count, most = min(_LANES, len(order) - group), 0
        blocks[:] = 0
        for lane in range(count):
            job, text = order[group + lane], room[lane]
            head, start = sizes[which[job]], starts[job]
            size = head + ends[job] - start
            for i in range(head):
                text[i] = heads[which[job], i]
            for i in range(size - head):
                text[head + i] = data[start + i]
            blocks[lane] = (size + 8) // 64 + 1
            text[size] = 128
            text[size + 1 : blocks[lane] * 64] = 0
            for i in range(4):
                text[blocks[lane] * 64 - 1 - i] = (size * 8) >> (8 * i) & 255
            most = max(most, blocks[lane])
        for i in range(8):
            state[i, :] = _BEGIN[i]
        for block in range(most):
            for lane in range(_LANES):
                text = room[lane]
                for i in range(16):
                    at = block * 64 + 4 * i
                    high = np.uint32(text[at]) << np.uint32(24) | np.uint32(text[at + 1]) << np.uint32(16)
                    words[i, lane] = high | np.uint32(text[at + 2]) << np.uint32(8) | np.uint32(text[at + 3])
            _compress(words, state, blocks, block)
        for lane in range(count):
            row = out[order[group + lane]]
            for i in range(32):
                row[i] = state[i // 4, lane] >> np.uint32(24 - 8 * (i % 4)) & np.uint32(255)


def sha256_of_parts(
    data: Bytes, starts: Places, ends: Places, heads: tuple[bytes, ...], which: NDArray[np.int64]
) -> Bytes:
    """Return the SHA-256 (uint8 N x 32) of each `heads[which] + data[start:end]`."""
    sizes = np.array([len(head) for head in heads], np.int64)
    spelled = np.frombuffer(b"".join(head.ljust(16) for head in heads), np.uint8).reshape(-1, 16)
    out = np.zeros((len(starts), 32), np.uint8)
    lengths = ends - starts + sizes[which]
    short = lengths <= _MOST
    order = np.argsort(np.minimum((lengths + 8) // 64, 255).astype(np.uint8), kind="stable")
    _hash(data, starts, ends, spelled, sizes, which, order[short[order]], out)
    for job in np.flatnonzero(~short).tolist():
        text = heads[which[job]] + data[starts[job] : ends[job]].tobytes()
        out[job] = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    return out
