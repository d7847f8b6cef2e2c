"""What one sample's decision means for others of the collection: those of the same bytes, and of the same URL.

Owns the keyed digests that carry it, so that no file in clear names what was withheld. Leaves the rounds to `runs`.

- One decision for each identical byte content, the strictest. Copies of a withheld image are removed and withheld;
  a case is only what a list itself matched.
- A URL of a removed or withheld sample is never released: other samples that bear it are set aside.
- What is withheld leaves keys of its bytes and URL behind (`manifests.keyed`), so that a copy that comes later is
  known.
- Rules spread, faults do not: the same bytes fail alike, and a bad name says nothing of the bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.features import ShardFeatures
from manifests.keyed import KEY_BYTES, Keyed, KnownKeys, make_keys, read_keyed, read_secret, write_keyed
from manifests.records import Action, canonical_json
from pipeline.verdicts import SPREAD_REASONS, RowMarks

# One entry: whether a URL, its key, and what it leads to. HIDDEN: removed and withheld.
ENTRY = np.dtype([("url", "?"), ("key", f"S{KEY_BYTES}"), ("effect", "i1")])
# One row of a shard: its sample, the keys of its bytes and of its sample's URL, and what it leads to.
JUDGED = np.dtype([("sample", "i4"), ("image", f"S{KEY_BYTES}"), ("url", f"S{KEY_BYTES}"), ("effect", "i1")])
Entries = NDArray[np.void]
Judged = NDArray[np.void]
SPREAD_FILE, AROUND_FILE = "spread", "around"
_HIDDEN = 3
_COPY, _URL = SPREAD_REASONS.index("copy"), SPREAD_REASONS.index("url")


class Spread:
    """What is known of the collection: sorted entries, each (url, key) once with its strictest effect."""

    def __init__(self, entries: Entries) -> None:
        self._known = {}
        for url in (False, True):
            mine = entries[entries["url"] == url]
            self._known[url] = (KnownKeys(mine["key"]), mine["effect"])

    def find(self, keys: NDArray[np.bytes_], *, url: bool) -> NDArray[np.int8]:
        """Return the effect of each key, 0 where it is not known. An empty key is none."""
        known, effects = self._known[url]
        found, (rows, places) = np.zeros(len(keys), np.int8), known.find(keys)
        found[rows] = effects[places]
        return found


@dataclass(frozen=True, slots=True, repr=False)
class AroundFound:
    """What a settle found around seeds. made: how often each shard's features were made again before it looked.

    found: by shard (sample, place in `SPREAD_REASONS`, withheld). hides: whether the settle withholds any sample.
    """

    made: Mapping[str, int]
    found: Mapping[str, Sequence[tuple[int, int, bool]]]
    hides: bool = False

    def joined(self, found: Mapping[str, Sequence[tuple[int, int, bool]]], made: Mapping[str, int]) -> AroundFound:
        """Return what was found before and now; what stood before stays as it was."""
        both = {}
        for shard in sorted(self.found.keys() | found.keys()):
            items = {item[0]: item for item in [*found.get(shard, ()), *self.found.get(shard, ())]}
            both[shard] = [items[sample] for sample in sorted(items)]
        return AroundFound(made, both, self.hides)


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The keys of one shard's rows: of their bytes, and of their sample's URL in its first row; "" where unknown.

    sample: index of each row's sample.
    """

    sample: NDArray[np.int32]
    bytes_of: NDArray[np.bytes_]
    url_of: NDArray[np.bytes_]

    @classmethod
    def of(cls, features: ShardFeatures, secret: bytes) -> Keys:
        """Compute them from a shard's digests and the ids of its URLs."""
        role = pc.equal(features.table["role"], "image").fill_null(False)
        images = features.digested & np.asarray(role, np.bool_)
        return cls(
            features.indices(),
            make_keys(features.digests["sha256"][:, :KEY_BYTES], images, secret, "image"),
            make_keys(*features.url_ids(), secret, "url"),
        )

    def marks(self, spread: Spread) -> RowMarks:
        """Return what the collection leads to for these rows."""
        copy, url = spread.find(self.bytes_of, url=False), spread.find(self.url_of, url=True)
        actions = np.maximum(np.minimum(copy, Action.REMOVE), np.where(url > 0, Action.QUARANTINE, 0)).astype(
            np.int8
        )
        # What a URL sets aside is known as its own copy in the next round; the URL stays the reason.
        why = np.where((url > 0) & (copy <= Action.QUARANTINE), _URL, np.where(copy > 0, _COPY, -1)).astype(np.int8)
        return RowMarks(actions, copy == _HIDDEN, why)

    def withheld(self, rows: RowMarks) -> Entries:
        """Return what those of the rows lead to elsewhere that are withheld."""
        return merge([leads_to(self.judged(RowMarks(np.zeros_like(rows.actions), rows.withheld, rows.why)))])

    def judged(self, rows: RowMarks) -> Judged:
        """Return the rows with what their own signals, or reviews and seeds, make of them."""
        found = np.zeros(len(self.sample), JUDGED)
        found["sample"], found["image"], found["url"] = self.sample, self.bytes_of, self.url_of
        found["effect"] = np.where(rows.withheld, np.int8(_HIDDEN), np.minimum(rows.actions, Action.REMOVE))
        return found


def leads_to(judged: Judged) -> Entries:
    """Return what rows lead to elsewhere. All rows of a sample must be there."""
    removed = np.isin(judged["sample"], judged["sample"][judged["effect"] >= Action.REMOVE])
    of_url = np.where(removed, np.int8(Action.QUARANTINE), np.int8(0))
    parts = []
    for keys, effect, url in ((judged["image"], judged["effect"], False), (judged["url"], of_url, True)):
        chosen = np.flatnonzero(effect > 0)
        chosen = chosen[keys[chosen] != b""]
        part = np.zeros(len(chosen), ENTRY)
        part["url"], part["key"], part["effect"] = url, keys[chosen], effect[chosen]
        parts.append(part)
    return np.concatenate(parts)


def find_spread(shards: Sequence[str], judged_of: Callable[[str], Judged], known: Entries) -> tuple[Entries, bool]:
    """Return all that the rows of all shards lead to, and `known`: in rounds, until nothing new follows.

    Also whether any row is to be withheld.
    """
    entries = merge([known, *(leads_to(judged_of(shard)) for shard in shards)])
    while True:
        spread, found, hides = Spread(entries), [], False
        for shard in shards:
            judged = judged_of(shard)
            copy, url = spread.find(judged["image"], url=False), spread.find(judged["url"], url=True)
            effect = np.maximum(judged["effect"], np.maximum(copy, (url > 0) * np.int8(Action.QUARANTINE)))
            changed = effect > judged["effect"]
            judged["effect"] = effect
            hides = hides or bool((effect == _HIDDEN).any())
            found.append(leads_to(judged[np.isin(judged["sample"], judged["sample"][changed])]))
        grown = merge([entries, *found])
        if np.array_equal(grown, entries):
            return entries, hides
        entries = grown


def merge(parts: Sequence[Entries]) -> Entries:
    """Return all entries, sorted, each (url, key) once with its strictest effect."""
    every = np.concatenate([*parts, np.zeros(0, ENTRY)])
    high, low = np.ascontiguousarray(every["key"]).view(">u8").astype(np.uint64).reshape(-1, 2).T
    every = every[np.lexsort((-every["effect"], low, high, every["url"]))]
    same = (every["key"][1:] == every["key"][:-1]) & (every["url"][1:] == every["url"][:-1])
    return every[np.concatenate([[True], ~same])] if len(every) else every


def write_judged(path: Path, judged: Judged) -> None:
    """Keep the judged rows of a shard for the rounds of this run: nothing that a kill could harm."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, RESTRICTED_FILE_MODE)) as file:
        file.write(judged.tobytes())


def read_judged(path: Path) -> Judged:
    """Return what `write_judged` kept."""
    return np.fromfile(path, JUDGED)


def write_spread(collection: Collection, number: int, entries: Entries) -> None:
    """Keep what is known of the collection for the settle to decide by."""
    path = _spread_file(collection, number)
    durable.write(path, entries.tobytes(), replace=True, mode=RESTRICTED_FILE_MODE)
    _spread_file(collection, number, known=True).unlink(missing_ok=True)


def read_spread(collection: Collection, number: int) -> Spread:
    """Return what `write_spread` kept.

    Raises:
        OSError: nothing was.
    """
    return Spread(np.fromfile(_spread_file(collection, number), ENTRY))


def working(collection: Collection, number: int) -> Path:
    """Return the folder of what a settle keeps only while it is at work; `remove_spread` takes it away."""
    return collection.settled(number) / "working"


def has_spread(collection: Collection, number: int) -> bool:
    """Say whether an interrupted attempt at a settle had found out all that it decides by.

    What it withheld since can no longer be asked, and going on must decide as it would have.
    """
    return _spread_file(collection, number).exists()


def reopen_spread(collection: Collection, number: int) -> Entries:
    """Return what an interrupted attempt had found out, and go back to its rounds; all of it still holds."""
    final, known = (_spread_file(collection, number, known=one) for one in (False, True))
    if final.exists():
        os.replace(final, known)
        durable.sync_folder(known.parent)
    return merge([np.fromfile(known, ENTRY)]) if known.exists() else merge([])


def write_around(collection: Collection, number: int, around: AroundFound) -> None:
    """Keep what was found around seeds."""
    path = collection.settled(number) / AROUND_FILE
    value = {"made": around.made, "found": around.found, "hides": around.hides}
    durable.write(path, canonical_json(value), replace=True, mode=RESTRICTED_FILE_MODE)


def read_around(collection: Collection, number: int) -> AroundFound:
    """Return what `write_around` kept; nothing before it did."""
    path = collection.settled(number) / AROUND_FILE
    if not path.exists():
        return AroundFound({}, {})
    value = json.loads(path.read_bytes())
    found = {
        shard: [(sample, why, hidden) for sample, why, hidden in items] for shard, items in value["found"].items()
    }
    return AroundFound(value["made"], found, value["hides"])


def remove_spread(collection: Collection, number: int) -> None:
    """Remove what a settle that is closed decided by; it stands in its decisions now."""
    for known in (False, True):  # a run that ended right after the one was written left both
        _spread_file(collection, number, known=known).unlink(missing_ok=True)
    (collection.settled(number) / AROUND_FILE).unlink(missing_ok=True)
    shutil.rmtree(working(collection, number), ignore_errors=True)


def _spread_file(collection: Collection, number: int, *, known: bool = False) -> Path:
    return collection.settled(number) / ("spread.known" if known else SPREAD_FILE)


def add_keyed(collection: Collection, shard: str, entries: Entries) -> None:
    """Add the keys of samples that are about to be withheld to those of their shard."""
    secret = read_secret(collection)
    before = read_keyed(collection, shard, secret) if collection.keyed(shard).exists() else Keyed()
    write_keyed(collection, shard, before.joined(keyed_of(entries)), secret)


def keyed_of(entries: Entries) -> Keyed:
    """Return the keys of entries."""
    return Keyed(*(tuple(_padded(entries[entries["url"] == url]["key"])) for url in (False, True)))


def keyed_entries(keyed: Keyed) -> Entries:
    """Return what the keys of withheld samples lead to elsewhere."""
    found = np.zeros(len(keyed.images) + len(keyed.urls), ENTRY)
    found["key"] = [*keyed.images, *keyed.urls]
    found["url"] = np.arange(len(found)) >= len(keyed.images)
    found["effect"] = np.where(found["url"], np.int8(Action.QUARANTINE), np.int8(_HIDDEN))
    return merge([found])


def _padded(keys: NDArray[np.bytes_]) -> list[bytes]:
    return [key.ljust(KEY_BYTES, b"\0") for key in keys.tolist()]  # numpy drops zeros at the end
