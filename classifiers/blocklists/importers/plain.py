"""Plain lists: CSV, TSV or bare values, one a line; and lines and cells for every format that has them.

Leaves decoding to `spellings`.

- UTF-8, with or without BOM, LF or CRLF. Blank lines, and lines that begin with #, are not records.
- A record is a line; its number is that of the line in the file, from 1. Quoted cells hold no newline.
- A file is read in blocks that end with a line; only a block with quotation marks is cut line by line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import CODE_WIDTHS, WIDTHS, ListError
from classifiers.blocklists.entries import Batch, Note
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Column, Table, make_batch
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

Names: TypeAlias = Sequence[str]  # of columns, in lower case


class PlainImporter:
    """Values in columns named after their algorithms, or under `algorithm,value`; `category`; or bare values."""

    name = "plain"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        names = first_names(head)
        return _is_header(names) or bool(len(names) == 1 and _HEX_VALUE.fullmatch(names[0]))

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        check_algorithm(options, HASH_COLUMNS)
        for path in paths:
            for table in read_tables(path, _is_header, partial(_bare_names, options), _EXPECTED):
                yield _make_batch(path.name, table)


def _is_header(names: Names) -> bool:
    return {"algorithm", "value"} <= set(names) or any(name in HASH_COLUMNS for name in names)


def _bare_names(options: ReadOptions, first: Names) -> Names:
    if len(first) != 1:
        return ()
    told = _TOLD_BY_LENGTH.get(len(first[0])) if _HEX_VALUE.fullmatch(first[0]) else None
    name = options.algorithm or told
    return (name,) if name else ()


def _make_batch(file: str, table: Table) -> Batch:
    columns = table.columns
    if {"algorithm", "value"} <= set(columns):
        found, skipped = split_by_algorithm(columns["algorithm"], columns["value"], tuple(WIDTHS))
        return make_batch(file, table, found, columns.get("category"), skipped)
    found = [(name, cells) for name, cells in columns.items() if name in HASH_COLUMNS]
    return make_batch(file, table, found, columns.get("category"))


def check_algorithm(options: ReadOptions, known: Sequence[str]) -> None:
    """Refuse an algorithm that a format does not have.

    Raises:
        ListError: so it is.
    """
    if options.algorithm not in ("", *known):
        raise ListError(f"expected --algorithm to be one of {', '.join(known)}, found another name")


def split_by_algorithm(
    kinds: pa.Array, values: pa.Array, matched: Sequence[str]
) -> tuple[list[Column], dict[str, pa.Array]]:
    """Make a column for each algorithm that `kinds` names, and say, by reason, which records name another."""
    kinds = pc.replace_substring(pc.utf8_lower(kinds), "-", "")
    found = [name for name in pc.unique(kinds).to_pylist() if name in matched]
    columns = [(name, pc.if_else(pc.equal(kinds, name), values, "")) for name in found]
    return columns, {UNKNOWN_ALGORITHM: pc.invert(pc.is_in(kinds, pa.array(matched, kinds.type)))}


def read_tables(
    path: Path,
    is_header: Callable[[Names], bool],
    bare_names: Callable[[Names], Names],
    expected: str,
    delimiter: str = "",
) -> Iterator[Table]:
    """Yield the columns of a file, some MiB at a time.

    Args:
        path: of the file.
        is_header: whether the cells of the first line are the names of columns.
        bare_names: given those cells where they are not: how to name the columns, which blanks part; none if it can
            be nothing. The last column has all that remains of a line, as it is.
        expected: what columns an error asks for.
        delimiter: of the columns under a header; "" for a tab if the header has one, else a comma.

    Raises:
        ListError: the file is no text, or has no columns that can be used.
    """
    names: Names = ()
    has_header = False
    for numbers, lines in _read_lines(path):
        if not names:
            first = lines[0].as_py()
            delimiter = delimiter or _delimiter_of(first)
            names = _names_of(first, delimiter)
            has_header = is_header(names)
            names = names if has_header else bare_names(names)
            if not names or len(set(names)) < len(names):
                place = f"{path.name}:{numbers[0]}"
                raise ListError(f"{place}: expected columns, each named once: {expected}; or another --format")
            numbers, lines = numbers[has_header:], lines[has_header:]
        if has_header:
            yield _make_table(numbers, _cut(lines, delimiter), names)
        else:
            yield _make_table(numbers, pc.split_pattern(lines, " ", max_splits=len(names) - 1), names)


def first_names(head: bytes, delimiter: str = "") -> Names:
    """Return the cells, in lower case, of the first line of a file's beginning that says something; maybe none."""
    _, lines = _live_lines(head.decode("utf-8-sig", errors="ignore"), 1)
    first = lines[0].as_py() if len(lines) else ""
    return _names_of(first, delimiter or _delimiter_of(first)) if first else ()


def _read_lines(path: Path) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
    """Yield lines that say something, some MiB at a time, with their numbers.

    Raises:
        ListError: the file has none, is no UTF-8 text, or has a line that is larger than a block.
    """
    number, is_empty = 1, True
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            rest = file.readline(BLOCK_BYTES)
            after = number + block.count(b"\n")
            if len(rest) == BLOCK_BYTES:
                raise ListError(f"{path.name}:{after}: expected lines, found one of more than {BLOCK_BYTES} bytes")
            numbers, lines = _live_lines(_text_of(path, block + rest, number), number)
            number = after + rest.count(b"\n")
            if len(lines):
                is_empty = False
                yield numbers, lines
    if is_empty:
        raise ListError(f"{path.name}: expected lines, found an empty file")


def _text_of(path: Path, block: bytes, number: int) -> str:
    wrong = block.find(b"\0")
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = number + block.count(b"\n", 0, wrong)
        raise ListError(f"{path.name}:{line}: expected UTF-8 text, found other bytes; is it of another --format?")
    return text.removeprefix("\ufeff") if number == 1 else text


def _live_lines(text: str, number: int) -> tuple[NDArray[np.int64], pa.Array]:
    lines = pc.split_pattern(pa.array([text], pa.string()), "\n").flatten()
    lines = pc.ascii_trim(lines, " \r")  # a tab at an end parts cells
    live = pc.and_not(pc.not_equal(lines, ""), pc.starts_with(lines, "#"))
    return number + np.flatnonzero(live), lines.filter(live)


def _delimiter_of(line: str) -> str:
    return "\t" if "\t" in line else ","


def _names_of(line: str, delimiter: str) -> Names:
    return tuple(cell.strip().lower() for cell in _cut_quoted(line, delimiter) or [line])


def _cut(lines: pa.Array, delimiter: str) -> pa.Array:
    if not pc.any(pc.match_substring(lines, '"')).as_py():
        return pc.split_pattern(lines, delimiter)
    rows = [_cut_quoted(line, delimiter) for line in lines.to_pylist()]
    return pa.array(rows, pa.list_(pa.string()))


def _cut_quoted(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line of CSV; none if its quotes are wrong."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []


def _make_table(numbers: NDArray[np.int64], cells: pa.Array, names: Names) -> Table:
    good = np.asarray(pc.equal(pc.list_value_length(cells), len(names)), np.bool_)
    cells = cells.filter(pa.array(good))
    columns = {name: pc.ascii_trim(pc.list_element(cells, place), " \t\r") for place, name in enumerate(names)}
    notes = tuple(Note("rejected", COLUMN_COUNT, line) for line in numbers[~good].tolist())
    return Table(numbers[good], columns, notes)
