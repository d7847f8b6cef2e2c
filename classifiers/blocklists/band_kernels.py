"""The inner loops of the search by bands, compiled with numba.

Owns a record's layout and every loop over codes. Leaves which bits make a band, threads and room to `band_index`.

- A kernel that runs out of room for hits goes on counting, so that its caller can come back with enough.
- No kernel holds the interpreter's lock or starts a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.base import BaseContext as Context
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

Words = NDArray[np.uint64]  # N x words of 64 bits
Row = int | np.uint64
Offsets = NDArray[np.uint32]
Pairs = NDArray[np.uint32]
Distances = NDArray[np.int16]
_Function = TypeVar("_Function", bound=Callable[..., Any])

KEYS = 1 << 16  # a band is 16 bits
_ID = np.uint64(0xFFFFFFFF)  # of a record's first word; the rest is prefix
_PREFIX = np.uint64(0xFFFFFFFF00000000)
_KEY = np.uint64(KEYS - 1)
_16, _32, _1 = np.uint64(16), np.uint64(32), np.uint64(1)
_CHECKERS = np.uint64(0x5A5AA5A55A5AA5A5)
_BLOCK = 128
_TILE = 1024  # records that many queries in turn find in the cache: 16 KiB
_AHEAD = 6  # buckets fetched before they are needed
_WAITING = 64  # pairs whose codes are fetched while others are compared
_FETCHED = 24  # records of each
_PREFETCH = "llvm.prefetch.p0"


class Plan(NamedTuple):
    """What a search looks at. masks: uint64 bands x words. flips: int64 bands, -1 where a band is not needed.

    probes: int64 bands, how many of `patterns` each takes. patterns: uint64, the bits to flip, fewest first.
    """

    masks: Words
    flips: NDArray[np.int64]
    probes: NDArray[np.int64]
    patterns: NDArray[np.uint64]
    radius: int


def _jit(function: _Function) -> _Function:
    try:
        return cast(_Function, numba.njit(nogil=True, cache=True, forceinline=True)(function))
    except RuntimeError:
        # Where neither the package nor the home can be written numba refuses: every process compiles for itself.
        return cast(_Function, numba.njit(nogil=True, forceinline=True)(function))


def _count_ones(_context: Context, _word: types.Type) -> tuple[Signature, Callable[..., ir.Value]]:
    def code(_context: Context, builder: ir.IRBuilder, _signature: Signature, words: list[ir.Value]) -> ir.Value:
        return builder.ctpop(words[0])

    return types.uint64(types.uint64), code


def _prefetch(_context: Context, _address: types.Type) -> tuple[Signature, Callable[..., ir.Value]]:
    def code(context: Context, builder: ir.IRBuilder, _signature: Signature, words: list[ir.Value]) -> ir.Value:
        pointer, integer = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, integer, integer, integer])
        function = builder.module.globals.get(_PREFETCH) or ir.Function(builder.module, kind, _PREFETCH)
        read, keep, data = integer(0), integer(3), integer(1)
        builder.call(function, [builder.inttoptr(words[0], pointer), read, keep, data])
        return ir.Constant(pointer, None)  # what stands for None

    return types.void(types.uint64), code


# How many bits of a word are set: one instruction, or one for several words where the processor has it.
_ones = cast(Callable[[np.uint64], np.uint64], intrinsic(_count_ones))
# Ask for the line of cache at an address. Only a hint: an address that cannot be read does no harm.
_fetch = cast(Callable[[np.uint64], None], intrinsic(_prefetch))


@_jit
def _key_of(codes: Words, row: Row, masks: Words, band: int) -> np.uint64:
    bits = np.uint64(0)
    for i in range(masks.shape[1]):
        bits |= codes[row, i] & masks[band, i]
    bits |= bits >> _32
    return (bits | bits >> _16) & _KEY


@_jit
def _prefix_of(codes: Words, row: Row, masks: Words, band: int) -> tuple[np.uint64, np.uint64]:
    """Take 96 bits from all over a code, none of them of the band; all of a code of 64 bits."""
    if codes.shape[1] == 1:
        return np.uint64(0), codes[row, 0]
    odd = (_CHECKERS & ~masks[band, 1]) | masks[band, 3]
    even = (_CHECKERS & ~masks[band, 0]) | masks[band, 2]
    head = (codes[row, 1] & odd) | (codes[row, 3] & ~odd)
    return head & _PREFIX, (codes[row, 0] & even) | (codes[row, 2] & ~even)


@_jit
def sort_band(codes: Words, masks: Words, band: int, offsets: Offsets, records: Words) -> None:
    """Fill the offsets (uint32 65537) and records (uint64 2 x N) of one band: a counting sort."""
    offsets[:] = 0
    for row in range(len(codes)):
        offsets[_key_of(codes, row, masks, band) + _1] += np.uint32(1)
    for value in range(KEYS):
        offsets[value + 1] += offsets[value]
    places = offsets[:KEYS].copy()
    for row in range(len(codes)):
        key = _key_of(codes, row, masks, band)
        head, tail = _prefix_of(codes, row, masks, band)
        records[0, places[key]] = head | np.uint64(row)
        records[1, places[key]] = tail
        places[key] += np.uint32(1)


@_jit
def name_keys(queries: Words, masks: Words, band: int, order: Words) -> None:
    """Fill order (uint64 B x Q) with key << 32 | row, to be sorted, for the bands from `band` on."""
    for i in range(len(order)):
        for row in range(len(queries)):
            order[i, row] = _key_of(queries, row, masks, band + i) << _32 | np.uint64(row)


@_jit
def probe(
    plan: Plan,
    band: int,
    offsets: Offsets,
    records: Words,
    codes: Words,
    queries: Words,
    order: Words,
    pairs: Pairs,
    distances: Distances,
) -> int:
    """Search some bands from `band` on, every one for the queries in its row of `order`.

    Args:
        plan: a `Plan`.
        band: of the first row of the next two and of order.
        offsets: uint32 B x 65537.
        records: uint64 B x 2 x N.
        codes: uint64 N x words.
        queries: uint64 Q x words.
        order: uint64 B x any number, ascending: key << 32 | row of the queries.
        pairs: uint32 room x 2, gets query and entry.
        distances: int16 room.

    Returns:
        How many hits there are; only as many as there is room for are written.
    """
    count = waiting = 0
    near = np.empty((_WAITING + _TILE, 2), np.uint32)
    for i in range(len(offsets)):
        probes = plan.probes[band + i]
        start = 0
        while start < order.shape[1]:
            key = order[i, start] >> _32
            stop = start + 1
            while stop < order.shape[1] and order[i, stop] >> _32 == key:
                stop += 1
            for number in range(-_AHEAD, probes):
                if number + _AHEAD < probes:
                    cell = key ^ plan.patterns[number + _AHEAD]
                    _fetch_bucket(records[i], offsets[i, cell], offsets[i, cell + _1])
                if number < 0:
                    continue
                cell = key ^ plan.patterns[number]
                limit = np.uint64(plan.radius)
                if codes.shape[1] > 1:  # the prefix has none of the flipped bits, which differ already
                    limit -= _ones(plan.patterns[number])
                end = offsets[i, cell + _1]
                for tile in range(offsets[i, cell], end, _TILE):
                    last = min(tile + _TILE, end)
                    for place in range(start, stop):
                        query = order[i, place] & _ID
                        head, tail = _prefix_of(queries, query, plan.masks, band + i)
                        waiting = _compare(records[i], tile, last, head, tail, limit, query, codes, near, waiting)
                        if waiting > _WAITING:
                            count = _check(plan, band + i, near[:waiting], codes, queries, pairs, distances, count)
                            waiting = 0
            start = stop
        count = _check(plan, band + i, near[:waiting], codes, queries, pairs, distances, count)
        waiting = 0
    return count


@_jit
def _fetch_bucket(records: Words, begin: np.uint32, end: np.uint32) -> None:
    for i in range(begin, min(end, begin + _FETCHED), 8):  # eight words a line
        for half in range(2):
            _fetch(np.uint64(records[half].ctypes.data) + np.uint64(i) * np.uint64(8))


@_jit
def _compare(
    records: Words,
    begin: int,
    end: int,
    head: np.uint64,
    tail: np.uint64,
    limit: np.uint64,
    query: np.uint64,
    codes: Words,
    near: Pairs,
    waiting: int,
) -> int:
    """Put the pairs that the prefix does not rule out after those waiting, and fetch their codes meanwhile."""
    for block in range(begin, end, _BLOCK):
        last = min(block + _BLOCK, end)
        found = np.uint64(0)
        for i in range(block, last):  # without a branch, so that several records go into one instruction
            found |= np.uint64(_prefix_distance(records, np.uint64(i), head, tail) <= limit)
        if not found:
            continue
        for i in range(block, last):
            if _prefix_distance(records, np.uint64(i), head, tail) <= limit:
                entry = records[0, i] & _ID
                near[waiting, 0], near[waiting, 1] = query, entry
                _fetch(np.uint64(codes.ctypes.data) + entry * np.uint64(8 * codes.shape[1]))
                waiting += 1
    return waiting


@_jit
def _prefix_distance(records: Words, i: np.uint64, head: np.uint64, tail: np.uint64) -> np.uint64:
    return _ones((records[0, i] ^ head) & _PREFIX) + _ones(records[1, i] ^ tail)


@_jit
def _check(
    plan: Plan, band: int, near: Pairs, codes: Words, queries: Words, pairs: Pairs, distances: Distances, count: int
) -> int:
    for i in range(len(near)):
        query, entry = np.uint64(near[i, 0]), np.uint64(near[i, 1])
        distance = _distance(codes, entry, queries, query)
        if distance <= np.uint64(plan.radius) and _is_first(codes, entry, queries, query, plan, band):
            count = _store(pairs, distances, count, query, entry, distance)
    return count


@_jit
def _is_first(codes: Words, entry: Row, queries: Words, query: Row, plan: Plan, band: int) -> bool:
    """Say whether no earlier band finds the same pair, so that it is reported once."""
    for earlier in range(band):
        apart = np.uint64(0)
        for i in range(codes.shape[1]):
            apart += _ones((codes[entry, i] ^ queries[query, i]) & plan.masks[earlier, i])
        if np.int64(apart) <= plan.flips[earlier]:
            return False
    return True


@_jit
def _distance(codes: Words, entry: Row, queries: Words, query: Row) -> np.uint64:
    distance = _ones(codes[entry, 0] ^ queries[query, 0])
    if codes.shape[1] == 4:  # written out, for the compiler to take several codes at once
        distance += _ones(codes[entry, 1] ^ queries[query, 1])
        distance += _ones(codes[entry, 2] ^ queries[query, 2])
        distance += _ones(codes[entry, 3] ^ queries[query, 3])
    return distance


@_jit
def _store(pairs: Pairs, distances: Distances, count: int, query: Row, entry: Row, distance: np.uint64) -> int:
    if count < len(pairs):
        pairs[count, 0], pairs[count, 1] = query, entry
        distances[count] = distance
    return count + 1


@_jit
def scan(codes: Words, queries: Words, radius: int, pairs: Pairs, distances: Distances) -> int:
    """Compare every query with every code; arguments and result as in `probe`."""
    count, limit = 0, np.uint64(radius)
    for tile in range(0, len(codes), _TILE):
        for query in range(len(queries)):
            for block in range(tile, min(tile + _TILE, len(codes)), _BLOCK):
                last = min(block + _BLOCK, len(codes))
                near = np.uint64(0)
                for i in range(block, last):
                    near |= np.uint64(_distance(codes, np.uint64(i), queries, query) <= limit)
                if not near:
                    continue
                for i in range(block, last):
                    distance = _distance(codes, np.uint64(i), queries, query)
                    if distance <= limit:
                        count = _store(pairs, distances, count, query, i, distance)
    return count
