"""Entries on their way from somebody's file into a list: blocks of rows, and what became of every record.

Owns the types that importers yield and the sum that is made of them. Leaves reading files to `importers/`, what a
value must look like to `checks`, and keeping lists to the store.

- Every record of a file has a fate: at least one entry of it is taken, or a note says why none was.
- The same value under several categories is one entry that keeps all of them.
- What is sorted, counted and digested here does not depend on the order of the input.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import WIDTHS, ListError, Rows
from classifiers.blocklists.checks import unusable

NO_CATEGORY = "(none)"  # the category of every entry of a format that has none
MAX_CATEGORIES = 64
PLACES_SHOWN = 5

Fate: TypeAlias = Literal["rejected", "skipped", "withdrawn", "superseded"]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Entries:
    """Values of one algorithm in one native category.

    values: uint8 N x width. records: int64 N, the number of the line or record that each came from, from 1.
    """

    algorithm: str
    values: Rows
    records: NDArray[np.int64]
    category: str = NO_CATEGORY


@dataclass(frozen=True, slots=True)
class Note:
    """Why a record, or one of its values, gives no entry. `reason` is a fixed phrase without a word of the input.

    rejected: malformed. skipped: of a kind that this tool does not match (a video, PhotoDNA). withdrawn: its owner
    has taken it back. superseded: a newer version of the same record was read.
    """

    fate: Fate
    reason: str
    record: int


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """Whole records of one file. records: int64 R, ascending, each number once in a file."""

    file: str
    records: NDArray[np.int64]
    entries: tuple[Entries, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Collected:
    """A whole import, ready to be stored.

    rows: by algorithm, sorted and unique. masks: by algorithm, uint64, bit i = of `categories[i]`.
    records = taken + the sum of `fates`. reasons: values and records by "fate: reason". places: the first few
    lines of every reason, as file:number. duplicates: values that were there already.
    """

    rows: Mapping[str, Rows]
    masks: Mapping[str, NDArray[np.uint64]]
    categories: tuple[str, ...]
    records: int
    taken: int
    fates: Mapping[str, int]
    reasons: Mapping[str, int]
    places: Mapping[str, tuple[str, ...]]
    duplicates: int


def collect(batches: Iterable[Batch]) -> Collected:
    """Sum up an import.

    Raises:
        ListError: more than 64 categories, or whatever the importer raises.
    """
    totals = _Totals()
    for batch in batches:
        totals.add(batch)
    return totals.close()


class _Totals:
    def __init__(self) -> None:
        self._values: defaultdict[str, list[tuple[Rows, int]]] = defaultdict(list)  # with the number of a category
        self._categories: dict[str, int] = {}
        self._records = self._taken = 0
        self._fates: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._places: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)

    def add(self, batch: Batch) -> None:
        taken, notes = [np.zeros(0, np.int64)], list(batch.notes)
        for block in batch.entries:
            good = np.ones(len(block.values), np.bool_)
            for reason, rows in unusable(block.algorithm, block.values).items():
                notes += [Note("rejected", reason, number) for number in block.records[rows].tolist()]
                good[rows] = False
            self._keep(block, good)
            taken.append(block.records[good])
        accepted = np.concatenate(taken)
        if (accepted[1:] <= accepted[:-1]).any():  # several values of a record; not so in most formats
            accepted = np.unique(accepted)
        fates = self._note(batch.file, notes)
        others = np.setdiff1d(batch.records, accepted, assume_unique=True)
        lost = [number for number in others.tolist() if number not in fates]
        if lost or len(others) + len(accepted) != len(batch.records):
            raise AssertionError(f"{batch.file}: record {lost[:1]} has no entry and no note")
        self._records += len(batch.records)
        self._taken += len(accepted)
        self._fates.update(fates[number] for number in others.tolist())

    def _keep(self, block: Entries, good: NDArray[np.bool_]) -> None:
        if not good.any():
            return
        bit = self._categories.setdefault(block.category, len(self._categories))
        if bit >= MAX_CATEGORIES:
            raise ListError(f"expected at most {MAX_CATEGORIES} categories, found more; import the list in parts")
        values = block.values if good.all() else block.values[good]
        self._values[block.algorithm].append((values, bit))

    def _note(self, file: str, notes: Iterable[Note]) -> dict[int, Fate]:
        fates: dict[int, Fate] = {}
        for note in notes:
            name = f"{note.fate}: {note.reason}"
            self._reasons[name] += 1
            if self._reasons[name] <= PLACES_SHOWN:
                self._places[name] += (f"{file}:{note.record}",)
            fates.setdefault(note.record, note.fate)
        return fates

    def close(self) -> Collected:
        names = tuple(sorted(self._categories))
        masks_of = {bit: np.uint64(1 << names.index(name)) for name, bit in self._categories.items()}
        rows: dict[str, Rows] = {}
        masks: dict[str, NDArray[np.uint64]] = {}
        duplicates = 0
        for algorithm in sorted(self._values):
            blocks = self._values.pop(algorithm)
            mask = np.concatenate([np.full(len(values), masks_of[bit]) for values, bit in blocks])
            values = np.concatenate([values for values, _ in blocks])
            del blocks
            rows[algorithm], masks[algorithm] = sort_rows(values, mask)
            duplicates += len(values) - len(rows[algorithm])
        reasons, fates, places = dict(self._reasons), dict(self._fates), dict(self._places)
        return Collected(rows, masks, names, self._records, self._taken, fates, reasons, places, duplicates)


def sort_rows(values: Rows, masks: NDArray[np.uint64]) -> tuple[Rows, NDArray[np.uint64]]:
    """Return the rows sorted as bytes, each once, with the union of the masks of equal ones.

    Args:
        values: uint8 N x width, width at least 8.
        masks: uint64 N.
    """
    if not len(values):
        return values, masks
    first = np.ascontiguousarray(values[:, :8]).view(">u8").ravel().astype(np.uint64)
    order = np.argsort(first, kind="stable")
    sorted_first = first[order]
    same = sorted_first[1:] == sorted_first[:-1]
    if same.any():  # rows that share eight bytes: sort those by all of their bytes
        tied = np.zeros(len(order), np.bool_)
        tied[1:] = same
        tied[:-1] |= same
        part = np.ascontiguousarray(values[order[tied]])
        order[tied] = order[tied][np.argsort(part.view(f"V{values.shape[1]}").ravel(), kind="stable")]
    values, masks = values[order], masks[order]
    is_first = np.ones(len(values), np.bool_)
    pairs = np.flatnonzero(same)
    is_first[pairs + 1] = (values[pairs + 1] != values[pairs]).any(axis=1)
    if is_first.all():
        return values, masks
    starts = np.flatnonzero(is_first)
    return values[starts], np.bitwise_or.reduceat(masks, starts)


__all__ = ["NO_CATEGORY", "WIDTHS", "Batch", "Collected", "Entries", "Note", "collect", "sort_rows"]
