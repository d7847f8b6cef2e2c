"""Signed notes and checkpoints: C2SP signed-note v1.0.0, tlog-checkpoint v1.0.0 and tlog-cosignature v1.0.1.

Owns their text: keys that verify, notes that were signed, the three lines of a checkpoint. Leaves keys that sign to
`signers`.

- What is read must be the one way to write it: no other base64, no leading zero, no control character.
- A signature by a key that is not known is passed over; one by a known key that does not verify spoils the note,
  and so does a note without any that verifies.
- Signatures of types 0x01 (Ed25519), 0x02 (ECDSA P-256, which some logs that anchor others use) and 0x04 (a
  witness's cosignature, with its time) are known.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manifests import signers
from manifests.audit.merkle import HASH_BYTES

ED25519, ECDSA, COSIGNATURE = signers.ED25519, 0x02, signers.COSIGNATURE
MAX_NOTE_BYTES, MAX_SIGNATURES = 1 << 20, 100
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+=*)")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteError(signers.SignerError):
    """A note, a checkpoint or a verifier key is not well formed, or not signed by whom it should be."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that verifies: its name, the type of its signatures, and the public key as notes encode it."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """Read a verifier key: name, id and key, joined by plus signs.

        Raises:
            SignerError: it is none, or of a type that is not known.
        """
        name, _, rest = text.partition("+")
        encoded = decode(rest[9:], "verifier key")
        key = cls(name, encoded[0] if encoded else 0, encoded[1:])
        if key.kind != ECDSA:
            signers.parse_vkey(text, ED25519 if key.kind == ED25519 else COSIGNATURE)
        elif text != f"{signers.check_name(name)}+{key.id.hex()}+{rest[9:]}":
            raise NoteError(f"{text!r}: not a verifier key (name+id+key)")
        else:
            key._ecdsa()  # refuses what is none
        return key

    @classmethod
    def of(cls, signer: signers.Signer) -> NoteKey:
        """Return the key that verifies what `signer` signs."""
        return cls(signer.name, ED25519, signer.public_key)

    @property
    def id(self) -> bytes:
        """The 4 bytes by which signature lines name the key."""
        if self.kind == ECDSA:
            return hashlib.sha256(self.public).digest()[:4]
        return signers.key_id(self.name, bytes([self.kind]) + self.public)

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """Refuse what this key did not sign; return the time of a cosignature, in seconds since 1970.

        Raises:
            SignerError: the signature does not verify.
        """
        time = int.from_bytes(signature[:8]) if self.kind == COSIGNATURE else None
        if time is not None:
            signature, text = signature[8:], cosigned(text, time)
        if self.kind != ECDSA:
            signers.check_signature(self.public, signature, text, f"a signature by {self.name}")
            return time
        try:
            self._ecdsa().verify(signature, text, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise NoteError(f"a signature by {self.name} does not verify") from None
        return None

    def _ecdsa(self) -> ec.EllipticCurvePublicKey:
        try:
            key = serialization.load_der_public_key(self.public)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise NoteError(f"the verifier key of {self.name}: not an ECDSA P-256 public key")
        return key


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log that was signed: how many entries, and the root over them."""

    origin: str
    size: int
    root: bytes
    extension: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extension)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a checkpoint.

        Raises:
            NoteError: it is not exactly what `text` writes.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or not _DECIMAL.fullmatch(lines[1]):
            raise NoteError("not a checkpoint: expected the lines origin, size and root")
        return cls(lines[0], int(lines[1]), decode(lines[2], "root", HASH_BYTES), tuple(lines[3:-1]))


def cosigned(text: bytes, time: int) -> bytes:
    """Return what a witness signs (cosignature/v1) for the text of a checkpoint at a time, in seconds."""
    return f"cosignature/v1\ntime {time}\n".encode() + text


def signature_line(key: NoteKey, signature: bytes) -> str:
    """Return the line that carries a signature."""
    return f"— {key.name} {base64.b64encode(key.id + signature).decode()}\n"


def sign_note(text: str, *by: signers.Signer) -> bytes:
    """Return the note of a text, signed by each of `by`."""
    lines = [signature_line(NoteKey.of(one), one.sign(text.encode())) for one in by]
    return f"{text}\n{''.join(lines)}".encode()


def open_note(note: bytes, keys: Sequence[NoteKey]) -> tuple[str, dict[NoteKey, int | None]]:
    """Return the text of a note, and which keys signed it, with the times of cosignatures.

    Raises:
        SignerError: it is no note, a signature by one of the keys does not verify, or there is none by any.
    """
    try:
        text, _, tail = note.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        text = tail = ""
    lines = [_SIGNATURE_LINE.fullmatch(line) for line in tail.removesuffix("\n").split("\n")]
    fits = len(note) <= MAX_NOTE_BYTES and len(lines) <= MAX_SIGNATURES and tail.endswith("\n")
    if not (fits and text and all(lines)) or _FORBIDDEN.search(text + tail):
        raise NoteError("not a signed note: expected a text, an empty line, and lines with signatures")
    text, signed = text + "\n", {}
    for match in filter(None, lines):
        signature = decode(match[2], "signature")
        for key in keys:
            if (key.name, key.id) == (match[1], signature[:4]):
                signed[key] = key.verify(text.encode(), signature[4:])
    if not signed:
        raise NoteError("not signed by any of the keys that are known: " + ", ".join(key.name for key in keys))
    return text, signed


def open_checkpoint(note: bytes, origin: str, keys: Sequence[NoteKey]) -> Checkpoint:
    """Return the checkpoint of the log `origin` that a note states.

    Raises:
        SignerError: `open_note` refuses it, it is no checkpoint, or that of another log.
    """
    checkpoint = Checkpoint.parse(open_note(note, keys)[0])
    if checkpoint.origin != origin:
        raise NoteError(f"a checkpoint of another log: expected {origin!r}, found {checkpoint.origin!r}")
    return checkpoint


def decode(text: str, what: str, length: int | None = None) -> bytes:
    """Return what base64 text stands for, if it is the one text for that, and of this many bytes.

    Raises:
        NoteError: it is not.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if base64.b64encode(data).decode() != text or len(data) != (length or len(data)):
        raise NoteError(f"the {what} is not proper base64" + (f" of {length} bytes" if length else ""))
    return data
