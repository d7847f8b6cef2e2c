"""How a file writes a value, hex, base64 or base32, and how columns of such cells become entries.

Owns decoding, and the making of a batch out of columns. Leaves finding the columns to the importers.

- The algorithm is known, so that the length of a cell tells its spelling, but for padding, which tells itself.
- Hex is read in either case, base64 and base32 in the alphabets of RFC 4648, 4 and 6, with their padding or none;
  bits left over must be 0.
- All is done by column: no Python object is made for a value. An empty cell stands for no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import WIDTHS, Rows
from classifiers.blocklists.entries import NO_CATEGORY, Batch, Entries, Note

MAX_LABEL_BYTES = 256
LONG_CATEGORY = f"a category of more than {MAX_LABEL_BYTES} bytes"
NO_VALUE = "no value in any column that holds values"

_BAD = 255
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Column: TypeAlias = tuple[str, pa.Array]  # an algorithm, and text or bytes of its values without nulls


def _digits(*alphabets: str) -> NDArray[np.uint8]:
    table = np.full(256, _BAD, np.uint8)
    for alphabet in alphabets:
        table[np.frombuffer(alphabet.encode(), np.uint8)] = np.arange(len(alphabet))
    return table


_HEX = _digits("0123456789ABCDEF", "0123456789abcdef")
_BASE32 = _digits(_LETTERS + "234567")
_BASE64 = _digits(_LETTERS + _LETTERS.lower() + "0123456789+/")
_SPELLINGS = ((_HEX, 4, 2), (_BASE64, 6, 4), (_BASE32, 5, 8))  # with bits a digit, digits a group


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Table:
    """Records cut into cells: int64 N numbers, N cells a column by its name, and a note for every other record."""

    records: NDArray[np.int64]
    columns: Mapping[str, pa.Array]
    notes: tuple[Note, ...] = ()


def decode_values(algorithm: str, cells: pa.Array, *, raw: bool = False) -> tuple[Rows, NDArray[np.bool_]]:
    """Read values written as text, or, where `raw`, also as their bytes.

    Args:
        algorithm: one of `algorithms.WIDTHS`.
        cells: N texts or bytes.
        raw: take a value of just the width of the algorithm as it is.

    Returns:
        uint8 N x width, and bool N: which of them are values of the algorithm; the rows of others mean nothing.
    """
    width = WIDTHS[algorithm]
    lengths = _lengths(cells)
    values = np.zeros((len(cells), width), np.uint8)
    good = (lengths == width) & raw
    values[good] = _matrix(cells, good, width)
    for digits, bits, group in _SPELLINGS:
        used = -(-8 * width // bits)
        for length in {used, -(-used // group) * group}:
            rows = (lengths == length) & ~good
            if rows.any():
                values[rows], good[rows] = _read_digits(_matrix(cells, rows, length), digits, bits, width)
    return values, good


def _lengths(cells: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.binary_length(cells), np.int64)


def _matrix(cells: pa.Array, rows: NDArray[np.bool_], length: int) -> NDArray[np.uint8]:
    """Return those of the cells, all of one length, as uint8 N x length."""
    data = cells.filter(pa.array(rows)).cast(pa.large_binary()).cast(pa.binary(length)).buffers()[1]
    return np.frombuffer(data or b"", np.uint8, int(rows.sum()) * length).reshape(-1, length)


def _read_digits(
    text: NDArray[np.uint8], digits: NDArray[np.uint8], bits: int, width: int
) -> tuple[Rows, NDArray[np.bool_]]:
    """Read digits of `bits` bits each; what follows as many as `width` bytes need is padding."""
    used = -(-8 * width // bits)
    found = digits[text[:, :used]]
    good = (found != _BAD).all(axis=1) & (text[:, used:] == ord("=")).all(axis=1)
    if digits is _HEX:  # most lists are hex, and this is several times as fast as what follows
        return found[:, ::2] << np.uint8(4) | found[:, 1::2], good
    spread = np.unpackbits(found[:, :, None], axis=2)[:, :, 8 - bits :].reshape(len(text), -1)
    return np.packbits(spread[:, : 8 * width], axis=1), good & ~spread[:, 8 * width :].any(axis=1)


def make_batch(
    file: str,
    table: Table,
    columns: Sequence[Column],
    categories: pa.Array | None = None,
    skipped: Mapping[str, pa.Array] = MappingProxyType({}),
    *,
    raw: bool = False,
) -> Batch:
    """Turn columns of values into a batch.

    Args:
        file: its name.
        table: the records; its notes are kept.
        columns: N cells each.
        categories: N texts or bytes; None where there are none.
        skipped: by reason, bool N: records that are noted as skipped, and need no value.
        raw: as for `decode_values`.
    """
    records = table.records
    codes, names = _labels(records, categories)
    without = np.ones(len(records), np.bool_)
    entries, notes = [], list(table.notes)
    for reason, chosen in skipped.items():
        rows = np.asarray(chosen, np.bool_)
        notes += [Note("skipped", reason, number) for number in records[rows].tolist()]
        without &= ~rows
    rejected = [(LONG_CATEGORY, codes < 0)]
    for algorithm, cells in columns:
        present = _lengths(cells) > 0
        values, good = decode_values(algorithm, cells, raw=raw)
        rejected.append((f"not a value of {algorithm}", present & ~good))
        without &= ~present
        for code in np.unique(codes[good & (codes >= 0)]).tolist():
            rows = good & (codes == code)
            entries.append(Entries(algorithm, values[rows], records[rows], names[code] or NO_CATEGORY))
    for reason, rows in [*rejected, (NO_VALUE, without)]:
        notes += [Note("rejected", reason, number) for number in records[rows].tolist()]
    numbers = np.array([note.record for note in table.notes], np.int64)
    return Batch(file, np.sort(np.concatenate([records, numbers])), tuple(entries), tuple(notes))


def _labels(records: NDArray[np.int64], cells: pa.Array | None) -> tuple[NDArray[np.int64], list[str]]:
    """Return for every record a position in the labels, -1 for one that is too long, and the labels."""
    if cells is None:
        return np.zeros(len(records), np.int64), [""]
    found = cells.cast(pa.large_binary()).dictionary_encode()
    codes = np.where(_lengths(cells) > MAX_LABEL_BYTES, -1, np.asarray(found.indices, np.int64))
    return codes, [label.decode(errors="replace") for label in found.dictionary.to_pylist()]
