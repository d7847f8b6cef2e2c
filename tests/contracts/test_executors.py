"""What every executor promises: each task comes out once, an error is an outcome, and the others go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from threading import Thread

import pytest
from crash_runs import wait_until
from in_process import call
from scrapes import STORE, Scrape, write_plain_shards

from pipeline.errors import ExitCode
from pipeline.executors.inline import InlineExecutor
from pipeline.executors.processes import ProcessesExecutor
from pipeline.executors.protocol import Executor, Outcome, Task, WorkerOptions
from pipeline.setup import begin, load_setup

SHARDS = 4
Maker = Callable[[Scrape], Executor]
MAKERS: dict[str, Maker] = {
    "inline": lambda scrape: InlineExecutor(WorkerOptions(scrape.config)),
    "processes-1": lambda scrape: processes(scrape, 1),
    "processes-3": lambda scrape: processes(scrape, 3),
}


def processes(scrape: Scrape, workers: int) -> ProcessesExecutor:
    return ProcessesExecutor(WorkerOptions(scrape.config), workers=workers, journal=scrape.collection / "journal")


@pytest.fixture
def scrape(tmp_path: Path) -> Scrape:
    scrape = Scrape.make(tmp_path)
    write_plain_shards(scrape.shards, SHARDS, 2)
    begin(load_setup(WorkerOptions(scrape.config)))
    return scrape


def examine(*shards: str) -> list[Task]:
    return [Task("examine", shard, 1) for shard in shards]


def ignore_rows(_: int) -> None:
    """Nobody watches the progress."""


def spoil(scrape: Scrape, shard: str) -> None:
    """Lay a folder where a shard's sealed file belongs."""
    (scrape.collection / "sealed" / f"{shard}.0001.age").mkdir()


def by_shard(outcomes: list[Outcome]) -> dict[str, Outcome]:
    assert len({item.shard for item in outcomes}) == len(outcomes), "a task came out twice"
    return {item.shard: item for item in outcomes}


def workers_of(scrape: Scrape) -> list[int]:
    """The workers of a scrape that this process started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"pipeline.worker" in command and str(scrape.config).encode() in command:
                found.append(int(child))
    return found


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS.keys())
def test_each_task_comes_out_once_and_a_failing_one_is_an_outcome(scrape: Scrape, maker: Maker) -> None:
    spoil(scrape, "00002")
    rows: list[int] = []
    tasks = examine("00000", "00001", "00002", "00003", "unknown")
    with contextlib.closing(maker(scrape)) as executor:
        found = by_shard(list(executor.run(tasks, rows.append)))
    assert set(found) == {task.shard for task in tasks}
    for shard in ("00000", "00001", "00003"):
        assert found[shard] == Outcome(shard, samples=2)
        assert (scrape.collection / "examined" / f"{shard}.json").is_file()
    for shard in ("00002", "unknown"):
        assert found[shard].error.startswith(f"shard {shard}: ")
        assert found[shard].exit_code == ExitCode.FAILED
    assert sum(rows) >= 6
    assert workers_of(scrape) == []


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS.keys())
def test_the_same_workers_take_up_more_tasks(scrape: Scrape, maker: Maker) -> None:
    with contextlib.closing(maker(scrape)) as executor:
        first = by_shard(list(executor.run(examine("00000", "00001"), ignore_rows)))
        before = set(workers_of(scrape))
        second = by_shard(list(executor.run(examine("00002", "00003"), ignore_rows)))
        assert before <= set(workers_of(scrape))
    assert {item.error for item in (*first.values(), *second.values())} == {""}
    assert workers_of(scrape) == []


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS.keys())
def test_no_task_is_no_outcome(scrape: Scrape, maker: Maker) -> None:
    with contextlib.closing(maker(scrape)) as executor:
        assert list(executor.run([], ignore_rows)) == []
    assert workers_of(scrape) == []


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS.keys())
def test_whoever_stops_listening_leaves_no_worker(scrape: Scrape, maker: Maker) -> None:
    with contextlib.closing(maker(scrape)) as executor:
        outcomes = executor.run(examine("00000", "00001", "00002"), ignore_rows)
        assert not next(outcomes).error
        assert isinstance(outcomes, Generator)
        outcomes.close()
    assert workers_of(scrape) == []


def test_a_worker_that_is_killed_costs_the_shard_that_it_held(scrape: Scrape) -> None:
    """A worker reads the list before its first shard; a pipe in the place of its manifest holds it there."""
    known = scrape.root / STORE / "known" / "0001" / "manifest.json"
    known.rename(known.with_suffix(".kept"))
    os.mkfifo(known)
    ends: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):  # nobody reads yet
            ends.append(os.open(known, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    def kill() -> None:
        wait_until(is_read, "no worker came to the list")
        (pid,) = workers_of(scrape)
        known.with_suffix(".kept").rename(known)
        os.kill(pid, signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    with contextlib.closing(processes(scrape, 1)) as executor:
        found = by_shard(list(executor.run(examine("00000", "00001", "00002"), ignore_rows)))
    killer.join()
    os.close(ends[0])
    assert found["00000"].error == "shard 00000: its worker died (signal 9); run again to go on from here"
    assert found["00000"].exit_code == ExitCode.FAILED
    assert found["00001"] == Outcome("00001", samples=2)
    assert found["00002"] == Outcome("00002", samples=2)


def test_workers_that_never_start_cost_one_outcome_a_task(scrape: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with contextlib.closing(processes(scrape, 2)) as executor:
        found = by_shard(list(executor.run(examine("00000", "00001", "00002"), ignore_rows)))
    assert set(found) == {"00000", "00001", "00002"}
    assert all("its worker died (exit code 1)" in item.error for item in found.values())
    assert {item.exit_code for item in found.values()} == {ExitCode.FAILED}


def test_a_command_whose_workers_fail_exits_1_with_their_messages_and_nothing_released(scrape: Scrape) -> None:
    spoil(scrape, "00002")
    done = call("run", scrape.config, "--workers", 2)
    assert done.code == ExitCode.FAILED
    assert "error: shard 00002: " in done.err
    assert "1 shards were not examined; run again to go on" in done.err
    assert not (scrape.collection / "releases").exists()
