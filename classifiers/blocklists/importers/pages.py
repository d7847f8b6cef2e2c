"""What the importers of records, JSON or XML, have in common: their values, their stream, and which version stands.

Owns turning records into batches one by one, reading JSON as a stream, and settling which of several versions of a
record is the one that counts. Leaves what a record means to the importer of its format.

- A value is hexadecimal digits of the width of its algorithm, in either case, or it is rejected.
- Which version stands depends on keys and times alone, and on names of files and positions where times are equal:
  never on the order in which the files were given.
"""

from __future__ import annotations

import re
from array import array
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import ijson
import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import WIDTHS, ListError
from classifiers.blocklists.entries import NO_CATEGORY, Batch, Entries, Fate, Note

HEAD_BYTES = 1 << 16
BATCH_RECORDS = 20_000
MAX_CATEGORY = 64  # characters
MAX_DEPTH = 5000  # the parser holds some 100 MB of paths there
NO_VALUE = "no value that could be an entry"
NO_VERSION = "no key or no time, by which its versions are told apart"

Version: TypeAlias = tuple[str, float, bool]  # the key, its time in seconds, whether it takes the key back
Record = TypeVar("Record")

_HEX = re.compile("[0-9A-Fa-f]*")
_STEPS = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))  # brackets
_NEVER_S = 1e15  # no time: what is not a number, infinite, or beyond any calendar
_LOST = {"withdrawn": "taken back by its owner", "superseded": "an older version of a record that was read too"}


def is_value(algorithm: str, text: str) -> bool:
    """Say whether a text is the digits of a value."""
    return len(text) == 2 * WIDTHS[algorithm] and _HEX.fullmatch(text) is not None


class Unusable(Exception):  # noqa: N818 - no error of a program: it says what became of a record
    """A record is rejected as a whole. The message is a fixed phrase without a word of the input."""


class _Object(dict[str, object]):
    """A JSON object; a name that comes twice would hide a value, so it is told: ijson loses what is raised here."""

    __slots__ = ("_twice",)

    def __init__(self, twice: list[str]) -> None:
        self._twice = twice

    def __setitem__(self, name: str, value: object) -> None:
        if name in self:
            self._twice.append(name)
        dict.__setitem__(self, name, value)


class _Shallow:
    """A JSON file that is not nested deeper than any list is: the parser keeps the path to where it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._depth = file, 0

    def read(self, size: int = -1) -> bytes:
        """Read on; brackets in texts count, which errs by as many as do not pair."""
        data = self._file.read(size)
        depths = self._depth + np.cumsum(np.frombuffer(data.translate(_STEPS), np.int8), dtype=np.int64)
        if depths.max(initial=0) > MAX_DEPTH:
            raise ValueError("nested too deep")
        self._depth = max(0, int(depths[-1])) if data else 0
        return data


class Gathered:
    """Records of one file on their way into a batch. `numbers` are theirs; what is told belongs to the last."""

    def __init__(self, file: str) -> None:
        self.numbers: list[int] = []
        self._file = file
        self._texts: defaultdict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        self._notes: list[Note] = []

    def take(self, algorithm: str, category: str | None, text: object) -> None:
        """Take a value of the record, or say that it is none."""
        if type(text) is not str or not is_value(algorithm, text):
            self.note("rejected", f"not a value of {algorithm} in hexadecimal digits")
        elif category is not None and not (category.isprintable() and 0 < len(category) <= MAX_CATEGORY):
            self.note("rejected", f"a category that is not 1 to {MAX_CATEGORY} printable characters")
        else:
            self._texts[algorithm, category or NO_CATEGORY].append((text, self.numbers[-1]))

    def note(self, fate: Fate, reason: str) -> None:
        """Say why the record, or one of its values, gives no entry."""
        self._notes.append(Note(fate, reason, self.numbers[-1]))

    def batch(self) -> Batch:
        """Return the records."""
        entries = []
        for (algorithm, category), found in self._texts.items():
            digits = bytes.fromhex("".join(text for text, _ in found))
            values = np.frombuffer(digits, np.uint8).reshape(len(found), -1)
            records = np.array([number for _, number in found], np.int64)
            entries.append(Entries(algorithm, values, records, category))
        return Batch(self._file, np.array(self.numbers, np.int64), tuple(entries), tuple(self._notes))


def batches(path: Path, records: Iterable[Record], take: Callable[[Record, Gathered], object]) -> Iterator[Batch]:
    """Number the records of a file from 1 and yield them in batches; `take` tells `Gathered` of a record.

    A record for which it raises `Unusable` is rejected.
    """
    gathered = Gathered(path.name)
    for number, record in enumerate(records, 1):
        gathered.numbers.append(number)
        try:
            take(record, gathered)
        except Unusable as error:
            gathered.note("rejected", str(error))
        if len(gathered.numbers) == BATCH_RECORDS:
            yield gathered.batch()
            gathered = Gathered(path.name)
    yield gathered.batch()


def newest(
    paths: Sequence[Path],
    records: Callable[[Path], Iterable[Record]],
    take: Callable[[Record, Gathered], Version],
    is_last: Sequence[bool] = (),
) -> Iterator[Batch]:
    """Yield the batches of all files once all are read, in each only what is not taken back or written anew.

    Of the versions of a key the one of the latest time stands; at equal times one that takes the key back, else the
    later by name of the file and by position. Some 200 bytes are held a record.

    Args:
        paths: the files of one list.
        records: reads a file.
        take: as for `batches`, and returns the version of the record.
        is_last: what `records` has found out by its end: of every page whether no other follows.

    Raises:
        ListError: every page says that another follows.
    """
    keys, times_s, deleted = bytearray(), array("d"), array("b")  # 16 bytes a key: it may be long

    def take_version(record: Record, gathered: Gathered) -> None:
        name, time_s, is_deleted = f"record {len(times_s)}", 0.0, False  # what has no version is one of its own
        try:
            key, time_s, is_deleted = take(record, gathered)
            name = f"key {key}"
        finally:
            keys.extend(blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest())
            times_s.append(time_s)
            deleted.append(is_deleted)

    held = [batch for path in sorted(paths) for batch in batches(path, records(path), take_version)]
    if is_last and not any(is_last):
        raise ListError(f"{paths[-1].name}: every page says that another follows; get the last page too")
    withdrawn, superseded = _outdated(np.frombuffer(keys, "V16"), np.array(times_s), np.array(deleted, np.bool_))
    start = 0
    for batch in held:
        part = slice(start, start + len(batch.records))
        start = part.stop
        yield _without(batch, {"withdrawn": withdrawn[part], "superseded": superseded[part]})


def _outdated(
    keys: NDArray[np.void], times_s: NDArray[np.float64], deleted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say of every record whether it is withdrawn, and whether it is superseded."""
    _, numbers = np.unique(keys, return_inverse=True)
    order = np.lexsort((deleted, times_s, numbers))  # stable
    last = np.empty(len(order), np.intp)
    last[numbers[order]] = order  # of what is assigned to a key, the last stays
    is_last = last[numbers] == np.arange(len(order))
    withdrawn = np.where(deleted, is_last, deleted[last[numbers]])
    return withdrawn, ~withdrawn & ~is_last


def _without(batch: Batch, lost: Mapping[Fate, NDArray[np.bool_]]) -> Batch:
    notes = [Note(fate, _LOST[fate], n) for fate, rows in lost.items() for n in batch.records[rows].tolist()]
    gone = [note.record for note in notes]
    kept = [(block, ~np.isin(block.records, gone)) for block in batch.entries]
    entries = tuple(replace(b, values=b.values[keep], records=b.records[keep]) for b, keep in kept)
    return replace(batch, entries=entries, notes=(*notes, *batch.notes))


def fields_of(record: object) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        Unusable: it is none.
    """
    if not isinstance(record, dict):
        raise Unusable("not a record with named fields")
    return record


def seconds_of(time: object) -> float:
    """Return a time, a number of seconds or ISO 8601 (UTC if no zone is given), as seconds since 1970.

    Raises:
        Unusable: it is neither.
    """
    if isinstance(time, str):
        try:
            parsed = datetime.fromisoformat(time)
        except ValueError:
            raise Unusable(NO_VERSION) from None
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float) or not abs(time) < _NEVER_S:
        raise Unusable(NO_VERSION)
    return float(time)


def head_of(path: Path) -> bytes:
    """Return the beginning of a file, without a byte order mark."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES).removeprefix(BOM_UTF8)


def read_json(path: Path, prefix: str, *, several: bool = False) -> Iterator[Any]:
    """Yield what lies under `prefix` (of ijson) in a JSON file, or in several JSON values one after the other.

    Raises:
        ListError: the file is not JSON, ends too early, has nothing there, or an object names a field twice.
    """
    number = 0
    twice: list[str] = []
    with path.open("rb") as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        try:
            options = {"use_float": True, "multiple_values": several, "map_type": partial(_Object, twice)}
            for value in ijson.items(_Shallow(file), prefix, **options):
                if twice:
                    raise ValueError("an object names a field twice")
                number += 1
                yield value
        except (ijson.JSONError, ValueError):  # the message of the parser holds a part of the file
            what = "the file ends too early, is not JSON, names a field twice, or is nested deeper than any list"
            raise ListError(f"{path.name}: after record {number}: {what}; get it anew") from None
    if not number:
        raise ListError(f"{path.name}: expected records, found none where this format has them")


def read_members(path: Path) -> Iterator[Any]:
    """Yield the members of a JSON file that is a list, or the values of one that holds one or several of them."""
    is_list = head_of(path).lstrip().startswith(b"[")
    return read_json(path, "item" if is_list else "", several=not is_list)
