"""Time stamps of checkpoints (RFC 3161): somebody with a clock says that a checkpoint was there.

Needs `rfc3161-client`, which comes with `shardscrub[run]`; `openssl ts -verify` checks the same receipt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from manifests.anchors import AnchorError, post

_GOOD = 200


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A time-stamping authority: its address, and the certificates (PEM) that its answers must lead to."""

    url: str
    roots: bytes = field(repr=False)
    kind = "rfc3161"

    def anchor(self, checkpoint: bytes) -> bytes:
        """Have a checkpoint stamped; the receipt is the authority's answer (DER)."""
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder  # noqa: PLC0415 - not in the plain install

        request = TimestampRequestBuilder().data(checkpoint).hash_algorithm(HashAlgorithm.SHA256).build()
        status, receipt = post(self.url, request.as_bytes(), "application/timestamp-query")
        if status != _GOOD:
            raise AnchorError(f"the authority answers with status {status}")
        self._check(receipt, checkpoint, request.nonce)
        return receipt

    def verify(self, receipt: bytes, checkpoint: bytes) -> str:
        """Check a time stamp and say its time."""
        return f"it was there on {self._check(receipt, checkpoint, None)}"

    def _check(self, receipt: bytes, checkpoint: bytes, nonce: int | None) -> str:
        from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response  # noqa: PLC0415

        try:
            roots = x509.load_pem_x509_certificates(self.roots)
            stamp = decode_timestamp_response(receipt)
            VerifierBuilder(roots=roots, nonce=nonce).build().verify_message(stamp, checkpoint)
            return stamp.tst_info.gen_time.isoformat()
        except (VerificationError, ValueError) as error:
            raise AnchorError(f"not a time stamp of this checkpoint ({error})") from None
