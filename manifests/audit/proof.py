"""Proofs that an entry is in a log, as files that need nothing else: C2SP tlog-proof (`.tlog-proof`).

Owns that text, making it from a log and checking it offline.

- What is read must be the one way to write it; the extra data is not covered by any signature.
- A proof is checked against the entry itself, the log's name and keys that its reader trusts already.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.audit import merkle, note
from manifests.audit.note import Checkpoint, NoteKey
from manifests.audit.tiles import Tiles, check_log

_HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = note.MAX_NOTE_BYTES + (1 << 20)  # that a reader needs to take
_FORM = re.compile(
    rf"{re.escape(_HEADER)}\n(?:extra (?P<extra>[^\n]*)\n)?index (?P<index>0|[1-9][0-9]{{0,18}})\n"
    r"(?P<hashes>(?:[^\n]+\n){0,64})\n(?P<checkpoint>.+)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class LogProof:
    """That the entry at an index is in the log that a checkpoint, a signed note, states."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Return the text of the file."""
        extra = [] if self.extra is None else [f"extra {base64.b64encode(self.extra).decode()}"]
        hashes = (base64.b64encode(one).decode() for one in self.hashes)
        lines = [_HEADER, *extra, f"index {self.index}", *hashes, ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> LogProof:
        """Read the text of a file.

        Raises:
            NoteError: it is not of this form, or a hash is not 32 bytes.
        """
        try:
            match = _FORM.fullmatch(data.decode())
        except UnicodeDecodeError:
            match = None
        if match is None:
            raise note.NoteError(f"not a proof: expected {_HEADER}, the index, hashes, an empty line, a checkpoint")
        lines = match["hashes"].split("\n")[:-1]
        hashes = (note.decode(line, "hash in the proof", merkle.HASH_BYTES) for line in lines)
        extra = None if match["extra"] is None else note.decode(match["extra"], "extra data")
        return cls(int(match["index"]), tuple(hashes), match["checkpoint"].encode(), extra)


def make_proof(
    folder: Path, index: int, checkpoint: Checkpoint, signed: bytes, *, extra: bytes | None = None
) -> tuple[LogProof, bytes]:
    """Return the proof for the entry at `index`, and the entry, from a log whose checkpoint is the note `signed`.

    Raises:
        LogError: a file of the log is missing or damaged; the message names it.
        ProofError: there is no such entry.
    """
    tiles = Tiles(folder, checkpoint.size)
    hashes = merkle.prove_inclusion(index, checkpoint.size, tiles.node)
    entry = tiles.entry(index)
    try:
        merkle.check_inclusion(merkle.leaf_hash(entry), index, checkpoint.size, hashes, checkpoint.root)
    except merkle.ProofError:
        check_log(folder, checkpoint.size, checkpoint.root)
        raise
    return LogProof(index, tuple(hashes), signed, extra), entry


def check_proof(proof: LogProof, entry: bytes, origin: str, keys: Sequence[NoteKey]) -> Checkpoint:
    """Refuse a proof that does not show `entry` in the log `origin`; return the checkpoint that it does it under.

    Raises:
        SignerError: the checkpoint is not signed by one of the keys, or is that of another log.
        ProofError: the hashes do not lead from the entry to its root.
    """
    checkpoint = note.open_checkpoint(proof.checkpoint, origin, keys)
    leaf = merkle.leaf_hash(entry)
    merkle.check_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return checkpoint
