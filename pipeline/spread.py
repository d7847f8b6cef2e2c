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

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.features import ShardFeatures
from manifests.keyed import KEY_BYTES, Keyed, make_keys, read_keyed, read_secret, write_keyed
from manifests.records import Action, canonical_json
from pipeline.verdicts import SPREAD_REASONS, RowMarks, SampleDecisions

# One entry: whether a URL, its key, and what it leads to. HIDDEN: removed and withheld.
ENTRY = np.dtype([("url", "?"), ("key", f"S{KEY_BYTES}"), ("effect", "i1")])
Entries = NDArray[np.void]
SPREAD_FILE, AROUND_FILE = "spread", "around"
_HIDDEN = 3
_COPY, _URL = SPREAD_REASONS.index("copy"), SPREAD_REASONS.index("url")


@dataclass(frozen=True, slots=True, repr=False)
class Spread:
    """What is known of the collection: sorted entries, each (url, key) once with its strictest effect."""

    entries: Entries

    def find(self, keys: NDArray[np.bytes_], *, url: bool) -> NDArray[np.int8]:
        """Return the effect of each key, 0 where it is not known. An empty key is none."""
        mine = self.entries[self.entries["url"] == url]
        if not len(mine):
            return np.zeros(len(keys), np.int8)
        place = np.minimum(np.searchsorted(mine["key"], keys), len(mine) - 1)
        known = (mine["key"][place] == keys) & (keys != b"")
        return np.where(known, mine["effect"][place], np.int8(0))


@dataclass(frozen=True, slots=True, repr=False)
class AroundFound:
    """What a settle found around seeds. made: how often each shard's features were made again before it looked.

    found: by shard (sample, place in `SPREAD_REASONS`, withheld).
    """

    made: Mapping[str, int]
    found: Mapping[str, Sequence[tuple[int, int, bool]]]

    def joined(self, found: Mapping[str, Sequence[tuple[int, int, bool]]], made: Mapping[str, int]) -> AroundFound:
        """Return what was found before and now; what stood before stays as it was."""
        both = {}
        for shard in sorted(self.found.keys() | found.keys()):
            items = {item[0]: item for item in [*found.get(shard, ()), *self.found.get(shard, ())]}
            both[shard] = [items[sample] for sample in sorted(items)]
        return AroundFound(made, both)


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
        """Compute them from a shard's digests and URLs."""
        images = features.digested & (features.table["role"].to_numpy() == "image")
        digests = (
            row.tobytes() if known else None for row, known in zip(features.digests["sha256"], images, strict=True)
        )
        urls = (url.encode() if url else None for url in features.strings("url"))
        return cls(features.indices(), make_keys(digests, secret, "image"), make_keys(urls, secret, "url"))

    def marks(self, spread: Spread) -> RowMarks:
        """Return what the collection leads to for these rows."""
        copy, url = spread.find(self.bytes_of, url=False), spread.find(self.url_of, url=True)
        actions = np.maximum(np.minimum(copy, Action.REMOVE), np.where(url > 0, Action.QUARANTINE, 0)).astype(
            np.int8
        )
        # What a URL sets aside is known as its own copy in the next round; the URL stays the reason.
        why = np.where((url > 0) & (copy <= Action.QUARANTINE), _URL, np.where(copy > 0, _COPY, -1)).astype(np.int8)
        return RowMarks(actions, copy == _HIDDEN, why)

    def entries(self, decisions: SampleDecisions) -> Entries:
        """Return what these rows' decisions lead to elsewhere."""
        rows = decisions.rows
        return self._entries(np.where(rows.withheld, np.int8(_HIDDEN), np.minimum(rows.actions, Action.REMOVE)))

    def withheld(self, decisions: SampleDecisions) -> Entries:
        """Return what those of them lead to that are withheld."""
        return self._entries(np.where(decisions.rows.withheld, np.int8(_HIDDEN), np.int8(0)))

    def _entries(self, effect: NDArray[np.int8]) -> Entries:
        removed = np.isin(self.sample, self.sample[effect >= Action.REMOVE])
        parts = []
        for keys, leads_to, url in (
            (self.bytes_of, effect, False),
            (self.url_of, np.where(removed, np.int8(Action.QUARANTINE), np.int8(0)), True),
        ):
            chosen = (leads_to > 0) & (keys != b"")
            part = np.zeros(int(chosen.sum()), ENTRY)
            part["url"], part["key"], part["effect"] = url, keys[chosen], leads_to[chosen]
            parts.append(part)
        return merge(parts)


def merge(parts: Sequence[Entries]) -> Entries:
    """Return all entries, sorted, each (url, key) once with its strictest effect."""
    every = np.concatenate([*parts, np.zeros(0, ENTRY)])
    every = every[np.lexsort((-every["effect"], every["key"], every["url"]))]
    same = (every["key"][1:] == every["key"][:-1]) & (every["url"][1:] == every["url"][:-1])
    return every[np.concatenate([[True], ~same])] if len(every) else every


def encode_entries(entries: Entries) -> str:
    """Return entries as text, for the pipe from a worker."""
    return base64.b64encode(entries.tobytes()).decode()


def decode_entries(text: str) -> Entries:
    """Return the entries that `encode_entries` wrote."""
    return np.frombuffer(base64.b64decode(text), ENTRY)


def write_spread(collection: Collection, number: int, spread: Spread, *, final: bool) -> None:
    """Keep what is known of the collection: while it grows round by round, and then for the settle to decide by."""
    path = _spread_file(collection, number, final=final)
    durable.write(path, spread.entries.tobytes(), replace=True, mode=RESTRICTED_FILE_MODE)
    if final:
        _spread_file(collection, number, final=False).unlink(missing_ok=True)


def read_spread(collection: Collection, number: int, *, final: bool) -> Spread:
    """Return what `write_spread` kept.

    Raises:
        OSError: nothing was.
    """
    return Spread(np.fromfile(_spread_file(collection, number, final=final), ENTRY))


def has_spread(collection: Collection, number: int) -> bool:
    """Say whether an interrupted attempt at a settle had found out all that it decides by.

    What it withheld since can no longer be asked, and going on must decide as it would have.
    """
    return _spread_file(collection, number, final=True).exists()


def reopen_spread(collection: Collection, number: int) -> Entries:
    """Return what an interrupted attempt had found out, and go back to its rounds; all of it still holds."""
    final, rounds = (_spread_file(collection, number, final=one) for one in (True, False))
    if final.exists():
        os.replace(final, rounds)
        durable.sync_folder(rounds.parent)
    return merge([np.fromfile(rounds, ENTRY)]) if rounds.exists() else merge([])


def write_around(collection: Collection, number: int, around: AroundFound) -> None:
    """Keep what was found around seeds."""
    path = collection.settled(number) / AROUND_FILE
    value = {"made": around.made, "found": around.found}
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
    return AroundFound(value["made"], found)


def remove_spread(collection: Collection, number: int) -> None:
    """Remove what a settle that is closed decided by; it stands in its decisions now."""
    for final in (False, True):  # a run that ended right after the final one was written left both
        _spread_file(collection, number, final=final).unlink(missing_ok=True)
    (collection.settled(number) / AROUND_FILE).unlink(missing_ok=True)


def _spread_file(collection: Collection, number: int, *, final: bool) -> Path:
    return collection.settled(number) / (SPREAD_FILE if final else "spread.round")


def add_keyed(collection: Collection, shard: str, entries: Entries) -> None:
    """Add the keys of samples that are about to be withheld to those of their shard."""
    secret = read_secret(collection)
    more = Keyed(*(tuple(_padded(entries[entries["url"] == url]["key"])) for url in (False, True)))
    write_keyed(collection, shard, read_keyed(collection, shard, secret).joined(more), secret)


def keyed_entries(keyed: Keyed) -> Entries:
    """Return what the keys of withheld samples lead to elsewhere."""
    found = np.zeros(len(keyed.images) + len(keyed.urls), ENTRY)
    found["key"] = [*keyed.images, *keyed.urls]
    found["url"] = np.arange(len(found)) >= len(keyed.images)
    found["effect"] = np.where(found["url"], np.int8(Action.QUARANTINE), np.int8(_HIDDEN))
    return merge([found])


def _padded(keys: NDArray[np.bytes_]) -> list[bytes]:
    return [key.ljust(KEY_BYTES, b"\0") for key in keys.tolist()]  # numpy drops zeros at the end
