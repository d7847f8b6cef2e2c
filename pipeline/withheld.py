"""The `internal` list: what a collection has withheld is known again in a table, by keyed digests alone.

Owns reading the keys of all shards and asking them. Leaves the keys to `manifests.keyed`, and what follows from a
known row to `screen.py`: it is not fetched and is withheld, as a copy of a withheld image is in a run.

- A URL is asked in every spelling in which a list of URLs is asked; of the digests SHA-256 alone has keys.
- Without the collection's secret, which stays where it is, the keys say nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import Rows
from manifests.collection import Collection
from manifests.keyed import KEY_BYTES, Keyed, KnownKeys, make_keys, read_keyed, read_secret


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Withheld:
    """What a collection has withheld, as keys under its secret."""

    keyed: Keyed
    secret: bytes
    _known: dict[str, KnownKeys] = field(init=False)

    def __post_init__(self) -> None:
        """Make the keys ready to be asked."""
        held = {"image": self.keyed.images, "url": self.keyed.urls}
        known = {name: KnownKeys(np.array(keys, f"S{KEY_BYTES}")) for name, keys in held.items()}
        object.__setattr__(self, "_known", known)

    @classmethod
    def read(cls, collection: Collection) -> Withheld | None:
        """Return the keys of all that a collection has withheld so far; None where it was never begun.

        Raises:
            KeyedError: its secret, or the keys of a shard, are missing or damaged.
        """
        if not collection.secret.exists() and not collection.examine_plan.exists():
            return None
        secret, images, urls = read_secret(collection), set[bytes](), set[bytes]()
        for path in sorted(collection.examined.glob("*.keyed")):
            one = read_keyed(collection, path.stem, secret)
            images.update(one.images)
            urls.update(one.urls)
        return cls(Keyed(tuple(sorted(images)), tuple(sorted(urls))), secret)

    @property
    def count(self) -> int:
        """How many keys there are."""
        return len(self.keyed.images) + len(self.keyed.urls)

    def record(self) -> dict[str, object]:
        """Return what `of` reads: for memory that worker processes share, and never for a file."""
        keys = {name: [key.hex() for key in getattr(self.keyed, name)] for name in ("images", "urls")}
        return {"secret": self.secret.hex(), **keys}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Withheld:
        """Return what `record` held."""
        keys = (tuple(bytes.fromhex(key) for key in record[name]) for name in ("images", "urls"))
        return cls(Keyed(*keys), bytes.fromhex(record["secret"]))

    def digest(self) -> str:
        """Return a digest of the keys, under the secret: it tells two states apart and nothing else."""
        keys = [len(self.keyed.images).to_bytes(8, "big"), *self.keyed.images, *self.keyed.urls]
        return hashlib.blake2b(b"".join(keys), key=self.secret, person=b"internal").hexdigest()

    def knows_images(self, sha256: Rows) -> NDArray[np.int64]:
        """Return which digests (uint8 N x 32) are of bytes that were withheld."""
        return self._find(sha256, "image")

    def knows_urls(self, digests: Rows) -> NDArray[np.int64]:
        """Return which digests (uint8 N x 32) of spellings are of URLs that were withheld."""
        return self._find(digests, "url")

    def _find(self, digests: Rows, what: str) -> NDArray[np.int64]:
        known = np.ones(len(digests), np.bool_)
        keys = make_keys(digests[:, :KEY_BYTES], known, self.secret, "url" if what == "url" else "image")
        return self._known[what].find(keys)[0]
