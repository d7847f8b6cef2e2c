"""The file of one version of a list: flat arrays behind a short header.

Owns the bytes, what each effect does to an entry, and the digest of a set. Leaves folders, encryption and the
manifest to `pipeline.lists`.

- magic line, length of the header (8 bytes big-endian), header (JSON), arrays and pictures one after the other,
  SHA-256 of all that precedes it. The same list gives the same bytes.
- Canaries lie apart from the entries: no count and no set digest holds them.
- What is read has the same shape as what may be written, or it is a `ListError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import WIDTHS, ListError, Rows
from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.entries import MAX_CATEGORIES

Effect: TypeAlias = Literal["case", "remove", "ignore"]
EFFECTS: tuple[Effect, ...] = ("case", "remove", "ignore")  # strictest first

_MAGIC = b"shardscrub-list/1\n"
_LENGTH_BYTES = 8
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StoredList:
    """One version of a list.

    rows: by algorithm, uint8 N x width, sorted as bytes, no two alike, N >= 1.
    masks: by algorithm, unsigned N, bit i = of `categories[i]`; no entry has the effect `ignore`.
    effects: of every category.
    """

    rows: Mapping[str, Rows]
    masks: Mapping[str, NDArray[np.unsignedinteger]]
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
            digest.update(name.encode() + b"\0" + len(rows[name]).to_bytes(8, "big"))
            digest.update(np.ascontiguousarray(rows[name]).data)
    return digest.hexdigest()


def strictest(
    masks: NDArray[np.unsignedinteger], categories: Sequence[str], effects: Mapping[str, Effect]
) -> NDArray[np.uint8]:
    """Return for every entry the position in `EFFECTS` of the strictest effect among its categories."""
    found = np.full(len(masks), EFFECTS.index("ignore"), np.uint8)
    for position in (1, 0):
        bits = sum(1 << bit for bit, name in enumerate(categories) if effects[name] == EFFECTS[position])
        found[(masks & masks.dtype.type(bits)) != 0] = position
    return found


def encode_list(stored: StoredList) -> bytes:
    """Return the bytes of a list.

    Raises:
        ListError: the list is not as `StoredList` says.
    """
    _check(stored)
    names = sorted(stored.rows)
    canaries = [[item.algorithm, item.entry.hex(), item.distance, len(item.image)] for item in stored.canaries]
    header = {
        "algorithms": [[name, len(stored.rows[name])] for name in names],
        "canaries": canaries,
        "categories": stored.categories,
        "effects": dict(stored.effects),
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    mask_type = _mask_type(stored.categories)
    parts: list[Any] = [_MAGIC, len(text).to_bytes(_LENGTH_BYTES, "big"), text]
    for name in names:
        parts += [np.ascontiguousarray(stored.rows[name]), stored.masks[name].astype(mask_type)]
    parts += [item.image for item in stored.canaries]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


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
        stored = _decode(body)
        _check(stored)
    except ListError as error:
        raise ListError(f"damaged: {error}") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ListError(f"damaged: {type(error).__name__}") from None
    return stored


def _decode(body: memoryview) -> StoredList:
    start = len(_MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(body[len(_MAGIC) : start], "big")
    header = json.loads(bytes(body[start:end]))
    categories = tuple(header["categories"])
    mask_type = _mask_type(categories)
    sizes = [count * size for name, count in header["algorithms"] for size in (WIDTHS[name], mask_type.itemsize)]
    sizes += [size for *_, size in header["canaries"]]
    ends = list(accumulate(sizes, initial=end))
    if ends[-1] != len(body) or min(sizes) < 0:
        raise ListError("its length is not that of its parts")
    parts = (body[start:end] for start, end in pairwise(ends))
    rows: dict[str, Rows] = {}
    masks: dict[str, NDArray[np.unsignedinteger]] = {}
    for name, _ in header["algorithms"]:
        rows[name] = np.frombuffer(next(parts), np.uint8).reshape(-1, WIDTHS[name])
        masks[name] = np.frombuffer(next(parts), mask_type)
    canaries = tuple(
        Canary(bytes(next(parts)), algorithm, bytes.fromhex(entry), distance)
        for algorithm, entry, distance, _ in header["canaries"]
    )
    return StoredList(rows, masks, categories, header["effects"], canaries)


def _mask_type(categories: Sequence[str]) -> np.dtype[Any]:
    return np.dtype(next(f"<u{size}" for size in (1, 2, 4, 8) if len(categories) <= 8 * size or size == 8))


def _check(stored: StoredList) -> None:
    """Refuse what is not as `StoredList` says."""
    names, effects = stored.categories, stored.effects
    if len(set(names)) != len(names) or len(names) > MAX_CATEGORIES or set(effects) != set(names):
        raise ListError(f"expected at most {MAX_CATEGORIES} categories, each with a name and an effect of its own")
    if set(effects.values()) - set(EFFECTS):
        raise ListError(f"expected one of {', '.join(EFFECTS)} for every category")
    if not stored.rows or set(stored.rows) != set(stored.masks):
        raise ListError("expected entries, and categories for all of them")
    for name, rows in stored.rows.items():
        masks = stored.masks[name]
        if not len(rows) or rows.shape != (*masks.shape, WIDTHS.get(name)):
            raise ListError(f"{name}: expected entries of a known width, with one set of categories each")
        unknown = int(np.bitwise_or.reduce(masks)) >> len(names)
        if unknown or (strictest(masks, names, effects) == EFFECTS.index("ignore")).any():
            raise ListError(f"{name}: expected entries with known categories, not all of them ignored")
        keys = np.ascontiguousarray(rows).view(f"S{WIDTHS[name]}").ravel()
        if not (keys[1:] > keys[:-1]).all():
            raise ListError(f"{name}: expected entries sorted as bytes, no two alike")
    for item in stored.canaries:
        if len(item.entry) != WIDTHS.get(item.algorithm) or item.distance not in range(8 * len(item.entry)):
            raise ListError("expected canaries of known algorithms")
