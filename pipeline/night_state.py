"""What one night leaves for the next: a folder beside the collection, its lock, and notes of what was done.

    <collection>.nightly/lock        taken by a night at work; the kernel frees it when that dies
    <collection>.nightly/notes.json  see `Notes`
    <collection>.nightly/screened/   the screened tables, a folder each
    <collection>.nightly/reports/    the reports of each settle, restricted

- Notes only save work: without them a night looks at everything again and comes to the same end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.records import canonical_json
from pipeline.errors import BusyError, RunError
from pipeline.ingest.input_files import digest_of, state_of


@dataclass(slots=True)
class Notes:
    """What was done before.

    digests: of files that were read whole, by path: size, mtime in ns, SHA-256. imported: digests of deliveries by
    list, so that what was removed from the store on purpose does not come back. done: the newest settle that was
    verified and so on, by stage. succeeded_at: Unix time at which the last night without an error ended.
    """

    digests: dict[str, list[object]] = field(default_factory=dict)
    imported: dict[str, list[str]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    succeeded_at: float | None = None


@dataclass(slots=True)
class NightState:
    """The folder of a night at work."""

    folder: Path
    notes: Notes

    def keep(self) -> None:
        """Write the notes down."""
        data = canonical_json(asdict(self.notes))
        durable.write(self.folder / "notes.json", data, replace=True, mode=RESTRICTED_FILE_MODE)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file, read only where its size or mtime is not what was noted."""
        state, noted = state_of(path) or [], self.notes.digests.get(str(path), [])
        if noted[:-1] != state:
            noted = self.notes.digests[str(path)] = [*state, digest_of(path)]
        return str(noted[-1])


@contextmanager
def open_state(collection: Collection) -> Iterator[NightState]:
    """Hold the lock of the nights of a collection, and read what they left.

    Raises:
        BusyError: another night is at work.
        RunError: the notes are damaged.
    """
    folder = collection.root.with_name(f"{collection.root.name}.nightly")
    durable.make_folder(folder.parent)
    durable.make_folder(folder, mode=RESTRICTED_FOLDER_MODE)
    with (folder / "lock").open("ab") as file:
        os.fchmod(file.fileno(), RESTRICTED_FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{collection.root}: another night is at work here; let it end") from None
        durable.sweep(folder)
        path, notes = folder / "notes.json", Notes()
        if path.exists():
            try:
                notes = Notes(**json.loads(path.read_bytes()))
            except (ValueError, TypeError):
                raise RunError(f"{path}: damaged; delete it, and the next night looks at all again") from None
        yield NightState(folder, notes)
