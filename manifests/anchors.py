"""What keeps the holder of the signing key honest: checkpoints that are kept, and vouched for, elsewhere.

Owns the store of the newest checkpoint, what anchors have in common, and the auditor's copies. Leaves the others to
`timestamps.py` (RFC 3161), `witness.py` (C2SP tlog-witness) and `rekor.py`, and proofs of consistency to the log.

- A signed log does not stop its own signer from signing a shorter one. A checkpoint outside of its reach does.
- The store goes forward only: what it holds must be proven to be a part of what replaces it.
- Anchoring is the one thing in a run that uses a network: it contacts the addresses that are configured, at the
  close, and sends them checkpoints, which are public.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from manifests import durable
from manifests.audit.note import Checkpoint
from manifests.records import FilesError

_ANSWER_S = 30.0
_MAX_ANSWER_BYTES = 1 << 20


class AnchorError(FilesError):
    """A checkpoint is not what was kept or vouched for, or nobody could be asked to do so."""


class Anchor(Protocol):
    """Vouches for checkpoints: gives a receipt for one, and checks a receipt against one."""

    kind: str

    def anchor(self, checkpoint: bytes) -> bytes:
        """Return a receipt for a signed checkpoint, which has been verified.

        Raises:
            AnchorError: there is none to be had.
        """

    def verify(self, receipt: bytes, checkpoint: bytes) -> str:
        """Say what a receipt shows for a checkpoint.

        Raises:
            AnchorError: it is not one for this checkpoint.
        """


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """The newest checkpoint of one log, in a file outside of the collection."""

    path: Path

    def read(self) -> bytes | None:
        """Return the newest checkpoint, or None where none was kept yet."""
        return self.path.read_bytes() if self.path.exists() else None

    def advance(self, new: bytes, *, begun: bool, consistent: Callable[[bytes, bytes], bool]) -> None:
        """Keep `new` in the place of what is held, unless that is not a part of it; writers wait for each other.

        Args:
            new: a signed checkpoint.
            begun: whether the log had a checkpoint before; then an empty store is refused.
            consistent: says whether the log shows that the first checkpoint is a part of the second.

        Raises:
            AnchorError: the log was rewritten or cut, or the store was emptied.
        """
        durable.make_folder(self.path.parent)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            held = self.read()
            if held is None and begun:
                raise AnchorError(
                    f"{self.path}: missing, though the log has checkpoints; bring it back, or put there the newest "
                    "checkpoint that somebody outside holds"
                )
            if held is not None and held != new and not consistent(held, new):
                raise AnchorError(
                    f"{self.path}: holds a checkpoint that the log is no continuation of: the log was rewritten or "
                    "cut short; restore it"
                )
            if held != new:
                durable.write(self.path, new, replace=True)
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class AuditorCopy:
    """Copies each checkpoint to a folder of somebody else, one file for each size; never writes over one."""

    folder: Path
    kind = "auditor-copy"

    def anchor(self, checkpoint: bytes) -> bytes:
        """Copy a checkpoint, or find it copied; the receipt is the name of the copy."""
        path = self.folder / f"{split_note(checkpoint)[1].size}.checkpoint"
        try:
            durable.make_folder(path.parent)
            durable.write(path, checkpoint, replace=False)
        except durable.DurableError:
            raise AnchorError(
                f"{path}: another checkpoint of this size was copied there: the log was rewritten"
            ) from None
        except OSError as error:
            raise AnchorError(f"{path}: cannot be written ({error.strerror})") from None
        return f"{path.name}\n".encode()

    def verify(self, receipt: bytes, checkpoint: bytes) -> str:
        """Compare a checkpoint with its copy."""
        size = split_note(checkpoint)[1].size
        path = self.folder / f"{size}.checkpoint"
        if receipt != f"{path.name}\n".encode() or not path.is_file() or path.read_bytes() != checkpoint:
            raise AnchorError(f"{path}: is not a copy of this checkpoint")
        return f"the auditor's copy of size {size} is the same"


def anchor_all(anchors: Sequence[Anchor], checkpoint: bytes) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Anchor a checkpoint everywhere.

    Returns:
        The receipts by name, which is the number and the kind of the anchor, and what failed.

    Raises:
        AnchorError: none vouches for it.
    """
    receipts, failed = {}, []
    for number, anchor in enumerate(anchors):
        try:
            receipts[f"{number}.{anchor.kind}"] = anchor.anchor(checkpoint)
        except AnchorError as error:
            failed.append(f"[[log.anchors]] {number}, {anchor.kind}: {error}")
    if not receipts:
        raise AnchorError("\n".join(["no anchor vouches for the checkpoint; run again once one can", *failed]))
    return receipts, tuple(failed)


def split_note(checkpoint: bytes) -> tuple[bytes, Checkpoint]:
    """Return what is signed of a checkpoint, and what that says.

    Raises:
        AnchorError: it is none.
    """
    text, _, _ = checkpoint.rpartition(b"\n\n")
    try:
        return text + b"\n", Checkpoint.parse(f"{text.decode()}\n")
    except ValueError as error:  # of which NoteError is one
        raise AnchorError(f"not a signed checkpoint: {error}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Nothing but the configured address is contacted, whatever it answers."""

    def redirect_request(self, *_: object) -> None:
        """Follow nothing: the answer is the redirect's status."""


def post(url: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    """Send bytes to a configured address and return status and answer, within bounds of time and size.

    Raises:
        AnchorError: there is no such answer.
    """
    request = urllib.request.Request(url, body, {"Content-Type": content_type})  # noqa: S310 - the configuration
    end = time.monotonic() + _ANSWER_S  # allows http and https only
    try:
        try:
            answer = urllib.request.build_opener(_NoRedirect).open(request, timeout=_ANSWER_S)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            data = b""
            while chunk := answer.read1(_MAX_ANSWER_BYTES):
                data += chunk
                if len(data) > _MAX_ANSWER_BYTES or time.monotonic() > end:
                    raise AnchorError(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes, or takes too long")
            return answer.status, data
    except (OSError, http.client.HTTPException) as error:
        raise AnchorError(f"no answer ({type(error).__name__})") from None
