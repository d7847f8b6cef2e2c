"""Digests that say nothing without the collection's secret: how what was withheld is known again, and not shown.

Owns the secret, the keys made with it, and the file in which each shard keeps those of what it withheld.
Restricted, and part of no identity: two collections of one input differ here alone.

- A key is BLAKE2b (RFC 7693) under the secret, 16 bytes, apart for bytes and URLs by its personalisation.
- A file carries a MAC under the same secret, so that `verify` finds a changed, cut or swapped one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import FilesError, canonical_json

KEY_BYTES = 16
_SECRET_BYTES = 32


class KeyedError(FilesError):
    """The secret, or a file of keyed digests, is missing or not as it was written."""


@dataclass(frozen=True, slots=True, repr=False)
class Keyed:
    """Keys of the images and of the URLs of samples that one shard has withheld, each sorted."""

    images: tuple[bytes, ...] = ()
    urls: tuple[bytes, ...] = ()

    def joined(self, other: Keyed) -> Keyed:
        """Return the keys of both."""
        return Keyed(
            tuple(sorted({*self.images, *other.images})),
            tuple(sorted({*self.urls, *other.urls})),
        )


def make_secret(collection: Collection) -> None:
    """Make the secret of a collection that has withheld nothing yet; one that is there stays."""
    if not collection.secret.exists() and not any(collection.examined.glob("*.keyed")):
        secret = secrets.token_hex(_SECRET_BYTES).encode()
        with suppress(durable.DurableError):  # another process made it first
            durable.write(collection.secret, secret, replace=False, mode=RESTRICTED_FILE_MODE)


def read_secret(collection: Collection) -> bytes:
    """Return the secret of a collection, made when it was begun.

    Raises:
        KeyedError: it is missing or damaged; without it no copy of what was withheld would be known.
    """
    try:
        text = collection.secret.read_text(encoding="ascii")
        secret = bytes.fromhex(text)
    except (OSError, ValueError):
        text, secret = "", b""
    if len(secret) != _SECRET_BYTES or text != secret.hex():
        raise KeyedError(
            f"{collection.secret}: missing or damaged; restore it: what was withheld is known by it alone"
        )
    return secret


def make_keys(values: Iterable[bytes | None], secret: bytes, what: Literal["image", "url"]) -> NDArray[np.bytes_]:
    """Return the key of each value as S16, "" for None."""
    keys = [
        b""
        if value is None
        else hashlib.blake2b(value, digest_size=KEY_BYTES, key=secret, person=what.encode()).digest()
        for value in values
    ]
    return np.array(keys, f"S{KEY_BYTES}")


def write_keyed(collection: Collection, shard: str, keyed: Keyed, secret: bytes) -> None:
    """Write the keys of what a shard has withheld."""
    value = {"images": [key.hex() for key in keyed.images], "urls": [key.hex() for key in keyed.urls]}
    data = canonical_json({**value, "mac": _mac(shard, value, secret)})
    durable.write(collection.keyed(shard), data, replace=True, mode=RESTRICTED_FILE_MODE)


def read_keyed(collection: Collection, shard: str, secret: bytes) -> Keyed:
    """Return the keys of what a shard has withheld; one that withheld nothing has no file.

    Raises:
        KeyedError: the file is not as it was written, or of another shard or collection.
    """
    path: Path = collection.keyed(shard)
    if not path.exists():
        return Keyed()
    try:
        data = path.read_bytes()
        value = json.loads(data)
        mac = value.pop("mac")
        keyed = Keyed(*(tuple(bytes.fromhex(key) for key in value[name]) for name in ("images", "urls")))
        same = hmac.compare_digest(mac, _mac(shard, value, secret)) and data == canonical_json(
            {**value, "mac": mac}
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise KeyedError(f"{path}: not as this collection wrote it; restore it")
    return keyed


def _mac(shard: str, value: object, secret: bytes) -> str:
    return hashlib.blake2b(canonical_json([shard, value]), key=secret, person=b"file").hexdigest()
