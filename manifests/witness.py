"""Cosignatures of witnesses (C2SP tlog-witness v1.0.0, tlog-cosignature v1.0.1).

A witness signs a checkpoint only once it is shown that the last one it signed is a part of it: it cannot be made to
vouch for a log that was rewritten or cut.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from manifests.anchors import AnchorError, post, split_note
from manifests.audit.note import NoteKey, open_note
from manifests.records import FilesError

_SIGNED, _OTHER_SIZE = 200, 409


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: its submission prefix, its verifier key, and what proves the log consistent between two sizes."""

    url: str
    vkey: str
    prove: Callable[[int, int], Sequence[bytes]] = field(repr=False)
    kind = "witness"

    def anchor(self, checkpoint: bytes) -> bytes:
        """Have a checkpoint cosigned; the receipt is the lines that the witness answers with."""
        size = split_note(checkpoint)[1].size
        status, receipt = self._submit(0, checkpoint)
        if status == _OTHER_SIZE:  # it tells which size it signed last
            known = receipt.strip()
            if not known.isdigit() or not 0 < int(known) <= size:
                raise AnchorError(
                    f"the witness has seen more than {size} entries: this log is cut short or rewritten"
                )
            status, receipt = self._submit(int(known), checkpoint)
        if status != _SIGNED:
            raise AnchorError(f"the witness refuses the checkpoint (status {status})")
        self.verify(receipt, checkpoint)
        return receipt

    def verify(self, receipt: bytes, checkpoint: bytes) -> str:
        """Check a cosignature and say its time."""
        text, _ = split_note(checkpoint)
        try:
            key = NoteKey.parse(self.vkey)
            at = open_note(text + b"\n" + receipt, [key])[1][key]
            return f"{key.name} had seen it on {datetime.fromtimestamp(at or 0, UTC).isoformat()}"
        except (FilesError, OverflowError, OSError) as error:
            raise AnchorError(f"holds no cosignature of the witness for this checkpoint ({error})") from None

    def _submit(self, old: int, checkpoint: bytes) -> tuple[int, bytes]:
        size = split_note(checkpoint)[1].size
        proof = self.prove(old, size) if 0 < old < size else ()
        lines = [f"old {old}", *(base64.b64encode(one).decode() for one in proof), "", ""]
        return post(f"{self.url.rstrip('/')}/add-checkpoint", "\n".join(lines).encode() + checkpoint, "text/plain")
