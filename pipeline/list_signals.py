"""From features and list hits to signals: one float32 column each, one value a row.

Owns how list matches become numbers, and their names. Leaves to `verdicts.py` what follows from them.

- NaN means "could not say". A list distance of +inf: searched, and nothing within the radius.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import UID, URL_WIDTHS
from classifiers.blocklists.lists import HashList
from classifiers.hashes.digests import DIGEST_WIDTHS
from manifests.features import ShardFeatures
from manifests.schema import CODE_BYTES
from pipeline.matching import searched
from pipeline.policy import SignalSpec

PDQ_USABLE = "pdq.usable"
FEEDS = ("csam", "other")
DISTANCE = "_distance"
# Recipes whose quality says whether a picture can be matched; `pdq:turned` does not settle what hangs on rounding.
_RATED = ("pdq:fullres.", "pdq:c512.")


def list_signal_specs(lists: Sequence[HashList]) -> tuple[SignalSpec, ...]:
    """Return the signals that lists give, for every feed, with or without a list of it."""
    specs = []
    for feed in FEEDS:
        mine = [item for item in lists if item.feed == feed]
        names = tuple(f"{item.list_id}#{item.set_digest[:8]}" for item in mine)
        held = {name for item in mine for name in item.columns}
        digested, named = not held.isdisjoint((*DIGEST_WIDTHS, UID)), not held.isdisjoint(URL_WIDTHS)
        specs.append(SignalSpec(f"list.{feed}.exact", "high", names, None, digested, makes_case=not named))
        for algorithm in CODE_BYTES:
            radii = [item.radius_of(algorithm) for item in mine if algorithm in item.columns]
            name = f"list.{feed}.{algorithm}{DISTANCE}"
            specs.append(SignalSpec(name, "low", names, min(radii, default=None), bool(radii)))
        specs.append(SignalSpec(f"list.{feed}.lists", "high", names, None, bool(mine)))
    return (*specs, SignalSpec(PDQ_USABLE, "low", ("pdq:fullres",), None, searchable=True))


def signal_columns(
    features: ShardFeatures, hits: pa.Table, lists: Sequence[HashList], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the float32 column of every signal in `names`, one value a row; `hits` as `matching.find_hits`."""
    columns: dict[str, NDArray[np.float32]] = {}
    for name in names:
        if name == PDQ_USABLE:
            columns[name] = _usable(features)
        elif name.startswith("list."):
            _, feed, what = name.split(".", 2)
            places = [place for place, item in enumerate(lists) if item.feed == feed]
            mine = hits.filter(pc.is_in(hits["list"], value_set=pa.array(places, pa.int16())))
            if what == "exact":
                columns[name] = _exact(features, mine)
            elif what == "lists":
                columns[name] = _agreeing(features, mine, lists, places)
            else:
                columns[name] = _distance(features, mine, what.removesuffix(DISTANCE))
        else:
            columns[name] = features.scores[name]
    return columns


def _exact(features: ShardFeatures, hits: pa.Table) -> NDArray[np.float32]:
    """Match the URL, the digests of the bytes, and those that the crawl recorded before anything was re-encoded."""
    listed = np.zeros(features.table.num_rows, np.float32)
    listed[hits.filter(pc.not_equal(hits["basis"], "listed-near"))["row"].to_numpy()] = 1
    return np.where(_digested(features) | (listed > 0), listed, np.float32(np.nan))


def _distance(features: ShardFeatures, hits: pa.Table, algorithm: str) -> NDArray[np.float32]:
    """Return the least distance. Where only entries over the hit cap are near it could not be said."""
    near = hits.filter(pc.and_(pc.equal(hits["basis"], "listed-near"), pc.equal(hits["algorithm"], algorithm)))
    rows, capped = near["row"].to_numpy(), near["capped"].to_numpy(zero_copy_only=False)
    best = np.where(searched(features)[algorithm], np.float32(np.inf), np.float32(np.nan))
    np.minimum.at(best, rows[~capped], near["distance"].to_numpy()[~capped].astype(np.float32))
    doubtful = np.isinf(best[rows]) & capped
    best[rows[doubtful]] = np.nan
    return best


def _agreeing(
    features: ShardFeatures, hits: pa.Table, lists: Sequence[HashList], places: Sequence[int]
) -> NDArray[np.float32]:
    """Count the sources that list a row, by digest or by code; NaN where others could not be asked."""
    sources = sorted({lists[place].source for place in places})
    asked = np.array([sources.index(lists[place].source) for place in places], np.int64)
    voices = np.zeros((features.table.num_rows, len(sources)), np.bool_)
    sure = hits.filter(pc.and_not(pc.not_equal(hits["basis"], "listed-url"), hits["capped"]))
    voices[sure["row"].to_numpy(), asked[np.searchsorted(places, sure["list"].to_numpy())]] = True
    count = voices.sum(axis=1).astype(np.float32)
    used = {name for place in places for name in lists[place].columns}
    known = _digested(features) | used.isdisjoint((*DIGEST_WIDTHS, UID))
    for algorithm, found in searched(features).items():
        if algorithm in used:
            known &= found
    known[hits.filter(hits["capped"])["row"].to_numpy()] = False
    return np.where(known | (count == len(sources)), count, np.float32(np.nan))


def _digested(features: ShardFeatures) -> NDArray[np.bool_]:
    known = [features.digested, *(rows for _, rows in features.crawled().values())]
    return np.asarray(np.any(known, axis=0), np.bool_)


def _usable(features: ShardFeatures) -> NDArray[np.float32]:
    best = np.full(features.table.num_rows, np.nan, np.float32)
    for name, column in features.hashes.items():
        if not name.startswith(_RATED):
            continue
        best = np.fmax(best, np.where(column.hashable, column.usable.astype(np.float32), np.float32(np.nan)))
    return best
