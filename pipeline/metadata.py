"""Columns of a crawl's metadata as signals: `[[metadata]] column = "punsafe"` gives `meta.punsafe`.

Owns which values count. Leaves finding them to `ingest.samples`: the sidecar's row where there is one, else the
sample's JSON member, as for URL and caption.

- A score is from 0 to 1, and a higher one is more harm.
- What is missing, is of another type, lies outside, or is a word without a score could not say: NaN.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

from manifests.records import digest_json

_COLUMN = re.compile(r"[A-Za-z0-9_.-]+")  # what a policy can write; no '@', which names of models have


@dataclass(frozen=True, slots=True)
class MetadataColumn:
    """A column of numbers or, with `words`, one of texts, each with the score beside it in `scores`."""

    column: str
    words: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not _COLUMN.fullmatch(self.column):
            raise ValueError(f"column: expected letters, digits, '_', '-', '.', found {self.column!r}; rename it")
        if not len(set(self.words)) == len(self.words) == len(self.scores) == sum(0 <= s <= 1 for s in self.scores):
            raise ValueError("words and scores: expected a score from 0 to 1 beside each word, and no word twice")

    @property
    def signal(self) -> str:
        """The signal, as policies name it."""
        return f"meta.{self.column.lower()}"

    @property
    def full_name(self) -> str:
        """The signal with the first 8 hex digits of the digest of column, words and scores."""
        return f"{self.signal}#{digest_json(asdict(self))[:8]}"

    def score(self, value: object) -> float:
        """Return the score that a value stands for, NaN if it stands for none."""
        if self.words:
            value = self.scores[self.words.index(value)] if isinstance(value, str) and value in self.words else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            return math.nan
        return float(value)
