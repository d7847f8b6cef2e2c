"""An append-only log in a folder: entries are added, then a signed checkpoint is published.

Owns the order of writes, going on after a crash, and the question whether one checkpoint extends another. Leaves
the bytes of files to `tiles`, and keeping a checkpoint outside of the folder to others.

- The checkpoint is the truth and is written last: what lies beyond it was never published and is written again.
- Full tiles and bundles are written as they fill, partial ones at `publish`. After the checkpoint is in place,
  what a log of its size does not have is removed: partial tiles of earlier checkpoints, and what a crash left.
  So the bytes of a log depend on its entries alone, however they were appended.
- Every tree of an earlier size can still be read: what its partial tiles held is in wider or full ones. (Who serves
  a log while it grows must keep them apart until the full ones are there, as tlog-tiles asks of those who serve.)
- A folder whose checkpoint was lost looks like one where none was published yet: who opens a log to append holds
  `Log.checkpoint` against the one that is kept outside of the folder.
- After a failed write a `Log` refuses further work: what was written is known again only once it is opened anew.
- One writer at a time: a checkpoint that somebody else replaced meanwhile is an error, not written over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from manifests import durable
from manifests.audit import merkle, note
from manifests.audit.note import Checkpoint, NoteKey
from manifests.audit.tiles import Edge, LogError, Tiles, check_log, paths_of, read_file
from manifests.signers import Signer, SignerError

CHECKPOINT = "checkpoint"
_OURS = re.compile(rf"\d{{1,3}}|{re.escape(durable.TEMPORARY_PREFIX)}.*", re.DOTALL)


def read_checkpoint(folder: Path, origin: str, keys: Sequence[NoteKey]) -> tuple[Checkpoint, bytes]:
    """Return the checkpoint of a log and the note that states it.

    Raises:
        LogError: it is missing, or not signed by one of the keys for this log; the message names the file.
    """
    path = folder / CHECKPOINT
    data = read_file(path, note.MAX_NOTE_BYTES)
    try:
        return note.open_checkpoint(data, origin, keys), data
    except SignerError as error:
        raise LogError(f"{path}: {error}") from None


class Log:
    """A log that is open for appending."""

    def __init__(self, folder: Path, origin: str, keys: Sequence[NoteKey]) -> None:
        self.folder = folder
        self.origin = origin
        self._keys = tuple(keys)
        self.checkpoint: Checkpoint | None = None
        self._note: bytes | None = None
        self._edge = Edge()
        self._usable = True

    @classmethod
    def open(cls, folder: Path, origin: str, keys: Sequence[NoteKey]) -> Log:
        """Open the log at its checkpoint; a folder without one is an empty log. Changes nothing.

        Raises:
            LogError: the checkpoint is not signed by one of the keys, or the log's edge is not what it states.
        """
        log = cls(folder, origin, keys)
        if (folder / CHECKPOINT).exists():
            log.checkpoint, log._note = read_checkpoint(folder, origin, keys)
            log._edge = Edge.read(Tiles(folder, log.checkpoint.size))
            if log._edge.tree.root() != log.checkpoint.root or not log._edge.agrees():
                check_log(folder, log.checkpoint.size, log.checkpoint.root)
        return log

    @property
    def size(self) -> int:
        """How many entries it has, with those that no checkpoint states yet."""
        return self._edge.tree.size

    def append(self, entries: Iterable[bytes]) -> range:
        """Add entries; return their indices. They count only once a checkpoint is published.

        Raises:
            LogError: an entry is too long, or an earlier write failed.
            OSError: a write failed.
        """
        begin = self.size
        with self._writing():
            for entry in entries:
                for name, data in self._edge.add(entry):
                    self._write(name, data)
        return range(begin, self.size)

    def publish(self, *by: Signer) -> bytes:
        """Publish a checkpoint over all entries, signed by each of `by`; return its note.

        A checkpoint of this size that these keys signed already stays as it is, with what others added to it.

        Raises:
            LogError: none of the keys of this log would verify it, somebody else replaced the checkpoint, or an
                earlier write failed.
            SignerError: it could not be signed.
            OSError: a write failed.
        """
        with self._writing():
            checkpoint = Checkpoint(self.origin, self.size, self._edge.tree.root())
            if self._note is None or checkpoint != self.checkpoint or not self._signed_by(by):
                signed = note.sign_note(checkpoint.text(), *by)
                try:
                    note.open_checkpoint(signed, self.origin, self._keys)
                except SignerError as error:
                    raise LogError(f"{self.folder}: a checkpoint was not published, being {error}") from None
                for name, data in self._edge.partial():
                    self._write(name, data)
                durable.make_folder(self.folder)
                durable.write(self.folder / CHECKPOINT, signed, replace=True)
                self.checkpoint, self._note = checkpoint, signed
            self._remove_others()
        return self._note

    def _signed_by(self, signers: Sequence[Signer]) -> bool:
        signed = note.open_note(self._note or b"", self._keys)[1]
        return {NoteKey.of(signer) for signer in signers} <= signed.keys()

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        durable.make_folder(path.parent)
        durable.write(path, data, replace=True)

    def _remove_others(self) -> None:
        """Remove, durably, what the checkpoint does not demand and a log may have left."""
        durable.sweep(self.folder, CHECKPOINT)
        demanded = {self.folder / name for name in paths_of(self.size)}
        changed = set()
        for path in sorted(self.folder.glob("tile/**/*")):
            if path not in demanded and _OURS.fullmatch(path.name) and path.is_file():
                path.unlink()
                changed.add(path.parent)
        for folder in changed:
            if folder.suffix == ".p" and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
            durable.sync_folder(folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self._usable:
            raise LogError(f"{self.folder}: an earlier write failed; open the log again")
        path = self.folder / CHECKPOINT
        if (read_file(path, note.MAX_NOTE_BYTES) if path.exists() else None) != self._note:
            raise LogError(f"{path}: replaced by another writer meanwhile; a log has one writer at a time")
        self._usable = False
        yield
        self._usable = True


def check_extends(folder: Path, old: Checkpoint, new: Checkpoint) -> list[bytes]:
    """Refuse a log that does not extend what an older checkpoint of it stated; return the consistency proof.

    `new` is the checkpoint of the log in `folder`; against an empty old log the proof is empty.

    Raises:
        LogError: it is another log, shorter, or its first entries are not those of `old`; or a tile is damaged.
    """
    path = folder / CHECKPOINT
    if old.origin != new.origin:
        raise LogError(f"{path}: of the log {new.origin!r}, the older checkpoint is of {old.origin!r}")
    if new.size < old.size:
        raise LogError(f"{path}: states {new.size} entries, the older one {old.size}: entries were taken away")
    try:
        if not old.size and old.root == merkle.EMPTY_ROOT:
            return []
        proof = merkle.prove_consistency(old.size, new.size, Tiles(folder, new.size).node)
        merkle.check_consistency(old.size, old.root, new.size, new.root, proof)
    except merkle.ProofError:
        check_log(folder, new.size, new.root)  # perhaps a tile is damaged, which it names
        raise LogError(f"{path}: rewritten: its first {old.size} entries are not those of the older one") from None
    return proof
