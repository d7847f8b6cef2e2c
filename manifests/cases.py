"""Sealed files: records of withheld samples, readable only with a key that the pipeline does not hold.

Owns the envelope: a Parquet table, padded, encrypted with age (https://age-encryption.org/v1) to X25519
recipients. Leaves to others which samples are withheld.

- Every shard writes a sealed file, with or without records in it.
- The padded size depends on the number of samples in the shard alone, until the records outgrow it; then it
  doubles. So neither presence nor size says whether anything was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa
import pyrage

from manifests import schema

_MAGIC = b"shardscrub-sealed/1\n"
_LENGTH_BYTES = 8
_FLOOR_BYTES = 64 << 10
_BYTES_PER_SAMPLE = 256


class SealError(ValueError):
    """A recipient or identity is not usable, or a sealed file cannot be opened with the key given."""


def check_recipients(recipients: Sequence[str]) -> None:
    """Refuse recipients that are not age X25519 public keys.

    Raises:
        SealError: one of them is not; it is named by its position only.
    """
    for position, text in enumerate(recipients):
        try:
            pyrage.x25519.Recipient.from_str(text)
        except pyrage.RecipientError:
            raise SealError(
                f"[sealed] recipients[{position}]: expected an age X25519 public key (age1...); "
                "make one with `shardscrub cases keys new FILE`"
            ) from None


def new_identity() -> tuple[str, str]:
    """Return a new age identity: (secret text, public recipient)."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipients_of(identities: str) -> set[str]:
    """Return the public recipients of the secret keys in the text of an identity file."""
    found = set()
    for line in identities.splitlines():
        if line.startswith("AGE-SECRET-KEY-"):
            with suppress(pyrage.IdentityError):
                found.add(str(pyrage.x25519.Identity.from_str(line.strip()).to_public()))
    return found


def padded_size(samples: int, payload_bytes: int) -> int:
    """Return the plaintext size for a shard of `samples` whose records take `payload_bytes`."""
    size = _FLOOR_BYTES + _BYTES_PER_SAMPLE * samples
    while size < len(_MAGIC) + _LENGTH_BYTES + payload_bytes:
        size *= 2
    return size


def seal(table: pa.Table, *, samples: int, recipients: Sequence[str]) -> tuple[bytes, int]:
    """Encrypt the records of one shard; returns the file's bytes and the size of the padded plaintext.

    Raises:
        SealError: no recipient, or one that is not an age public key.
    """
    if not recipients:
        raise SealError("no recipient to seal to: set [sealed] recipients in the configuration")
    check_recipients(recipients)
    payload = schema.encode(table)
    size = padded_size(samples, len(payload))
    plain = (_MAGIC + len(payload).to_bytes(_LENGTH_BYTES, "big") + payload).ljust(size, b"\0")
    return pyrage.encrypt(plain, [pyrage.x25519.Recipient.from_str(text) for text in recipients]), size


def open_sealed(data: bytes, *, identity: str, source: str) -> pa.Table:
    """Decrypt the records of one shard with the text of an age identity file.

    Raises:
        SealError: the identity is not one, does not fit, or the file was changed.
    """
    secret = next((line.strip() for line in identity.splitlines() if line.startswith("AGE-SECRET-KEY-")), "")
    try:
        plain = pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(secret)])
    except (pyrage.IdentityError, pyrage.DecryptError) as error:
        raise SealError(f"{source}: cannot be opened with this identity ({type(error).__name__})") from None
    start = len(_MAGIC) + _LENGTH_BYTES
    if not plain.startswith(_MAGIC):
        raise SealError(f"{source}: not a sealed file of this version")
    length = int.from_bytes(plain[len(_MAGIC) : start], "big")
    return schema.decode(plain[start : start + length], source=source)
