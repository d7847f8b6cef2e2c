"""Signing keys: who signs checkpoints and statements.

Owns keys in files, keys behind a command (a KMS or an HSM), and the text of public keys. Leaves what is signed to
others, and how one key follows another to `key_rotation.py`.

- A private key is a path or a command: never a value in an argument, the environment or a message.
- A key file is its owner's alone (0600) and lies outside of the collection that it signs for.
- What a command answers is held against the public key; what it says on stderr is shown to nobody.
- This key signs. It is not the secret that commits (`secret` of the collection) and none that seals (age).
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from manifests import durable
from manifests.records import FilesError

ED25519, COSIGNATURE = 0x01, 0x04  # signature types of C2SP signed-note and tlog-cosignature
SIGNATURE_BYTES = 64
_MAX_KEY_BYTES = 1 << 16
KeyT = TypeVar("KeyT")


class SignerError(FilesError):
    """A signing key is not usable, or what was signed does not verify."""


class Signer(Protocol):
    """What signs: a name (the log's origin), the raw Ed25519 public key (32 bytes), signatures of 64 bytes."""

    @property
    def name(self) -> str:
        """The name under which it signs."""

    @property
    def public_key(self) -> bytes:
        """The raw public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message.

        Raises:
            SignerError: there is none that verifies.
        """


@dataclass(frozen=True, slots=True, repr=False)
class FileSigner:
    """Signs with an Ed25519 key that lies in a PEM file."""

    name: str
    public_key: bytes
    _key: Ed25519PrivateKey

    @classmethod
    def read(cls, name: str, path: Path, *, outside: Path) -> FileSigner:
        """Read the key of `name` from `path`, which must not be in the folder `outside`.

        Raises:
            SignerError: it is not there, not Ed25519, lies in that folder, or others may read it.
        """
        key = read_private_key(path, Ed25519PrivateKey, outside=outside)  # type: ignore[type-abstract] # only compared
        return cls(name, key.public_key().public_bytes_raw(), key)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message (RFC 8032)."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """Signs with a command: the message goes to its stdin, 64 raw bytes come from its stdout."""

    name: str
    public_key: bytes
    command: tuple[str, ...]
    timeout_s: float = 30.0

    def sign(self, message: bytes) -> bytes:
        """Return the signature that the command gave, once it verifies.

        Raises:
            SignerError: the command cannot be started, takes too long, fails, or gives anything else.
        """
        what = f"[log] signer ({self.command[0]})"
        quiet = subprocess.DEVNULL
        try:
            done = subprocess.run(  # noqa: S603 - the configuration names it, and no shell reads it
                self.command,
                input=message,
                stdout=subprocess.PIPE,
                stderr=quiet,
                timeout=self.timeout_s,
                check=False,
            )
        except OSError as error:
            raise SignerError(f"{what}: cannot be started ({error.strerror})") from None
        except subprocess.TimeoutExpired:
            raise SignerError(f"{what}: no answer within {self.timeout_s:g} s") from None
        if done.returncode:
            raise SignerError(f"{what}: ended with code {done.returncode}; run it by hand to see why")
        check_signature(self.public_key, done.stdout, message, what)
        return done.stdout


def check_signature(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """Refuse a signature that is not of this key over this message; `what` names it.

    Raises:
        SignerError: it is not.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignerError(f"{what}: expected {SIGNATURE_BYTES} raw bytes of signature, found {len(signature)}")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignerError(f"{what}: the signature does not verify under the public key") from None


def read_private_key(path: Path, kind: type[KeyT], *, outside: Path) -> KeyT:
    """Read a private key of a kind from a PEM file of mode 0600 that is not below `outside`.

    Raises:
        SignerError: it is not there, not such a key, lies in that folder, or others may read it.
    """
    check_place(path, outside)
    try:
        with path.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SignerError(f"{path}: cannot be read ({error.strerror}); `shardscrub keys new` makes a key") from None
    if mode & 0o077:
        raise SignerError(f"{path}: others may read this key; expected mode 0600, found {mode & 0o777:04o}")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignerError(f"{path}: not an unencrypted private key in PEM form") from None
    if not isinstance(key, kind):
        raise SignerError(f"{path}: expected a key of kind {kind.__name__}, found {type(key).__name__}")
    return key


def check_place(path: Path, outside: Path) -> None:
    """Refuse a key below the folder `outside`.

    Raises:
        SignerError: it is there.
    """
    if path.resolve().is_relative_to(outside.resolve()):
        raise SignerError(f"{path}: a signing key must not lie in the collection; keep it elsewhere")


def new_key(path: Path) -> Ed25519PrivateKey:
    """Make an Ed25519 key and write it to `path`, which must not exist (mode 0600).

    Raises:
        SignerError: something is there already.
    """
    if path.exists():
        raise SignerError(f"{path}: exists already; a key is never written over")
    key = Ed25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    durable.make_folder(path.parent, mode=0o700)
    durable.write(path, key.private_bytes(*form), replace=False, mode=0o600)
    return key


def vkey(name: str, public_key: bytes, algorithm: int = ED25519) -> str:
    """Return a public key as one line of text: the verifier key of C2SP signed-note v1.0.0."""
    encoded = bytes([algorithm]) + public_key
    return f"{name}+{key_id(name, encoded).hex()}+{base64.b64encode(encoded).decode()}"


def key_id(name: str, encoded: bytes) -> bytes:
    """Return the 4 bytes by which signature lines name a key; `encoded` begins with the algorithm's byte."""
    return hashlib.sha256(name.encode() + b"\n" + encoded).digest()[:4]


def parse_vkey(text: str, algorithm: int = ED25519) -> tuple[str, bytes]:
    """Return name and raw public key of a verifier key.

    Raises:
        SignerError: it is none, or of another algorithm.
    """
    name, _, rest = text.partition("+")
    with suppress(ValueError):  # of which what base64 and cryptography raise are kinds
        encoded = base64.b64decode(rest[9:], validate=True)
        if (encoded[:1], text) == (bytes([algorithm]), vkey(check_name(name), encoded[1:], algorithm)):
            Ed25519PublicKey.from_public_bytes(encoded[1:])
            return name, encoded[1:]
    raise SignerError(f"{text!r}: not a verifier key (name+id+key) of signature type 0x{algorithm:02x}")


def check_name(name: str) -> str:
    """Return the name of a log or a key, once it is one.

    Raises:
        SignerError: it is empty, or holds a space or a plus sign.
    """
    if not name or "+" in name or name.split() != [name]:
        raise SignerError(f"{name!r}: the name of a log must not be empty and holds neither spaces nor '+'")
    return name
