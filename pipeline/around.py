"""Around exact list hits: pictures that are nearly theirs by PDQ, and samples near them in embedding.

Owns the search. Leaves to the policy whether it is done and how far (`[around]`), and to `settles` when.

- Seeds are exact hits known to this process: those whose features are in clear when a settle begins, and those that
  were opened with an identity. A near-copy or a neighbour is never a seed itself.
- Both searches are exact: PDQ by the path that lists are matched with, embeddings by comparing all.
- A near-copy is removed, and withheld where its seed is. A neighbour is set aside, never sealed.
- A seed with too many neighbours is a bad one: it gives none, and is told by its number alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import CODE_ALGORITHM, CODE_WIDTHS
from classifiers.blocklists.entries import sort_rows
from classifiers.blocklists.lists import HashList, make_feeds
from classifiers.blocklists.match import CodeSearch
from classifiers.blocklists.stored import StoredList, set_digest
from manifests.features import ShardFeatures
from manifests.records import Action
from pipeline.matching import find_hits, gather_queries
from pipeline.policy import Around
from pipeline.verdicts import SPREAD_REASONS, RowMarks

_SEED_VIEW = "pdq:fullres.oriented"
_NEAR_COPY, _NEIGHBOUR = SPREAD_REASONS.index("near-copy"), SPREAD_REASONS.index("neighbour")
_BLOCK_ROWS = 8192  # 8,192 rows against 1,000 seeds: 32 MB of cosines


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Seeds:
    """Rows that a list holds exactly. codes: uint8 [S, 32], zeros and not coded where there is no usable PDQ.

    embeddings: float32 [S, D], unit rows, zeros where there is none. hidden: bool [S], the seed is withheld.
    """

    codes: NDArray[np.uint8]
    coded: NDArray[np.bool_]
    embeddings: NDArray[np.float32]
    hidden: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hidden)


def take_seeds(features: ShardFeatures, rows: NDArray[np.int64], hidden: NDArray[np.bool_]) -> Seeds:
    """Return what is searched around: the given rows of a shard."""
    embeddings = features.embedding[rows].astype(np.float32)
    embeddings[~features.embedded[rows]] = 0
    codes, coded = np.zeros((len(rows), CODE_WIDTHS[CODE_ALGORITHM]), np.uint8), np.zeros(len(rows), np.bool_)
    if _SEED_VIEW in features.hashes:
        column = features.hashes[_SEED_VIEW]
        codes, coded = column.codes[rows, 0], (column.hashable & column.usable)[rows]
    return Seeds(codes, coded, embeddings, hidden)


def join_seeds(parts: Sequence[Seeds]) -> Seeds:
    """Return the seeds of several shards, numbered through; without any, there are none."""
    if not parts:
        nothing = np.zeros(0, np.bool_)
        codes = np.zeros((0, CODE_WIDTHS[CODE_ALGORITHM]), np.uint8)
        return Seeds(codes, nothing, np.zeros((0, 0), np.float32), nothing)
    return Seeds(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.coded for part in parts]),
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.hidden for part in parts]),
    )


def without_cancelled(seeds: Seeds, lists: Sequence[HashList], cancelled: frozenset[tuple[str, str, int]]) -> Seeds:
    """Return the seeds without the codes near entries that an override cancels (list id, algorithm, number).

    What two people called wrong for the entry is wrong around the picture that the entry was made of.
    """
    coded = seeds.coded.copy()
    for list_id, algorithm, number in cancelled:
        for item in lists:
            if (item.list_id, algorithm) == (list_id, CODE_ALGORITHM) and algorithm in item.columns:
                column = item.columns[algorithm]
                for code in column.rows[column.numbers == number]:
                    coded &= np.bitwise_count(seeds.codes ^ code).sum(axis=1) > item.radius
    return replace(seeds, coded=coded)


def exact_rows(hits: pa.Table) -> NDArray[np.int64]:
    """Return the rows of a shard that a list holds exactly, each once."""
    return np.unique(hits.filter(pc.equal(hits["basis"], "listed-exact"))["row"].to_numpy())


class AroundSearch:
    """Collects, shard by shard, the samples near some seeds: `add` each, then ask for `marks`."""

    def __init__(self, seeds: Seeds, settings: Around, search: CodeSearch) -> None:
        self._seeds, self._settings, self._search = seeds, settings, search
        self._lists = {hidden: _as_list(seeds, hidden, settings.near_copies) for hidden in (False, True)}
        self._found: dict[str, dict[int, tuple[int, bool]]] = {}
        self._neighbours: dict[int, list[tuple[str, int]]] = {}
        self._counts = np.zeros(len(seeds), np.int64)

    def add(self, shard: str, features: ShardFeatures, exact: NDArray[np.int64]) -> None:
        """Look at the rows of one shard; `exact` are those that a list holds, which are left as they are."""
        index = features.indices()
        own = set(index[exact].tolist())
        for hidden, listed in self._lists.items():
            if listed is not None:
                hits = find_hits(gather_queries(features, (listed,)), (listed,), self._search).hits
                for sample in set(index[np.unique(hits["row"].to_numpy())].tolist()) - own:
                    self._found.setdefault(shard, {})[sample] = (_NEAR_COPY, hidden)
        if (
            self._settings.neighbours is not None
            and self._seeds.embeddings.shape[1:] == features.embedding.shape[1:]
        ):
            for seed, samples in _near(features, self._seeds.embeddings, self._settings.neighbours).items():
                others = samples - own
                self._counts[seed] += len(others)
                kept = self._neighbours.setdefault(seed, [])
                kept += [(shard, sample) for sample in sorted(others)][: self._settings.max_neighbours - len(kept)]

    def marks(self) -> dict[str, list[tuple[int, int, bool]]]:
        """Return by shard what follows: (sample, place in `SPREAD_REASONS`, withheld), sorted by sample."""
        found = {shard: dict(samples) for shard, samples in self._found.items()}
        for seed, samples in self._neighbours.items():
            if self._counts[seed] <= self._settings.max_neighbours:
                for shard, sample in samples:
                    found.setdefault(shard, {}).setdefault(sample, (_NEIGHBOUR, False))
        return {
            shard: [(sample, *samples[sample]) for sample in sorted(samples)]
            for shard, samples in sorted(found.items())
        }

    def stopped(self) -> tuple[int, ...]:
        """Return the numbers of the seeds that had too many neighbours."""
        return tuple(np.flatnonzero(self._counts > self._settings.max_neighbours).tolist())


def around_marks(features: ShardFeatures, found: Iterable[tuple[int, int, bool]]) -> RowMarks:
    """Return what was found around seeds as marks of the rows of one shard."""
    marks, index = RowMarks.none(features.table.num_rows), features.indices()
    for sample, why, hidden in found:
        rows = index == sample
        marks.actions[rows] = Action.REMOVE if why == _NEAR_COPY else Action.QUARANTINE
        marks.withheld[rows], marks.why[rows] = hidden, why
    return marks


def _as_list(seeds: Seeds, hidden: bool, radius: int | None) -> HashList | None:
    chosen = seeds.coded & (seeds.hidden == hidden)
    if radius is None or not chosen.any():
        return None
    codes = seeds.codes[chosen]
    rows, masks = sort_rows(codes, np.ones(len(codes), np.uint64))
    stored = StoredList({CODE_ALGORITHM: rows}, {CODE_ALGORITHM: masks}, ("seed",), {"seed": "remove"}, ())
    (made,) = make_feeds(
        stored,
        list_id="seeds",
        version=1,
        purpose="internal",
        source="seeds",
        set_digest=set_digest(stored.rows),
        radius=radius,
        radius64=0,
    )
    return made


def _near(features: ShardFeatures, seeds: NDArray[np.float32], cosine: float) -> Mapping[int, set[int]]:
    """Return the samples within a cosine of each seed, by comparing every row with every seed."""
    rows, index = np.flatnonzero(features.embedded), features.indices()
    found: dict[int, set[int]] = {}
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        near = features.embedding[block].astype(np.float32) @ seeds.T >= np.float32(cosine)
        for row, seed in zip(*np.nonzero(near), strict=True):
            found.setdefault(int(seed), set()).add(int(index[block[row]]))
    return found
