"""What a search for codes answers: which query matches which entry, how closely.

Owns the type that every search returns, so that any two can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class CodeHits:
    """Pairs within the radius, each once, ascending by query and then by entry.

    query: int64 H, row of the queries. entry: int64 H, row of the listed codes. distance: int16 H, in bits.
    """

    query: NDArray[np.int64]
    entry: NDArray[np.int64]
    distance: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.query)


def join_hits(parts: Sequence[CodeHits]) -> CodeHits:
    """Return the hits of several searches of the same queries and codes as one, sorted, each pair once."""
    query = np.concatenate([np.zeros(0, np.int64), *(part.query for part in parts)])
    entry = np.concatenate([np.zeros(0, np.int64), *(part.entry for part in parts)])
    distance = np.concatenate([np.zeros(0, np.int16), *(part.distance for part in parts)])
    order = np.lexsort((entry, query))
    query, entry, distance = query[order], entry[order], distance[order]
    first = np.ones(len(query), np.bool_)
    first[1:] = (query[1:] != query[:-1]) | (entry[1:] != entry[:-1])
    return CodeHits(query[first], entry[first], distance[first])
