"""What an importer is: one format of lists, read as a stream of batches.

- It holds a bounded number of records at a time, whatever the size of the file, unless the format lets a later
  record change an earlier one; then it holds what it must to honour that.
- A malformed file is a `ListError` that names file and place; a malformed record is a note. Neither holds a word of
  the input, and nothing is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from classifiers.blocklists.entries import Batch


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user says of a file that does not say it itself.

    algorithm: of the values, where neither a header nor a column tells; "" if it is not given.
    """

    algorithm: str = ""


class Importer(Protocol):
    """One format. `name` is the value of --format."""

    @property
    def name(self) -> str:
        """The format."""
        ...

    def recognises(self, head: bytes) -> bool:
        """Say whether a file that begins with `head` (up to 64 KiB) is surely of this format."""
        ...

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """Read files that together are one list.

        Raises:
            ListError: a file is not of this format, or ends too early.
            OSError: a file cannot be read.
        """
        ...
