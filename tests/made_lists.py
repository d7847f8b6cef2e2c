"""Lists without files: a few entries, made into what matchers read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from classifiers.blocklists.algorithms import WIDTHS
from classifiers.blocklists.canaries import make_canaries
from classifiers.blocklists.entries import sort_rows
from classifiers.blocklists.lists import MATCHED, HashList, make_feeds
from classifiers.blocklists.match import search_column
from classifiers.blocklists.stored import StoredList, set_digest
from manifests.features import ShardFeatures
from pipeline.matching import match_shard
from pipeline.verdicts import decide_samples


def stored_list(
    entries: Iterable[tuple[str, bytes, str]], effects: dict[str, str], *, canaries: bool = False
) -> StoredList:
    """Store (algorithm, value, category); an entry may come again in another category."""
    categories = tuple(sorted(effects))
    values: dict[str, list[bytes]] = {}
    bits: dict[str, list[int]] = {}
    for algorithm, value, category in entries:
        values.setdefault(algorithm, []).append(value)
        bits.setdefault(algorithm, []).append(1 << categories.index(category))
    rows, masks = {}, {}
    for name, found in values.items():
        array = np.frombuffer(b"".join(found), np.uint8).reshape(-1, WIDTHS[name])
        rows[name], masks[name] = sort_rows(array, np.array(bits[name], np.uint64))
    return StoredList(rows, masks, categories, effects, make_canaries(sorted(rows), 5) if canaries else ())


def made_feeds(stored: StoredList, *, list_id: str, purpose: str = "csam", source: str = "", radius: int = 31,
               radius64: int = 4, algorithms: Sequence[str] = MATCHED) -> tuple[HashList, ...]:  # fmt: skip
    return make_feeds(
        stored,
        list_id=list_id,
        version=1,
        purpose=purpose,
        source=source or list_id,
        set_digest=set_digest(stored.rows),
        radius=radius,
        radius64=radius64,
        algorithms=algorithms,
    )


def made_list(entries: Iterable[tuple[str, bytes]], *, list_id: str = "a", feed: str = "csam", source: str = "",
              radius: int = 31, radius64: int = 4, canaries: bool = False) -> HashList:  # fmt: skip
    """One list that feeds `feed` with all of its entries."""
    stored = stored_list([(*entry, "all") for entry in entries], {"all": "case"}, canaries=canaries)
    purpose = "csam" if feed == "csam" else "ncii"
    (only,) = made_feeds(stored, list_id=list_id, purpose=purpose, source=source, radius=radius, radius64=radius64)
    return only


def hits_of(features: ShardFeatures, lists: Sequence[HashList], *, cap: int = 1000) -> pa.Table:
    return match_shard(features, lists, search_column, max_near_hits=cap, cancelled=frozenset())


def decided(features: ShardFeatures, lists: Sequence[HashList], policy):
    """Match and decide one shard."""
    return decide_samples(features, hits_of(features, lists), lists, policy)
