"""A disk that is full, and one that cannot keep what it was given: a clear end, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crash_points import Stopped, Stopper, stopper
from crash_runs import copy_folder, make_scrape, problems
from scrapes import Scrape, outputs

from manifests import schema
from manifests.collection import Collection
from manifests.commits import ExamineCommit

LARGE = "64m"


@dataclass(frozen=True, slots=True)
class Tiny:
    """Two shards of four samples, what an undisturbed run leaves, and the warm process."""

    scrape: Scrape
    truth: dict[str, str]
    stopper: Stopper

    def run(self, *, workers: int = 1, **options: Any) -> Stopped:
        return self.stopper.run("run", self.scrape.config, "--workers", workers, **options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    root = tmp_path_factory.mktemp("full")
    scrape = make_scrape(root / "scrape", shards=2, samples=4)
    with stopper(root / "notes") as stops:
        done = stops.run("run", scrape.config, "--workers", 1)
        assert done.code == 0, done.text
        yield Tiny(scrape, outputs(scrape.collection, scrape.identity), stops)


def mount(folder: Path, *options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], check=True, capture_output=True
    )


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    copy_folder(None, folder)
    folder.mkdir()
    try:
        mount(folder, f"size={size}")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def needed(tiny: Tiny) -> int:
    """Bytes of disk that an undisturbed run takes."""
    with small_disk(tiny.scrape.collection, LARGE):
        done = tiny.run()
        assert done.code == 0, done.text
        disk = os.statvfs(tiny.scrape.collection)
        return (disk.f_blocks - disk.f_bfree) * disk.f_bsize


def check_end(scrape: Scrape, end: Stopped, message: str) -> None:
    """It failed, said why and where, left no temporary, and every commit names whole files."""
    assert end.code == 1, end.text
    error = end.text[end.text.index("error: ") :]
    assert message in error
    assert "Traceback" not in error
    assert list(scrape.collection.rglob(".tmp-*")) == []
    # A settle may be closed by then: it counts once `current` names it, after reports and statements.
    assert not (scrape.collection / "current").exists()
    collection = Collection(scrape.collection)
    for shard in collection.committed_shards():
        commit = ExamineCommit.read(collection.commit(shard))
        schema.read(collection.examined / commit.features.name, sha256=commit.features.sha256)


@pytest.mark.root
@pytest.mark.parametrize(
    ("share", "workers"),
    [(0.05, 1), (0.2, 1), (0.3, 1), (0.3, 2), (0.45, 1), (0.62, 1), (0.7, 1), (0.85, 1), (0.85, 2), (0.93, 1)],
)
def test_a_full_disk_ends_the_run_and_a_larger_one_finishes_it(
    tiny: Tiny, needed: int, share: float, workers: int
) -> None:
    scrape = tiny.scrape
    with small_disk(scrape.collection, str(int(needed * share) // 4096 * 4096)):
        end = tiny.run(workers=workers)
        check_end(scrape, end, "No space left on device: ")
        assert str(scrape.collection) in end.text[end.text.index("No space left") :]
        mount(scrape.collection, "remount", f"size={LARGE}")
        again = tiny.run()
        assert again.code == 0, again.text
        assert problems(scrape, tiny.truth) == []


@pytest.fixture(scope="module")
def fsyncs(tiny: Tiny) -> int:
    """Calls of fsync of an undisturbed run."""
    copy_folder(None, tiny.scrape.collection)
    return tiny.run(only=["fsync"]).changes


@pytest.mark.parametrize("tenths", range(1, 10, 2))
def test_a_disk_that_reports_an_error_at_fsync_ends_the_run_and_the_next_one_finishes(
    tiny: Tiny, fsyncs: int, tenths: int
) -> None:
    scrape = tiny.scrape
    copy_folder(None, scrape.collection)
    end = tiny.run(only=["fsync"], at=fsyncs * tenths // 10, how="EIO")
    check_end(scrape, end, "Input/output error: ")
    again = tiny.run()
    assert again.code == 0, again.text
    assert problems(scrape, tiny.truth) == []
