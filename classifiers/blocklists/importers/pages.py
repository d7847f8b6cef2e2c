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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
NOT_A_RECORD = "not a record with named fields"
NO_VERSION = "no key or no time, by which its versions are told apart"
WITHDRAWN = "taken back by its owner"
SUPERSEDED = "an older version of a record that was read too"

Version: TypeAlias = tuple[str, float, bool]  # the key, its time in seconds, whether it takes the key back
Record = TypeVar("Record")

_HEX = re.compile("[0-9A-Fa-f]*")
_STEPS = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))  # brackets
_NEVER_S = 1e15  # no time: what is not a number, infinite, or beyond any calendar
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STANDS, _WITHDRAWN, _SUPERSEDED = range(3)


def is_value(algorithm: str, text: str) -> bool:
    """Say whether a text is the digits of a value."""
    return len(text) == 2 * WIDTHS[algorithm] and _HEX.fullmatch(text) is not None


class Unusable(Exception):  # noqa: N818 - no error of a program: it says what became of a record
    """A record is rejected as a whole. The message is a fixed phrase without a word of the input."""


class _Object(dict[str, object]):
    """A JSON object; a name that comes twice would hide a value, so it is told: ijson loses what is raised here."""

    __slots__ = ("_twice",)

    def __init__(self, twice: list[int]) -> None:
        self._twice = twice

    def __setitem__(self, name: str, value: object) -> None:
        if name in self:
            self._twice.append(len(self))
        dict.__setitem__(self, name, value)


class _Shallow:
    """A JSON file that is not nested deeper than any list is: the parser keeps the path to where it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._depth = file, 0

    def read(self, size: int = -1) -> bytes:
        """Read on; brackets in texts count, which errs by as many as do not pair."""
        data = self._file.read(size)
        opened, closed = (sum(map(data.count, pair)) for pair in ((b"[", b"{"), (b"]", b"}")))
        if self._depth + opened > MAX_DEPTH:
            steps = np.frombuffer(data.translate(_STEPS), np.int8)
            if self._depth + int(np.cumsum(steps, dtype=np.int64).max(initial=0)) > MAX_DEPTH:
                raise ValueError("nested too deep")
        self._depth = max(0, self._depth + opened - closed)
        return data


class Gathered:
    """Records of one file on their way into a batch."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._numbers: list[int] = []
        self._texts: dict[tuple[str, str], tuple[list[str], list[int]]] = {}
        self._notes: list[Note] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def begin(self, number: int) -> None:
        """Add a record, to which what is told next belongs."""
        self._numbers.append(number)

    def take(self, algorithm: str, category: str | None, text: object) -> None:
        """Take a value of the record, or say that it is none."""
        if type(text) is not str or not is_value(algorithm, text):
            self.note("rejected", f"not a value of {algorithm} in hexadecimal digits")
        elif category is not None and not (category.isprintable() and 0 < len(category) <= MAX_CATEGORY):
            self.note("rejected", f"a category that is not 1 to {MAX_CATEGORY} printable characters")
        else:
            texts, numbers = self._texts.setdefault((algorithm, category or NO_CATEGORY), ([], []))
            texts.append(text)
            numbers.append(self._numbers[-1])

    def note(self, fate: Fate, reason: str) -> None:
        """Say why the record, or one of its values, gives no entry."""
        self._notes.append(Note(fate, reason, self._numbers[-1]))

    def batch(self) -> Batch:
        """Return the records, and begin anew."""
        entries = []
        for (algorithm, category), (texts, numbers) in self._texts.items():
            values = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(len(texts), -1)
            entries.append(Entries(algorithm, values, np.array(numbers, np.int64), category))
        batch = Batch(self._file, np.array(self._numbers, np.int64), tuple(entries), tuple(self._notes))
        self._numbers, self._texts, self._notes = [], {}, []
        return batch


def batches(path: Path, records: Iterable[Record], take: Callable[[Record, Gathered], object]) -> Iterator[Batch]:
    """Number the records of a file from 1 and yield them in batches; `take` tells `Gathered` of a record.

    A record for which it raises `Unusable` is rejected.
    """
    gathered = Gathered(path.name)
    for number, record in enumerate(records, 1):
        gathered.begin(number)
        try:
            take(record, gathered)
        except Unusable as error:
            gathered.note("rejected", str(error))
        if len(gathered) == BATCH_RECORDS:
            yield gathered.batch()
    yield gathered.batch()


def newest(
    paths: Sequence[Path],
    records: Callable[[Path], Iterable[Record]],
    take: Callable[[Record, Gathered], Version],
) -> Iterator[Batch]:
    """Yield the batches of all files once all are read, in each only what is not taken back or written anew.

    Of the versions of a key the one of the latest time stands; at equal times one that takes the key back, else the
    later by name of the file and by position. Some 200 bytes are held a record.

    Args:
        paths: the files of one list.
        records: reads a file.
        take: as for `batches`, and returns the version of the record.
    """
    versions = _Versions()

    def take_version(record: Record, gathered: Gathered) -> None:
        version = None
        try:
            version = take(record, gathered)
        finally:
            versions.add(version)

    held = [batch for path in sorted(paths) for batch in batches(path, records(path), take_version)]
    yield from versions.settle(held)


class _Versions:
    def __init__(self) -> None:
        self._keys = bytearray()  # 16 bytes each: a key may be long, and is a word of the input
        self._times_s = array("d")
        self._deleted = array("b")

    def add(self, version: Version | None) -> None:
        key, time_s, deleted = version or ("", 0.0, False)
        text = f"key {key}" if version else f"record {len(self._times_s)}"  # what has no version is one of its own
        self._keys += blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        self._times_s.append(time_s)
        self._deleted.append(deleted)

    def _fates(self) -> NDArray[np.int8]:
        keys = np.frombuffer(self._keys, "<u8").reshape(-1, 2)
        deleted = np.array(self._deleted, np.bool_)
        order = np.lexsort((deleted, np.array(self._times_s), keys[:, 1], keys[:, 0]))  # stable
        keys, deleted = keys[order], deleted[order]
        last = np.append((keys[1:] != keys[:-1]).any(axis=1), True)[: len(keys)]
        ended = deleted[last][np.cumsum(last) - last]  # whether the last version of its key takes the key back
        fates = np.empty(len(order), np.int8)
        withdrawn = np.where(deleted, last, ended)
        fates[order] = np.where(withdrawn, _WITHDRAWN, np.where(last, _STANDS, _SUPERSEDED))
        return fates

    def settle(self, held: Iterable[Batch]) -> Iterator[Batch]:
        fates, start = self._fates(), 0
        for batch in held:
            part = fates[start : start + len(batch.records)]
            start += len(part)
            notes = [Note("withdrawn", WITHDRAWN, number) for number in batch.records[part == _WITHDRAWN].tolist()]
            notes += [Note("superseded", SUPERSEDED, n) for n in batch.records[part == _SUPERSEDED].tolist()]
            lost = batch.records[part != _STANDS]
            kept = [(block, ~np.isin(block.records, lost)) for block in batch.entries]
            entries = tuple(replace(b, values=b.values[keep], records=b.records[keep]) for b, keep in kept)
            yield replace(batch, entries=entries, notes=(*notes, *batch.notes))


def with_last_page(found: Iterable[Batch], is_last: Sequence[bool]) -> Iterator[Batch]:
    """Yield batches that come after all pages were read, unless each of the pages says that another follows.

    Raises:
        ListError: none is the last.
    """
    for batch in found:
        if is_last and not any(is_last):
            raise ListError(f"{batch.file}: every page says that another follows; get the last page too")
        yield batch


def seconds_of(time: object) -> float | None:
    """Return a time, a number of seconds or ISO 8601 (UTC if no zone is given), as seconds since 1970."""
    if type(time) is str:
        try:
            parsed = datetime.fromisoformat(time)
        except ValueError:
            return None
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float):
        return None
    return float(time) if abs(time) < _NEVER_S else None


def head_of(path: Path) -> bytes:
    """Return the beginning of a file, without a byte order mark."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES).removeprefix(_BYTE_ORDER_MARK)


def read_json(path: Path, prefix: str, *, several: bool = False) -> Iterator[Any]:
    """Yield what lies under `prefix` (of ijson) in a JSON file, or in several JSON values one after the other.

    Raises:
        ListError: the file is not JSON, ends too early, has nothing there, or an object names a field twice.
    """
    number = 0
    twice: list[int] = []
    with path.open("rb") as file:
        if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
            file.seek(0)
        make = partial(_Object, twice)
        values = ijson.items(_Shallow(file), prefix, use_float=True, multiple_values=several, map_type=make)
        while True:
            wrong = ""
            try:
                value = next(values)
            except StopIteration:
                break
            except (ijson.JSONError, ValueError):  # the message of the parser holds a part of the file
                wrong = "the file ends too early, is not JSON, or is nested deeper than any list"
            if wrong or twice:
                wrong = wrong or "an object names a field twice"
                raise ListError(f"{path.name}: after record {number}: {wrong}; get it anew")
            number += 1
            yield value
    if not number:
        raise ListError(f"{path.name}: expected records, found none where this format has them")


def read_members(path: Path) -> Iterator[Any]:
    """Yield the members of a JSON file that is a list, or the values of one that holds one or several of them."""
    is_list = head_of(path).lstrip().startswith(b"[")
    return read_json(path, "item" if is_list else "", several=not is_list)
