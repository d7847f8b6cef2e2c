"""Kill a whole run at any moment, run it again: as if nothing had happened."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from crash_runs import (
    PHASES,
    Killer,
    copy_folder,
    finish_run,
    make_scrape,
    problems,
    processes_of,
    start_run,
    wait_until,
)
from scrapes import Scrape, outputs

pytestmark = pytest.mark.crash


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A scrape, and what its undisturbed run took and left."""

    scrape: Scrape
    seconds: dict[str, float]
    outputs: dict[str, str]
    shared_memory: set[str]


def run_undisturbed(scrape: Scrape) -> Undisturbed:
    shared_memory = set(os.listdir("/dev/shm"))
    seconds = finish_run(scrape)
    truth = outputs(scrape.collection, scrape.identity)
    assert problems(scrape, truth) == []
    assert any(scrape.sealed())
    assert {row["reason"] for row in scrape.decisions()} >= {"fault:truncated", None}
    assert any((scrape.collection / "releases" / "0001" / "shards").glob("*.tar"))
    return Undisturbed(scrape, seconds, truth, shared_memory)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return run_undisturbed(make_scrape(tmp_path_factory.mktemp("kill"), shards=8, samples=12))


def kill_and_finish(truth: Undisturbed, number: int) -> list[str]:
    """One round: the first kill aims at each phase in turn, others come at any moment; then a run to the end."""
    scrape, random = truth.scrape, Random(number)
    copy_folder(None, scrape.collection)
    killer = Killer(scrape, truth.seconds, random)
    hit = [killer.kill(PHASES[-1 - number % len(PHASES)])]
    hit += [killer.kill() for _ in range(random.randrange(3))]
    finish_run(scrape)
    assert problems(scrape, truth.outputs) == [], f"round {number}, killed in {hit}"
    left = [path for name in ("cwd", "tmp") for path in (scrape.root / name).rglob("*")]
    # torch makes one folder, empty, for a compiler that is not used here.
    assert [path for path in left if not path.name.startswith("torchinductor_")] == []
    wait_until(lambda: set(os.listdir("/dev/shm")) <= truth.shared_memory, "a run left shared memory")
    return hit


def test_runs_killed_at_random_moments_end_as_an_undisturbed_one(
    undisturbed: Undisturbed, crash_rounds: int
) -> None:
    hit = [phase for number in range(crash_rounds) for phase in kill_and_finish(undisturbed, number)]
    assert crash_rounds < 20 or set(PHASES) <= set(hit), hit


@pytest.mark.parametrize("share_model", [False, True])
def test_runs_with_models_killed_at_random_moments_end_as_an_undisturbed_one(
    tmp_path: Path, crash_rounds: int, share_model: bool
) -> None:
    if crash_rounds < 10:
        pytest.skip("one round in ten carries models, whose loading takes most of its time: make crash")
    from modelled import add_models  # noqa: PLC0415 - loads torch

    scrape = make_scrape(tmp_path, shards=8, samples=12, run={"share_model": share_model})
    add_models(scrape)
    truth = run_undisturbed(scrape)
    for number in range(crash_rounds // 10):
        kill_and_finish(truth, number + 1)


def test_killing_the_group_ends_busy_workers_and_their_decoders(undisturbed: Undisturbed) -> None:
    scrape = undisturbed.scrape
    copy_folder(None, scrape.collection)

    def both_decode() -> bool:
        found = processes_of(scrape)
        return [sum(name in text for text in found) for name in ("pipeline.worker", "decode_worker")] == [2, 2]

    with start_run(scrape) as process:
        wait_until(both_decode, "two workers with a decoder each were not seen")
        os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: not processes_of(scrape), "processes outlived the run")
