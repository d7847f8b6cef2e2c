"""Digests that say nothing without the collection's secret: how what was withheld is known again, and not shown.

Owns the secret, the keys made with it, and the file in which each shard keeps those of what it withheld.
Restricted, and part of no identity: two collections of one input differ here alone.

- A key is AES_K(x) xor x of an id x of 16 bytes, K derived from the secret, apart for bytes and URLs: a block
  cipher as a one-way function (Matyas, Meyer and Oseas, 1985), so that the secret lets guesses be tried, not read
  back. Many at once, since a settle takes two of every row.
- A file carries a MAC under the same secret, so that `verify` finds a changed, cut or swapped one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import FilesError, canonical_json

KEY_BYTES = 16
_SECRET_BYTES = 32
_BITS_A_KEY, _MOST_BITS = 16, 28  # a byte each: 256 MB at most
_LEAST_BYTES = 4096


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


def make_keys(
    ids: NDArray[np.uint8], known: NDArray[np.bool_], secret: bytes, what: Literal["image", "url"]
) -> NDArray[np.bytes_]:
    """Return the keys of ids (uint8 [N, 16], first bytes of a SHA-256) as S16 [N]; "" where not known."""
    derived = hashlib.blake2b(digest_size=32, key=secret, person=what.encode()).digest()
    plain = np.ascontiguousarray(ids)
    # One block each, all different or meant to be equal: the mode that is unfit for texts is what is wanted here.
    cipher = Cipher(algorithms.AES(derived), modes.ECB()).encryptor()  # noqa: S305 - as said above
    made = np.frombuffer(cipher.update(plain.tobytes()), np.uint8).reshape(-1, KEY_BYTES) ^ plain
    made[~known] = 0
    return made.reshape(-1).view(f"S{KEY_BYTES}")


class KnownKeys:
    """Sorted keys to look others up in. Most are not among them, which a look at some of their bits tells."""

    def __init__(self, keys: NDArray[np.bytes_]) -> None:
        self._keys = np.ascontiguousarray(keys)
        self._heads = _heads(self._keys)
        bits = min(max(len(keys) * _BITS_A_KEY, 1).bit_length(), _MOST_BITS)
        self._begins = np.zeros(1 << bits, np.bool_)
        self._begins[self._low_bits(self._keys)] = True

    def find(self, keys: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of `keys` are known, and their places among the known; the empty key is none."""
        maybe = np.flatnonzero(self._begins[self._low_bits(keys)])
        asked = keys[maybe]
        place = self._places(_heads(asked), self._heads)
        if not len(self._keys):
            return maybe[:0], place[:0]
        same = self._keys[place] == asked
        # Keys whose first half is alike, which chance hardly ever gives, stand together.
        alike = np.flatnonzero(~same & (self._heads[place] == _heads(asked)))
        place[alike] = self._places(asked[alike], self._keys)
        same[alike] = self._keys[place[alike]] == asked[alike]
        known = same & (asked != b"")
        return maybe[known], place[known]

    @staticmethod
    def _places(asked: NDArray[Any], among: NDArray[Any]) -> NDArray[np.int64]:
        return np.minimum(np.searchsorted(among, asked), max(len(among) - 1, 0))

    def _low_bits(self, keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
        return np.ascontiguousarray(keys).view(np.uint64)[::2] & np.uint64(len(self._begins) - 1)


def _heads(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first halves of keys as numbers in the order of the keys: to search numbers costs a fifth."""
    return np.ascontiguousarray(keys).view(">u8")[::2].astype(np.uint64)


def write_keyed(collection: Collection, shard: str, keyed: Keyed, secret: bytes) -> None:
    """Write the keys of what a shard has withheld, padded: the size says little, and that it is there nothing."""
    value: dict[str, object] = {name: [key.hex() for key in getattr(keyed, name)] for name in ("images", "urls")}
    size, least = _LEAST_BYTES, len(canonical_json({**value, "mac": _mac(shard, value, secret), "pad": ""}))
    while size < least:
        size *= 2
    value["pad"] = " " * (size - least)
    data = canonical_json({**value, "mac": _mac(shard, value, secret)})
    durable.write(collection.keyed(shard), data, replace=True, mode=RESTRICTED_FILE_MODE)


def read_keyed(collection: Collection, shard: str, secret: bytes) -> Keyed:
    """Return the keys of what an examined shard has withheld.

    Raises:
        KeyedError: the file is missing, not as it was written, or of another shard or collection.
    """
    path: Path = collection.keyed(shard)
    try:
        data = path.read_bytes()
        value = json.loads(data)
        mac = value.pop("mac")
        keyed = Keyed(*(tuple(bytes.fromhex(key) for key in value[name]) for name in ("images", "urls")))
        same = hmac.compare_digest(mac, _mac(shard, value, secret)) and data == canonical_json(
            {**value, "mac": mac}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise KeyedError(f"{path}: missing, or not as this collection wrote it; restore it")
    return keyed


def _mac(shard: str, value: object, secret: bytes) -> str:
    return hashlib.blake2b(canonical_json([shard, value]), key=secret, person=b"file").hexdigest()
