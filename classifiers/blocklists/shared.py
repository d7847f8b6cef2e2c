"""Lists in anonymous memory, so that all worker processes search one copy that has no name and touches no disk.

Owns the layout: a JSON header and the arrays, in a memory file that is sealed against writing when it is full.
Indexes lie in a second one, made only where something is to be searched shard by shard.

- The memory ends with the last process that holds it; a killed group leaves nothing behind.
- What the parent matches with and what a worker matches with is the same memory.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import CODE_WIDTHS
from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.lists import HashList, ListColumn
from classifiers.blocklists.match import INDEX_FROM_CODES

_ALIGN = 64
_HEADER_BYTES = 8
_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h, since 5.1; Python names it from 3.13 on
_ARRAYS = ("rows", "numbers", "masks", "starts")  # in the order of the fields of `ListColumn`


def share_lists(lists: Sequence[HashList], about: object) -> int:
    """Copy lists, and JSON values about them, into sealed anonymous memory; the caller owns the descriptor."""
    arrays: list[NDArray[Any]] = []
    described = {"lists": [_describe(item, arrays) for item in lists], "about": about}
    fd = _reserve([(array.shape, array.dtype) for array in arrays], described)
    for array, place in zip(arrays, _open(fd, writable=True)[0], strict=True):
        place[...] = array
    _seal(fd)
    return fd


def attach_lists(fd: int, index_fd: int | None = None) -> tuple[HashList, ...]:
    """Return the lists that lie in shared memory, with their indexes where there is memory of these."""
    arrays, described = _open(fd)
    views = iter(arrays)
    lists = []
    for item in described["lists"]:
        columns = {
            name: ListColumn(next(views), next(views), next(views), next(views), stored)
            for name, stored in item.pop("columns").items()
        }
        canaries = tuple(
            Canary(next(views).tobytes(), one["algorithm"], bytes.fromhex(one["entry"]), one["distance"])
            for one in item.pop("canaries")
        )
        lists.append(
            HashList(**{**item, "categories": tuple(item["categories"])}, columns=columns, canaries=canaries)
        )
    return tuple(lists) if index_fd is None else _with_indexes(lists, index_fd)


def read_about(fd: int) -> Any:  # noqa: ANN401 - JSON values
    """Return what was shared about the lists."""
    return _open(fd)[1]["about"]


def share_indexes(lists: Sequence[HashList], *, threads: int) -> int | None:
    """Build an index for every column of codes that is long enough for one; None where none is."""
    wanted = [
        (place, name, column)
        for place, item in enumerate(lists)
        for name, column in item.columns.items()
        if name in CODE_WIDTHS and len(column.rows) >= INDEX_FROM_CODES
    ]
    if not wanted:
        return None
    from classifiers.blocklists.band_index import build_index, index_shapes  # noqa: PLC0415 - loads a compiler

    shapes: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
    for _, _, column in wanted:
        offsets, records = index_shapes(*column.rows.shape)
        shapes += [(offsets, np.dtype(np.uint32)), (records, np.dtype(np.uint64))]
    fd = _reserve(shapes, [[place, name] for place, name, _ in wanted])
    places, _ = _open(fd, writable=True)
    for number, (_, _, column) in enumerate(wanted):
        build_index(column.rows, places[2 * number], places[2 * number + 1], threads=threads)
    _seal(fd)
    return fd


def _with_indexes(lists: Sequence[HashList], fd: int) -> tuple[HashList, ...]:
    from classifiers.blocklists.band_index import BandIndex  # noqa: PLC0415 - as above

    arrays, described = _open(fd)
    found = list(lists)
    for number, (place, name) in enumerate(described):
        index = BandIndex(arrays[2 * number], arrays[2 * number + 1])
        columns = dict(found[place].columns)
        columns[name] = replace(columns[name], index=index)
        found[place] = replace(found[place], columns=columns)
    return tuple(found)


def _describe(item: HashList, arrays: list[NDArray[Any]]) -> dict[str, Any]:
    for column in item.columns.values():
        arrays += [getattr(column, part) for part in _ARRAYS]
    arrays += [np.frombuffer(canary.image, np.uint8) for canary in item.canaries]
    names = ("list_id", "version", "purpose", "feed", "source", "set_digest", "categories", "radius", "radius64")
    return {
        **{name: getattr(item, name) for name in names},
        "columns": {name: column.stored for name, column in item.columns.items()},
        "canaries": [
            {"algorithm": one.algorithm, "entry": one.entry.hex(), "distance": one.distance}
            for one in item.canaries
        ],
    }


def _reserve(shapes: Sequence[tuple[tuple[int, ...], np.dtype[Any]]], described: object) -> int:
    """Make a memory file with a header that says where each array lies; the arrays are zeros."""
    offset, arrays = 0, []
    for shape, dtype in shapes:
        arrays.append([offset, list(shape), dtype.str])
        offset += -(-int(np.prod(shape)) * dtype.itemsize // _ALIGN) * _ALIGN
    header = json.dumps({"arrays": arrays, "described": described}).encode()
    header = header.ljust(-(-(len(header) + _HEADER_BYTES) // _ALIGN) * _ALIGN - _HEADER_BYTES)
    fd = os.memfd_create("lists", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, _HEADER_BYTES + len(header) + offset)
    os.pwrite(fd, len(header).to_bytes(_HEADER_BYTES, "big") + header, 0)
    return fd


def _open(fd: int, *, writable: bool = False) -> tuple[list[NDArray[Any]], Any]:
    memory = mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    start = _HEADER_BYTES + int.from_bytes(memory[:_HEADER_BYTES], "big")
    header: Mapping[str, Any] = json.loads(memory[_HEADER_BYTES:start])
    arrays = [
        np.frombuffer(memory, dtype, int(np.prod(shape)), start + offset).reshape(shape)
        for offset, shape, dtype in header["arrays"]
    ]
    return arrays, header["described"]


def _seal(fd: int) -> None:
    """From now on nobody can open the memory for writing, or change its size."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE)
