"""A log whose writer is stopped anywhere: what it published stands, and going on gives the bytes of no stop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import audit_kit
import pytest
from audit_kit import KEYS, ORIGIN, SIGNER, CheckpointFirst, Stop, disk_that_stops, files_of, problems, write_log

from manifests.audit.log import CHECKPOINT, Log
from manifests.audit.tiles import LogError

SPANS = (
    (0, 300),
    (300, 600),
    (300, 300),
    (512, 513),
)  # entries before, and after, that a writer is stopped between
CALLS = ("openat", "mkdir", "write", "fchmod", "chmod", "fsync", "link", "linkat", "rename", "unlink", "rmdir")
HOWS = ("signal=KILL", "error=EIO", "error=ENOSPC")
LEAST = 60


@dataclass(frozen=True, slots=True)
class Span:
    """A log before its writer is stopped, and one that was not stopped."""

    before: Path
    after: Path
    size: int

    @classmethod
    def make(cls, root: Path, begin: int, end: int) -> Span:
        for name, sizes in (("before", (begin,) if begin else ()), ("after", (begin, end) if begin else (end,))):
            (root / name).mkdir(parents=True)
            write_log(root / name, *sizes)
        return cls(root / "before", root / "after", end)

    def copy(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.before, folder))

    def wrong(self, folder: Path) -> list[str]:
        """Look at what a stopped writer left in `folder`, then go on."""
        notes = {
            (one / CHECKPOINT).read_bytes() for one in (self.before, self.after) if (one / CHECKPOINT).exists()
        }
        first = set() if (self.before / CHECKPOINT).exists() else {None}
        return problems(folder, notes | first, files_of(self.after), self.size)


@pytest.fixture(scope="module")
def spans(tmp_path_factory):
    root = tmp_path_factory.mktemp("spans")
    return [Span.make(root / str(number), *span) for number, span in enumerate(SPANS)]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """A stopped process takes nothing from the system's memory: these tests need no disk, only the order."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def stop_everywhere(monkeypatch, span: Span, folder: Path, how: str, log_class=Log) -> dict[int, list[str]]:
    """Stop a writer at each of its changes of the disk in turn; what is wrong, by the number of the change."""
    span.copy(folder)
    with disk_that_stops(monkeypatch, 0, how) as seen:
        write_log(folder, span.size, log_class=log_class)
    wrong = {}
    for at in range(1, len(seen) + 1):
        span.copy(folder)
        with disk_that_stops(monkeypatch, at, how), pytest.raises((Stop, OSError)):
            write_log(folder, span.size, log_class=log_class)
        wrong[at] = span.wrong(folder)
    return wrong


@pytest.mark.parametrize("how", ["stop", "EIO"])
def test_a_writer_stopped_at_any_change_of_the_disk_goes_on(monkeypatch, tmp_path, spans, how):
    points = 0
    for span in spans:
        wrong = stop_everywhere(monkeypatch, span, tmp_path / "log", how)
        assert {at: texts for at, texts in wrong.items() if texts} == {}
        points += len(wrong)
    assert points >= LEAST


def test_a_writer_that_publishes_the_checkpoint_first_would_be_found(monkeypatch, tmp_path, spans):
    wrong = stop_everywhere(monkeypatch, spans[1], tmp_path / "log", "stop", CheckpointFirst)
    found = [text for texts in wrong.values() for text in texts if "cannot be read" in text]
    assert len(found) > len(wrong) / 4


def test_after_a_failed_write_a_log_does_nothing_until_it_is_opened_again(monkeypatch, tmp_path, spans):
    log = Log.open(spans[1].copy(tmp_path / "log"), ORIGIN, KEYS)
    with disk_that_stops(monkeypatch, 4, "EIO"), pytest.raises(OSError, match="Input/output"):
        log.append(audit_kit.made_entries(300, 600))
    for step in (lambda: log.append([]), lambda: log.publish(SIGNER)):
        with pytest.raises(LogError, match="open the log again"):
            step()


def command(folder: Path, span: Span, *more: str) -> list[str]:
    return [sys.executable, "-I", "-B", audit_kit.__file__, str(folder), str(span.size), *more]


def points_of(span: Span, folder: Path) -> list[tuple[str, int]]:
    """The system calls that touch the log: their names, and which of their name they are in the whole process."""
    span.copy(folder)
    notes = folder.with_suffix(".trace")
    trace = ["strace", "-f", "-qq", "-y", "-o", str(notes), "-e", f"trace={','.join(CALLS)}"]
    subprocess.run([*trace, *command(folder, span)], check=True)
    counts: dict[str, int] = {}
    found = []
    for line in notes.read_text().splitlines():
        call = line.split(maxsplit=1)[1].partition("(")[0]
        counts[call] = counts.get(call, 0) + 1
        if str(folder) in line:
            found.append((call, counts[call]))
    return found


def inject(span: Span, folder: Path, call: str, number: int, how: str, *more: str) -> int:
    span.copy(folder)
    options = ["-e", f"trace={call}", "-e", f"inject={call}:{how}:when={number}"]
    line = ["strace", "-f", "-qq", "-o", "/dev/null", *options, *command(folder, span, *more)]
    return subprocess.run(line, stderr=subprocess.DEVNULL).returncode


@pytest.mark.crash
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)")
def test_a_writer_stopped_at_system_calls_goes_on(tmp_path, spans, crash_rounds):
    folder = tmp_path / "log"
    points = [(span, *point, how) for span in spans[:2] for point in points_of(span, folder) for how in HOWS]
    assert len(points) >= 500
    step = max(1, 30 // crash_rounds)
    chosen = points if step == 1 else points[:: max(1, len(points) // (LEAST + 4))]
    assert len(chosen) >= LEAST
    wrong = {}
    for span, call, number, how in chosen:
        code = inject(span, folder, call, number, how)
        if texts := [*span.wrong(folder), *(["the writer did not fail"] if code == 0 else [])]:
            wrong[span.size, call, number, how] = texts
    assert wrong == {}


@pytest.mark.crash
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)")
def test_a_killed_writer_that_publishes_the_checkpoint_first_would_be_found(tmp_path, spans):
    span, folder = spans[1], tmp_path / "log"
    for number in range(1, 12):
        inject(span, folder, "linkat", number, "signal=KILL", "mutant")
        if span.wrong(folder):
            return
    pytest.fail("the mutant was not found")
