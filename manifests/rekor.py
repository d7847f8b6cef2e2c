"""Entries in Rekor v2, a public log: the digest of a checkpoint, signed with a key of ours, in a log of others.

Owns request and check of `hashedrekord` entries 0.0.2 (github.com/sigstore/rekor-tiles). Rekor takes no Ed25519
key, so this key is ECDSA P-256. Rekor's address and key change about twice a year.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from manifests.anchors import AnchorError, post
from manifests.audit.merkle import check_inclusion, leaf_hash
from manifests.audit.note import NoteKey, decode, open_checkpoint
from manifests.records import FilesError, canonical_json

_MADE = (200, 201)
_KEY_KIND = "PKIX_ECDSA_P256_SHA_256"


@dataclass(frozen=True, slots=True)
class Rekor:
    """A Rekor log: its address, its verifier key, our key (`key` is needed only to make entries)."""

    url: str
    vkey: str
    public_key: EllipticCurvePublicKey
    key: EllipticCurvePrivateKey | None = field(default=None, repr=False)
    kind = "rekor"

    def anchor(self, checkpoint: bytes) -> bytes:
        """Have the digest of a checkpoint logged; the receipt is the entry (JSON) with its proof."""
        if self.key is None:
            raise AnchorError("no key to sign an entry with")
        request = {
            "digest": _text(hashlib.sha256(checkpoint).digest()),
            "signature": {
                "content": _text(self.key.sign(checkpoint, ECDSA(SHA256()))),
                "verifier": {"publicKey": {"rawBytes": self._encoded()}, "keyDetails": _KEY_KIND},
            },
        }
        body = canonical_json({"hashedRekordRequestV002": request})
        status, receipt = post(f"{self.url.rstrip('/')}/api/v2/log/entries", body, "application/json")
        if status not in _MADE:
            raise AnchorError(f"the log refuses the entry (status {status})")
        self.verify(receipt, checkpoint)
        return receipt

    def verify(self, receipt: bytes, checkpoint: bytes) -> str:
        """Check that an entry is in the log, and that it is about a checkpoint and signed by our key."""
        entry, index = read_entry(receipt, self.vkey)
        try:
            about = entry["data"]["digest"], entry["signature"]["verifier"]["publicKey"]["rawBytes"]
            signature = decode(entry["signature"]["content"], "signature")
            self.public_key.verify(signature, checkpoint, ECDSA(SHA256()))
        except (KeyError, TypeError, ValueError, InvalidSignature):
            raise AnchorError("the entry is not signed by our key over this checkpoint") from None
        if about != (_text(hashlib.sha256(checkpoint).digest()), self._encoded()):
            raise AnchorError("the entry is about something else")
        return f"entry {index} of {NoteKey.parse(self.vkey).name}"

    def _encoded(self) -> str:
        return _text(self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def read_entry(receipt: bytes, verifier_key: str) -> tuple[dict[str, Any], int]:
    """Return what an entry says and its index, once its proof leads to a checkpoint that the log has signed.

    Raises:
        AnchorError: it is none, or does not lead there.
    """
    try:
        key, raw = NoteKey.parse(verifier_key), json.loads(receipt)
        body, proof = decode(raw["canonicalizedBody"], "entry"), raw["inclusionProof"]
        entry = json.loads(body)["spec"]["hashedRekordV002"]
        index, hashes = int(proof["logIndex"]), [decode(one, "proof") for one in proof["hashes"]]
        log = open_checkpoint(proof["checkpoint"]["envelope"].encode(), key.name, [key])
        check_inclusion(leaf_hash(body), index, log.size, hashes, log.root)
    except FilesError as error:
        raise AnchorError(f"not an entry of the log: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError):
        raise AnchorError("not an entry of a Rekor v2 log with its proof") from None
    return entry, index


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
