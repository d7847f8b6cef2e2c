"""Plain lists: CSV, TSV or bare values, one a line; and lines and cells for every format that has them.

Leaves decoding to `spellings`.

- UTF-8, with or without BOM, LF or CRLF. Blank lines, and lines that begin with #, are not records.
- A record is a line; its number is that of the line in the file, from 1. Quoted cells hold no newline.
- A file is read in blocks that end with a line; only a block with quotation marks is cut line by line.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import CODE_WIDTHS, WIDTHS, ListError
from classifiers.blocklists.entries import Batch, Entries, Note
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Cells, Labels, cells_of, make_entries, read_labels
from classifiers.hashes.digests import DIGEST_WIDTHS

BLOCK_BYTES = 4 << 20
HASH_COLUMNS = (*DIGEST_WIDTHS, *CODE_WIDTHS)
COLUMN_COUNT = "not a line of as many columns as the first"
UNKNOWN_ALGORITHM = "of an algorithm that is not matched"
_TOLD_BY_LENGTH = {32: "md5", 40: "sha1"}  # hex digits that can be nothing else
_HEX_VALUE = re.compile(r"([0-9a-f]{16}){1,2}|[0-9a-f]{40}|[0-9a-f]{64}")
_EXPECTED = (
    f"one or more of {', '.join(HASH_COLUMNS)}; or algorithm and value; or one bare value a line, with --algorithm "
    f"unless it is 32 (md5) or 40 (sha1) hex digits long"
)
_NO_DELIMITER = "\x1f"
_BLANK = np.isin(np.arange(256), [ord(" "), ord("\t"), ord("\r")])
_BLANK_BUT_TAB = np.isin(np.arange(256), [ord(" "), ord("\r")])


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Lines cut into cells: int64 N numbers of lines, N cells a column, and a note for every other line."""

    lines: NDArray[np.int64]
    columns: tuple[Cells, ...]
    notes: tuple[Note, ...]

    @property
    def records(self) -> NDArray[np.int64]:
        """The numbers of all lines that are records."""
        return np.sort(np.concatenate([self.lines, [note.record for note in self.notes]]).astype(np.int64))

    def take(self, rows: NDArray[np.bool_]) -> Table:
        """Return some of the lines, and all notes."""
        return Table(self.lines[rows], tuple(column.take(rows) for column in self.columns), self.notes)


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """The first line that is not blank or a comment: its number in its block, from 0, and its cells, lower case."""

    number: int
    delimiter: str
    names: tuple[str, ...]


class PlainImporter:
    """Values in columns named after their algorithms, or under `algorithm,value`; `category`; or bare values."""

    name = "plain"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        names = read_head(head).names
        return _is_header(names) or bool(len(names) == 1 and _HEX_VALUE.fullmatch(names[0]))

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        check_algorithm(options, HASH_COLUMNS)
        for path in paths:
            for names, table in read_tables(path, _is_header, partial(_tell, options)):
                columns = dict(zip(names, table.columns, strict=True))
                categories = read_labels(columns["category"]) if "category" in columns else None
                if "algorithm" in columns:
                    kinds, values = columns["algorithm"], columns["value"]
                    entries, notes = entries_by_algorithm(table.lines, kinds, values, categories, tuple(WIDTHS))
                else:
                    found = [(name, cells) for name, cells in columns.items() if name in HASH_COLUMNS]
                    entries, notes = make_entries(table.lines, found, categories)
                yield Batch(path.name, table.records, tuple(entries), (*table.notes, *notes))


def _is_header(names: Sequence[str]) -> bool:
    return {"algorithm", "value"} <= set(names) or any(name in HASH_COLUMNS for name in names)


def _tell(options: ReadOptions, names: Sequence[str]) -> str:
    if len(names) != 1:
        return ""
    return options.algorithm or (_HEX_VALUE.fullmatch(names[0]) and _TOLD_BY_LENGTH.get(len(names[0]))) or ""


def check_algorithm(options: ReadOptions, known: Sequence[str]) -> None:
    """Refuse an algorithm that a format does not have.

    Raises:
        ListError: so it is.
    """
    if options.algorithm not in ("", *known):
        raise ListError(f"expected --algorithm to be one of {', '.join(known)}, found another name")


def entries_by_algorithm(
    lines: NDArray[np.int64], kinds: Cells, values: Cells, categories: Labels | None, matched: Sequence[str]
) -> tuple[list[Entries], list[Note]]:
    """Turn a column of values into entries where another column names the algorithm; others are skipped."""
    codes, names = read_labels(kinds)
    entries: list[Entries] = []
    notes: list[Note] = []
    for code in np.unique(codes).tolist():
        rows = codes == code
        algorithm = names[code].lower().replace("-", "") if code >= 0 else ""
        if algorithm in matched:
            part = (categories[0][rows], categories[1]) if categories else None
            found = make_entries(lines[rows], [(algorithm, values.take(rows))], part)
            entries += found[0]
            notes += found[1]
        else:
            notes += [Note("skipped", UNKNOWN_ALGORITHM, line) for line in lines[rows].tolist()]
    return entries, notes


def read_tables(
    path: Path,
    is_header: Callable[[Sequence[str]], bool],
    tell: Callable[[Sequence[str]], str],
    delimiter: str = "",
    expected: str = _EXPECTED,
) -> Iterator[tuple[Sequence[str], Table]]:
    """Yield the columns of a file, some MiB at a time, with their names in lower case.

    Args:
        path: of the file.
        is_header: whether the first line names the columns.
        tell: what a line is called as a whole where the first names no columns; "" if it can be nothing.
        delimiter: of the columns; "" for a tab if the first line has one, else a comma.
        expected: what columns an error asks for.

    Raises:
        ListError: the file is no text, or has no columns that can be used.
    """
    names: Sequence[str] = ()
    for number, block in read_blocks(path):
        header = -1
        if not names:
            head = read_head(block, delimiter)
            if not head.names:
                continue
            names, mark = head.names, head.delimiter
            if is_header(names):
                header = number + head.number
            else:
                names, mark = [tell(names)], _NO_DELIMITER
            if names == [""] or len(set(names)) < len(names):
                place = f"{path.name}:{number + head.number}"
                raise ListError(f"{place}: expected columns, each named once: {expected}; or another --format")
        table = split(block, number, mark, len(names))
        table = table.take(table.lines != header)
        if len(table.records):
            yield names, table


def read_head(block: bytes, delimiter: str = "") -> Head:
    """Find the first line of a file's beginning that says something; without names if there is none."""
    for number, line in enumerate(block.decode(errors="ignore").removeprefix("\ufeff").split("\n")):
        line = line.strip(" \r")
        if line and not line.startswith("#"):
            mark = delimiter or ("\t" if "\t" in line else ",")
            return Head(number, mark, tuple(cell.strip().lower() for cell in _cut(line, mark) or [line]))
    return Head(0, "", ())


def read_blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines, some MiB at a time, with the number of the first; every line ends with a newline.

    Raises:
        ListError: the file is empty, is no UTF-8 text, or has a line that is larger than a block.
    """
    number, rest = 1, b""
    with path.open("rb") as file:
        start = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        while chunk := start + file.read(BLOCK_BYTES):
            start = b""
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield number, _check_text(path, number, lines + newline)
                number += lines.count(b"\n") + 1
            if len(rest) > BLOCK_BYTES:
                raise ListError(f"{path.name}:{number}: expected lines, found one of more than {BLOCK_BYTES} bytes")
    if rest:
        yield number, _check_text(path, number, rest + b"\n")
    elif number == 1:
        raise ListError(f"{path.name}: expected lines, found an empty file")


def _check_text(path: Path, number: int, block: bytes) -> bytes:
    wrong = block.find(b"\0")
    try:
        block.decode()
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = number + block.count(b"\n", 0, wrong)
        raise ListError(f"{path.name}:{line}: expected UTF-8 text, found other bytes; is it of another --format?")
    return block


def split(block: bytes, number: int, delimiter: str, columns: int, *, rest: bool = False) -> Table:
    """Cut lines into cells, without the blanks around them.

    Args:
        block: whole lines.
        number: of the first line.
        delimiter: one ASCII character.
        columns: how many cells a line has; other lines are noted.
        rest: the last cell holds all that remains of the line, and quotes are characters like others.
    """
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    lines = _strip(Cells(data, np.concatenate([[0], ends[:-1] + 1]), ends), _BLANK_BUT_TAB)
    live = (lines.lengths > 0) & (data[lines.starts] != ord("#"))
    numbers, lines = number + np.flatnonzero(live), lines.take(live)
    if b'"' in block and not rest:
        cells, good = _split_quoted(lines, delimiter, columns)
    else:
        cells, good = _split_plain(lines, delimiter, columns, rest)
    notes = tuple(Note("rejected", COLUMN_COUNT, line) for line in numbers[~good].tolist())
    return Table(numbers[good], tuple(_strip(column, _BLANK) for column in cells), notes)


def _split_plain(lines: Cells, delimiter: str, columns: int, rest: bool) -> tuple[list[Cells], NDArray[np.bool_]]:
    places = np.flatnonzero(lines.data == ord(delimiter))
    first = np.searchsorted(places, lines.starts)
    count = np.searchsorted(places, lines.ends) - first
    good = count >= columns - 1 if rest else count == columns - 1
    lines, first = lines.take(good), first[good]
    inner = [places[first + column] for column in range(columns - 1)]
    starts, ends = [lines.starts, *(place + 1 for place in inner)], [*inner, lines.ends]
    return [Cells(lines.data, start, end) for start, end in zip(starts, ends, strict=True)], good


def _split_quoted(lines: Cells, delimiter: str, columns: int) -> tuple[list[Cells], NDArray[np.bool_]]:
    rows = [_cut(line, delimiter) for line in lines.texts()]
    good = np.array([len(row) == columns for row in rows], np.bool_)
    cells = cells_of([cell for row in rows if len(row) == columns for cell in row])
    return [cells.take(np.arange(column, len(cells.starts), columns)) for column in range(columns)], good


def _cut(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line of CSV; none if its quotes are wrong."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []


def _strip(cells: Cells, blank: NDArray[np.bool_]) -> Cells:
    starts, ends = cells.starts.copy(), cells.ends.copy()
    for side, shift, step in ((starts, 0, 1), (ends, -1, -1)):
        rows = np.flatnonzero(starts < ends)
        while len(rows):
            rows = rows[blank[cells.data[side[rows] + shift]]]
            side[rows] += step
            rows = rows[starts[rows] < ends[rows]]
    return Cells(cells.data, starts, ends)
