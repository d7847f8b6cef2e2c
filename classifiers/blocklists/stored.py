"""The file of one version of a list: flat arrays behind a short header.

Owns the bytes, what each effect does to an entry, and the digest of a set. Leaves folders, encryption and the
manifest to `pipeline.lists`.

- magic line, length of the header (8 bytes big-endian), header (JSON), arrays and pictures each at a multiple of 64
  bytes, SHA-256 of all that precedes it. The same list gives the same bytes.
- Canaries lie apart from the entries: no count and no set digest holds them.
- What is read has the same shape as what may be written, or it is a `ListError`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import WIDTHS, ListError, Rows
from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.entries import MAX_CATEGORIES

Effect: TypeAlias = Literal["case", "remove", "ignore"]
EFFECTS: tuple[Effect, ...] = ("case", "remove", "ignore")  # strictest first

_MAGIC = b"shardscrub-list/1\n"
_LENGTH = struct.Struct(">Q")
_ALIGN = 64
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StoredList:
    """One version of a list.

    rows: by algorithm, uint8 N x width, sorted as bytes, no two alike, N >= 1.
    masks: by algorithm, uint64 N, bit i = of `categories[i]`; no entry has the effect `ignore`.
    effects: of every category.
    """

    rows: Mapping[str, Rows]
    masks: Mapping[str, NDArray[np.uint64]]
    categories: tuple[str, ...]
    effects: Mapping[str, Effect]
    canaries: tuple[Canary, ...]

    def __repr__(self) -> str:
        return f"StoredList({', '.join(f'{name}={len(rows)}' for name, rows in self.rows.items())})"


def set_digest(rows: Mapping[str, Rows]) -> str:
    """Return the SHA-256, in hex, over entries that are sorted as bytes, no two alike.

    For each algorithm that has any, by name: its name in ASCII, a zero byte, the number of entries in 8 bytes
    big-endian, the raw entries.
    """
    digest = hashlib.sha256()
    for name in sorted(rows):
        if len(rows[name]):
            digest.update(name.encode() + b"\0" + struct.pack(">Q", len(rows[name])))
            digest.update(np.ascontiguousarray(rows[name]).data)
    return digest.hexdigest()


def strictest(
    masks: NDArray[np.uint64], categories: Sequence[str], effects: Mapping[str, Effect]
) -> NDArray[np.uint8]:
    """Return for every entry the position in `EFFECTS` of the strictest effect among its categories."""
    found = np.full(len(masks), EFFECTS.index("ignore"), np.uint8)
    for position in (1, 0):
        bits = sum(1 << bit for bit, name in enumerate(categories) if effects[name] == EFFECTS[position])
        found[(masks & np.uint64(bits)) != 0] = position
    return found


def encode_list(stored: StoredList) -> bytes:
    """Return the bytes of a list.

    Raises:
        ListError: the list is not as `StoredList` says.
    """
    _check(stored)
    header = {
        "algorithms": [[name, len(stored.rows[name])] for name in sorted(stored.rows)],
        "canaries": [
            [item.algorithm, item.entry.hex(), item.distance, len(item.image)] for item in stored.canaries
        ],
        "categories": stored.categories,
        "effects": dict(stored.effects),
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    mask_type = _mask_type(stored.categories)
    parts: list[Any] = [_MAGIC + _LENGTH.pack(len(text)) + text]
    for name in sorted(stored.rows):
        parts += [np.ascontiguousarray(stored.rows[name]), stored.masks[name].astype(mask_type)]
    parts += [item.image for item in stored.canaries]
    chunks: list[Any] = []
    for part in parts:
        chunks += [part, bytes(-memoryview(part).nbytes % _ALIGN)]
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return b"".join([*chunks, digest.digest()])


def decode_list(data: bytes | memoryview) -> StoredList:
    """Read the bytes of a list; its rows are views of `data` and read-only.

    Raises:
        ListError: they were not written by `encode_list`, or were changed since.
    """
    view = memoryview(data).cast("B").toreadonly()
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if body[: len(_MAGIC)] != _MAGIC:
        raise ListError("not a list that this version of shardscrub can read")
    if hashlib.sha256(body).digest() != digest:
        raise ListError("damaged: its bytes are not those that were written")
    try:
        return _decode(body)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, RecursionError) as error:
        detail = str(error) if isinstance(error, ListError) else type(error).__name__
        raise ListError(f"damaged: {detail}") from None


def _decode(body: memoryview) -> StoredList:
    start = len(_MAGIC) + _LENGTH.size
    length = _LENGTH.unpack(body[len(_MAGIC) : start])[0]
    blocks = _Blocks(body)
    header = json.loads(bytes(blocks.take(start + length)[start:]))
    categories = tuple(header["categories"])
    mask_type = _mask_type(categories)
    rows: dict[str, Rows] = {}
    masks: dict[str, NDArray[np.uint64]] = {}
    for name, count in header["algorithms"]:
        block = blocks.take(count * WIDTHS[name])
        rows[name] = np.frombuffer(block, np.uint8).reshape(count, WIDTHS[name])
        masks[name] = np.frombuffer(blocks.take(count * mask_type.itemsize), mask_type).astype(np.uint64)
        masks[name].flags.writeable = False
    canaries = tuple(
        Canary(bytes(blocks.take(size)), algorithm, bytes.fromhex(entry), distance)
        for algorithm, entry, distance, size in header["canaries"]
    )
    blocks.close()
    stored = StoredList(rows, masks, categories, header["effects"], canaries)
    _check(stored)
    return stored


class _Blocks:
    """The parts of a file, one after the other, each followed by zeros up to the next multiple of 64."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._position = 0

    def take(self, size: int) -> memoryview:
        end = self._position + size
        after = end + -end % _ALIGN
        if type(size) is not int or size < 0 or after > len(self._body) or any(self._body[end:after]):
            raise ListError("a block ends too early")
        block = self._body[self._position : end]
        self._position = after
        return block

    def close(self) -> None:
        if self._position != len(self._body):
            raise ListError("there are bytes after the last block")


def _mask_type(categories: Sequence[str]) -> np.dtype[Any]:
    return np.dtype(next(f"<u{size}" for size in (1, 2, 4, 8) if len(categories) <= 8 * size or size == 8))


def _check(stored: StoredList) -> None:
    """Refuse what is not as `StoredList` says."""
    names = stored.categories
    if len(names) > MAX_CATEGORIES or len(set(names)) != len(names) or {type(name) for name in names} - {str}:
        raise ListError(f"expected at most {MAX_CATEGORIES} categories, each with a name of its own")
    if set(stored.effects) != set(names) or set(stored.effects.values()) - set(EFFECTS):
        raise ListError(f"expected one of {', '.join(EFFECTS)} for every category")
    if not stored.rows or set(stored.rows) != set(stored.masks):
        raise ListError("expected entries, and categories for all of them")
    for name, rows in stored.rows.items():
        masks = stored.masks[name]
        if name not in WIDTHS or rows.dtype != np.uint8 or rows.shape[1:] != (WIDTHS[name],):
            raise ListError(f"{name}: expected rows of the width of a known algorithm")
        if not len(rows) or masks.dtype != np.uint64 or masks.shape != (len(rows),):
            raise ListError(f"{name}: expected entries, with one set of categories each")
        unknown = int(np.bitwise_or.reduce(masks)) >> len(names)
        if unknown or (strictest(masks, names, stored.effects) == EFFECTS.index("ignore")).any():
            raise ListError(f"{name}: expected entries with known categories, not all of them ignored")
        if not _is_sorted(rows):
            raise ListError(f"{name}: expected entries sorted as bytes, no two alike")
    for item in stored.canaries:
        if len(item.entry) != WIDTHS.get(item.algorithm) or item.distance not in range(8 * len(item.entry)):
            raise ListError("expected canaries of known algorithms")


def _is_sorted(rows: Rows) -> bool:
    first = np.ascontiguousarray(rows[:, :8]).view(">u8").ravel()
    if (first[1:] < first[:-1]).any():
        return False
    tied = np.flatnonzero(first[1:] == first[:-1])
    before, after = rows[tied], rows[tied + 1]
    column = (before != after).argmax(axis=1)  # 0, where both are equal, if the rows are alike
    each = np.arange(len(tied))
    return bool((before[each, column] < after[each, column]).all())
