"""How a file writes a value: hex, base64 or base32, in columns of text cells.

Owns decoding, and the making of entries out of columns. Leaves finding the columns to the importers.

- The algorithm is known, so that the length of a cell tells its spelling, but for padding, which tells itself.
- Hex and base32 are read in any case, base64 in both alphabets, padding is optional; bits left over must be 0.
- All is done by column: no Python object is made for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import WIDTHS, Rows
from classifiers.blocklists.entries import NO_CATEGORY, Entries, Note

MAX_LABEL_BYTES = 256
LONG_CATEGORY = f"a category of more than {MAX_LABEL_BYTES} bytes"
NO_VALUE = "no value in any column that holds values"

_BAD = 255
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _digits(*alphabets: str) -> NDArray[np.uint8]:
    table = np.full(256, _BAD, np.uint8)
    for alphabet in alphabets:
        table[np.frombuffer(alphabet.encode(), np.uint8)] = np.arange(len(alphabet))
    return table


_BASE32 = _digits(_LETTERS + "234567", _LETTERS.lower() + "234567")
_BASE64 = _digits(*(_LETTERS + _LETTERS.lower() + "0123456789" + end for end in ("+/", "-_")))
_HEX = _digits("0123456789ABCDEF", "0123456789abcdef").astype(np.uint16)
# Two characters, as one little-endian number, give a byte at once; 256 says that they are not hex.
_FIRST, _SECOND = _HEX[None, :], _HEX[:, None]
_HEX_PAIRS = np.where((_FIRST == _BAD) | (_SECOND == _BAD), 256, _FIRST << 4 | _SECOND).astype(np.uint16).ravel()

Labels: TypeAlias = tuple[NDArray[np.int64], list[str]]  # for every row a position in the names, -1: too long


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Cells:
    """A column of text: cell i is data[starts[i]:ends[i]], uint8; an empty one stands for no value."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """In bytes."""
        return self.ends - self.starts

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Cells:
        """Return some of the cells."""
        return Cells(self.data, self.starts[rows], self.ends[rows])

    def of_width(self, width: int, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return cells that are `width` bytes long as one array, N x width."""
        return np.lib.stride_tricks.sliding_window_view(self.data, width)[self.starts[rows]]

    def texts(self) -> list[str]:
        """Return every cell as text."""
        whole = self.data.tobytes()
        bounds = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [whole[start:end].decode(errors="replace") for start, end in bounds]


def cells_of(values: pa.Array | Sequence[bytes | str | None]) -> Cells:
    """Return text or binary values, null for none, as cells.

    Raises:
        pyarrow.ArrowException: the array holds neither.
    """
    if not isinstance(values, pa.Array):
        encoded = [value.encode(errors="replace") if isinstance(value, str) else value for value in values]
        values = pa.array(encoded, pa.large_binary())
    elif pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.large_binary()).fill_null(b"")
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return Cells(np.frombuffer(data or b"", np.uint8), bounds[:-1], bounds[1:])


def decode_values(
    algorithm: str, values: Cells | pa.Array | Sequence[bytes | str | None], *, raw: bool = False
) -> tuple[Rows, NDArray[np.bool_]]:
    """Read values written as text, or, where `raw`, also as their bytes.

    Args:
        algorithm: one of `algorithms.WIDTHS`.
        values: N of them; null or empty for none.
        raw: take a value of just the width of the algorithm as it is.

    Returns:
        uint8 N x width, and bool N: which of them are values of the algorithm; the rows of others are 0.
    """
    cells = values if isinstance(values, Cells) else cells_of(values)
    width = WIDTHS[algorithm]
    values = np.zeros((len(cells.starts), width), np.uint8)
    good = np.zeros(len(values), np.bool_)
    for length, read in _spellings(width, raw):
        rows = np.flatnonzero((cells.lengths == length) & ~good)
        if len(rows):
            found, valid = read(cells.of_width(length, rows))
            rows = rows[valid]
            values[rows], good[rows] = found[valid], True
    return values, good


_Reader: TypeAlias = Callable[[NDArray[np.uint8]], tuple[Rows, NDArray[np.bool_]]]


def _spellings(width: int, raw: bool) -> Iterator[tuple[int, _Reader]]:
    """Yield the lengths of cell that a value of `width` bytes may have, and how each is read."""
    if raw:
        yield width, lambda text: (text, np.ones(len(text), np.bool_))
    yield 2 * width, _read_hex
    for digits, bits, group in ((_BASE64, 6, 4), (_BASE32, 5, 8)):
        used = -(-8 * width // bits)
        for length in {used, -(-used // group) * group}:
            yield length, partial(_read_digits, digits=digits, bits=bits, used=used, width=width)


def _read_hex(text: NDArray[np.uint8]) -> tuple[Rows, NDArray[np.bool_]]:
    found = _HEX_PAIRS[np.ascontiguousarray(text).view("<u2")]
    return found.astype(np.uint8), (found < 256).all(axis=1)


def _read_digits(
    text: NDArray[np.uint8], *, digits: NDArray[np.uint8], bits: int, used: int, width: int
) -> tuple[Rows, NDArray[np.bool_]]:
    """Read RFC 4648 digits of `bits` bits; what follows the first `used` of them is padding."""
    found = digits[text[:, :used]]
    spread = np.unpackbits(found[:, :, None], axis=2)[:, :, 8 - bits :].reshape(len(text), -1)
    good = (found != _BAD).all(axis=1) & (text[:, used:] == ord("=")).all(axis=1)
    return np.packbits(spread[:, : 8 * width], axis=1), good & ~spread[:, 8 * width :].any(axis=1)


def read_labels(cells: Cells) -> Labels:
    """Return what the cells say, each text once; for a cell of more than `MAX_LABEL_BYTES`, -1."""
    lengths = cells.lengths
    short = lengths <= MAX_LABEL_BYTES
    width = int(lengths[short].max(initial=1)) or 1
    padded = np.zeros((len(lengths), width), np.uint8)
    for length in np.unique(lengths[short & (lengths > 0)]).tolist():
        rows = np.flatnonzero(lengths == length)
        padded[rows, :length] = cells.of_width(length, rows)
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(padded), [None, pa.py_buffer(padded)])
    found = fixed.dictionary_encode()
    names = [name.rstrip(b"\0").decode(errors="replace") for name in found.dictionary.to_pylist()]
    return np.where(short, found.indices.to_numpy().astype(np.int64), -1), names


def make_entries(
    records: NDArray[np.int64],
    columns: Sequence[tuple[str, Cells]],
    categories: Labels | None,
    *,
    raw: bool = False,
) -> tuple[list[Entries], list[Note]]:
    """Turn columns of values into entries, one row a record.

    Args:
        records: int64 N.
        columns: by column its algorithm and its cells, N each.
        categories: of every record; None where the format has none.
        raw: as for `decode_values`.
    """
    codes, names = categories or (np.zeros(len(records), np.int64), [""])
    notes = [Note("rejected", LONG_CATEGORY, number) for number in records[codes < 0].tolist()]
    entries = []
    empty = np.ones(len(records), np.bool_)
    for algorithm, cells in columns:
        present = cells.lengths > 0
        empty &= ~present
        values, good = decode_values(algorithm, cells, raw=raw)
        wrong = f"not a value of {algorithm}"
        notes += [Note("rejected", wrong, number) for number in records[present & ~good].tolist()]
        codes_here = np.where(good, codes, -1)
        for code in np.unique(codes_here[codes_here >= 0]).tolist():
            rows = codes_here == code
            entries.append(Entries(algorithm, values[rows], records[rows], names[code] or NO_CATEGORY))
    notes += [Note("rejected", NO_VALUE, number) for number in records[empty].tolist()]
    return entries, notes
