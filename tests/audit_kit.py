"""Logs to test with, trees as RFC 6962 defines them, and disks that stop; as a program, it appends to a log."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from manifests import durable
from manifests.audit import note
from manifests.audit.log import CHECKPOINT, Log, read_checkpoint
from manifests.audit.note import Checkpoint, NoteKey
from manifests.audit.tiles import check_log
from manifests.records import FilesError
from manifests.signers import FileSigner

ORIGIN = "example.com/collection"
CHANGES = ("fsync", "link", "replace", "unlink", "mkdir", "rmdir")


def made_signer(name: str = ORIGIN, seed: int = 1) -> FileSigner:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return FileSigner(name, key.public_key().public_bytes_raw(), key)


SIGNER = made_signer()
KEYS = (NoteKey.of(SIGNER),)


def made_entries(begin: int, end: int) -> list[bytes]:
    """Entries of various lengths, none of them like another."""
    return [b"%d:" % number + b"x" * (number * 7 % 13) for number in range(begin, end)]


def write_log(folder: Path, *sizes: int, log_class: type[Log] = Log) -> Log:
    """Append and publish up to each size in turn."""
    log = log_class.open(folder, ORIGIN, KEYS)
    for size in sizes:
        log.append(made_entries(log.size, size))
        log.publish(SIGNER)
    return log


def check(folder: Path) -> Checkpoint:
    """All that a stranger can check in a log alone."""
    checkpoint, _ = read_checkpoint(folder, ORIGIN, KEYS)
    check_log(folder, checkpoint.size, checkpoint.root)
    return checkpoint


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def problems(folder: Path, notes: set[bytes | None], truth: dict[str, bytes], size: int) -> list[str]:
    """What is wrong with a log whose writer was stopped, before and after it goes on up to `size`."""
    try:
        found = (folder / CHECKPOINT).read_bytes() if (folder / CHECKPOINT).exists() else None
        if found not in notes:
            return ["the checkpoint is none that was published"]
        if found is not None:
            check(folder)
        write_log(folder, size)
    except FilesError as error:
        return [str(error)]
    return [] if files_of(folder) == truth else ["other bytes than without the stop"]


class CheckpointFirst(Log):
    """A mutant: publishes the checkpoint before what it demands."""

    def publish(self, *by):
        text = Checkpoint(self.origin, self.size, self._edge.tree.root()).text()
        durable.make_folder(self.folder)
        durable.write(self.folder / CHECKPOINT, note.sign_note(text, *by), replace=True)
        for name, data in self._edge.partial():
            self._write(name, data)


def root_of(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, over hashes of leaves, as it is written there."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = split_of(len(leaves))
    return hashlib.sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def split_of(count: int) -> int:
    split = 1
    while split * 2 < count:
        split *= 2
    return split


def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = split_of(len(leaves))
    if index < split:
        return [*path_of(index, leaves[:split]), root_of(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), root_of(leaves[:split])]


def subproof_of(size: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """PROOF and SUBPROOF of RFC 6962, section 2.1.2."""
    if size == len(leaves):
        return [] if whole else [root_of(leaves)]
    split = split_of(len(leaves))
    if size <= split:
        return [*subproof_of(size, leaves[:split], whole=whole), root_of(leaves[split:])]
    return [*subproof_of(size - split, leaves[split:], whole=False), root_of(leaves[:split])]


class Stop(BaseException):
    """The power is off."""


@contextmanager
def disk_that_stops(monkeypatch, at: int, how: str) -> Iterator[list[str]]:
    """Let the `at`-th change of the disk (from 1; 0: none) not happen: with all after it, or alone, as an error."""
    seen: list[str] = []

    def wrap(name):
        real = getattr(os, name)

        def wrapped(*arguments, **options):
            seen.append(name)
            if how == "stop" and 0 < at <= len(seen):
                raise Stop
            if len(seen) == at:
                raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))
            return real(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, wrap(name))
        yield seen


if __name__ == "__main__":
    write_log(Path(sys.argv[1]), int(sys.argv[2]), log_class=CheckpointFirst if "mutant" in sys.argv else Log)
