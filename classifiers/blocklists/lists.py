"""Hash lists: entries of files and pictures that somebody else has judged.

Owns the thin form of a list (a CSV file) and the sets that matchers read. Leaves matching to `match`, and what a
match leads to, to the policy.

- A list is whole or refused: one bad line refuses the file, and an empty list is no list.
- An entry that would match by accident is refused: all zeros, all ones, the digest of no bytes.
- Errors name file and line, never an entry: a list is itself sensitive, and so is every line of it.
- `set_digest` depends on the entries alone, not on their order, their spelling, or how often they are repeated.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from classifiers.hashes.digests import DIGEST_WIDTHS

Purpose: TypeAlias = Literal["csam", "other"]
Rows: TypeAlias = NDArray[np.uint8]  # N x width, sorted as bytes, no two alike

CODE_ALGORITHM = "pdq"
CODE_BYTES = 32
ALGORITHMS_64 = ("phash", "dhash", "whash", "ahash")
BYTES_64 = 8
WIDTHS: Mapping[str, int] = MappingProxyType(
    DIGEST_WIDTHS | {CODE_ALGORITHM: CODE_BYTES} | dict.fromkeys(ALGORITHMS_64, BYTES_64)
)
MAX_RADIUS = 127  # two unrelated codes differ in 128 bits
DEFAULT_RADIUS = 31  # the threshold of PDQ (facebook/ThreatExchange, pdq/README.md)
MAX_RADIUS_64 = 31  # two unrelated codes of 64 bits differ in 32
DEFAULT_RADIUS_64 = 4  # ours: 64 bits hold little, so that what is not nearly equal is not taken for a match
HEADER = ("algorithm", "value")

_HEX = re.compile(r"[0-9a-fA-F]*")
_OF_NO_BYTES = {name: hashlib.new(name, b"", usedforsecurity=False).digest() for name in DIGEST_WIDTHS}


class ListError(ValueError):
    """A list cannot be used as it is. The message holds no entry."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class HashList:
    """One list, ready to be matched. All arrays are read-only.

    digests: for each of md5, sha1 and sha256 the raw digests, uint8 N x width, sorted as bytes, no two alike.
    codes: PDQ codes, uint8 N x 32, likewise.
    radius: the largest Hamming distance, in bits, at which a PDQ code counts as listed.
    codes64: imagehash codes of 64 bits by algorithm (phash, dhash, whash, ahash), uint8 N x 8, likewise.
    radius64: their radius.
    set_digest: SHA-256 in hex over the entries. For each algorithm that has any, in the order md5, pdq, sha1,
    sha256: its name in ASCII, a zero byte, the number of entries in 8 bytes big-endian, the sorted raw entries.
    """

    list_id: str
    purpose: Purpose
    digests: Mapping[str, Rows]
    codes: Rows
    radius: int
    set_digest: str
    codes64: Mapping[str, Rows]
    radius64: int

    def coded(self, algorithm: str) -> tuple[Rows, int]:
        """Return the codes of one algorithm and the radius within which they match."""
        return (
            (self.codes, self.radius) if algorithm == CODE_ALGORITHM else (self.codes64[algorithm], self.radius64)
        )

    def __repr__(self) -> str:
        counts = {name: len(rows) for name, rows in self.digests.items()} | {CODE_ALGORITHM: len(self.codes)}
        counts |= {name: len(rows) for name, rows in self.codes64.items() if len(rows)}
        return f"HashList({self.list_id!r}, {', '.join(f'{name}={count}' for name, count in counts.items())})"


def load_list(
    path: Path,
    *,
    list_id: str,
    purpose: Purpose,
    radius: int = DEFAULT_RADIUS,
    radius64: int = DEFAULT_RADIUS_64,
) -> HashList:
    """Read a list from a CSV file with the header `algorithm,value`.

    UTF-8; the algorithm is md5, sha1, sha256, pdq, phash, dhash, whash or ahash, the value is hex in any case,
    without quotes. Blanks around either, blank lines and repeated entries do no harm.

    Args:
        path: the file.
        list_id: how records and reports name the list.
        purpose: which signals the list feeds.
        radius: the largest distance, 0 to 127 bits, at which a PDQ code counts as listed.
        radius64: the same for codes of 64 bits, 0 to 31.

    Raises:
        ListError: the file breaks a rule above, holds no entry, or holds one that cannot be meant.
        OSError: the file cannot be read.
    """
    return _make(_lines(path), f"{path}: line", list_id, purpose, (radius, radius64))


def build_list(
    entries: Iterable[tuple[str, bytes]],
    *,
    list_id: str,
    purpose: Purpose,
    radius: int = DEFAULT_RADIUS,
    radius64: int = DEFAULT_RADIUS_64,
) -> HashList:
    """Make a list of pairs of algorithm and raw value, under the rules of `load_list`.

    Raises:
        ListError: as `load_list`, with the list and the position of the entry for file and line.
    """
    numbered = ((number, *entry) for number, entry in enumerate(entries, start=1))
    return _make(numbered, f"list {list_id!r}: entry", list_id, purpose, (radius, radius64))


def _make(
    entries: Iterable[tuple[int, str, bytes]], where: str, list_id: str, purpose: Purpose, radii: tuple[int, int]
) -> HashList:
    if not list_id:
        raise ListError("list_id: expected a name, found an empty one; name the list")
    if purpose not in get_args(Purpose):
        raise ListError(f"list {list_id!r}: purpose: expected {' or '.join(get_args(Purpose))}, found {purpose!r}")
    for name, radius, most in zip(("radius", "radius64"), radii, (MAX_RADIUS, MAX_RADIUS_64), strict=True):
        if not 0 <= radius <= most:
            raise ListError(f"list {list_id!r}: {name}: expected 0 to {most} bits, found {radius}")
    found: dict[str, set[bytes]] = {name: set() for name in WIDTHS}
    for number, algorithm, value in entries:
        problem = _problem(algorithm, value)
        if problem:
            raise ListError(f"{where} {number}: {problem}")
        found[algorithm].add(value)
    if not any(found.values()):
        raise ListError(f"{where} 1: expected entries, found none; leave the list out if it does not exist")
    rows = {name: _sorted_rows(values, WIDTHS[name]) for name, values in found.items()}
    digests = MappingProxyType({name: rows[name] for name in DIGEST_WIDTHS})
    codes64 = MappingProxyType({name: rows[name] for name in ALGORITHMS_64})
    return HashList(list_id, purpose, digests, rows[CODE_ALGORITHM], radii[0], _set_digest(rows), codes64, radii[1])


def _lines(path: Path) -> Iterator[tuple[int, str, bytes]]:
    header_seen = False
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            # A byte that is not UTF-8 becomes one that no algorithm and no hex value holds.
            text = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode(errors="replace")
            cells = tuple(cell.strip() for cell in text.split(","))
            if cells == ("",):
                continue
            if not header_seen:
                if cells != HEADER:
                    raise ListError(f"{path}: line {number}: expected the header {','.join(HEADER)}; add it")
                header_seen = True
                continue
            if len(cells) != len(HEADER):
                raise ListError(
                    f"{path}: line {number}: expected 2 cells, found {len(cells)}; write algorithm,value"
                )
            if not _HEX.fullmatch(cells[1]) or len(cells[1]) % 2:
                raise ListError(f"{path}: line {number}: expected a value in hex without quotes; correct the line")
            yield number, cells[0], bytes.fromhex(cells[1])


def _problem(algorithm: str, value: bytes) -> str | None:
    """Say what is wrong with an entry, without a word of it; None where nothing is."""
    if algorithm not in WIDTHS:
        return f"expected one of {', '.join(WIDTHS)}, found an unknown algorithm; drop or convert such entries"
    if len(value) != WIDTHS[algorithm]:
        return f"{algorithm}: expected {2 * WIDTHS[algorithm]} hex digits, found {2 * len(value)}; correct the line"
    if set(value) in ({0x00}, {0xFF}):
        return f"{algorithm}: expected a real value, found one of equal bits only; ask the source of the list"
    if value == _OF_NO_BYTES.get(algorithm):
        return f"{algorithm}: found the digest of an empty file, which would match every one; drop it"
    return None


def _sorted_rows(values: set[bytes], width: int) -> Rows:
    # An array over bytes is read-only.
    return np.frombuffer(b"".join(sorted(values)), np.uint8).reshape(-1, width)


def _set_digest(rows: Mapping[str, Rows]) -> str:
    digest = hashlib.sha256()
    for name in sorted(rows):
        if len(rows[name]):
            digest.update(name.encode() + b"\0" + struct.pack(">Q", len(rows[name])))
            digest.update(rows[name].tobytes())
    return digest.hexdigest()
