"""The same input gives the same bytes: for any number of workers, any order of shards, in parts or at once."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random

import pytest
from crash_runs import copy_folder, make_scrape, problems
from in_process import call
from scrapes import ROOT, Scrape, outputs, write_sidecar

SHARDS, SAMPLES = 5, 6
Reference = tuple[Scrape, dict[str, str]]


def shuffled(scrape: Scrape, seed: int) -> None:
    """Name the shards one by one in a random order, and give their files random times."""
    random = Random(seed)
    names = [path.name for path in sorted(scrape.shards.glob("*.tar"))]
    random.shuffle(names)
    scrape.settings["input"] = [{"shards": [f"shards/{name}" for name in names]}]
    scrape.write()
    for path in scrape.shards.iterdir():
        os.utime(path, (random.randrange(1 << 31), random.randrange(1 << 31)))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A scrape with list hits, cut images and a sidecar, and what one worker made of it."""
    scrape = make_scrape(tmp_path_factory.mktemp("same") / "scrape", shards=SHARDS, samples=SAMPLES)
    rows = [
        {"key": f"003{number:05d}", "status": "success", "caption": "a drawing"} for number in range(SAMPLES + 2)
    ]
    write_sidecar(scrape.shards / "00003.tar", rows)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    truth = outputs(scrape.collection, scrape.identity)
    assert problems(scrape, truth) == []
    assert len(scrape.sealed()) == SHARDS
    return scrape, truth


@pytest.fixture
def copy(reference: Reference, tmp_path: Path) -> Scrape:
    """The same scrape elsewhere, unexamined: same key, same configuration."""
    copy_folder(reference[0].root, tmp_path / "copy")
    scrape = Scrape(tmp_path / "copy", reference[0].identity, dict(reference[0].settings))
    copy_folder(None, scrape.collection)
    return scrape


def test_more_workers_and_any_order_of_shards_give_the_same_bytes(reference: Reference, copy: Scrape) -> None:
    shuffled(copy, 4)
    done = call("run", copy.config, "--workers", 4)
    assert done.code == 0, done.err
    assert problems(copy, reference[1]) == []


def test_three_parts_at_once_and_then_settle_give_the_same_bytes(reference: Reference, copy: Scrape) -> None:
    parts = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "examine", str(copy.config), "--part", part, "--workers", "1"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        for part in ("3/3", "1/3", "2/3")
    ]
    assert [part.wait(240) for part in parts] == [0, 0, 0]
    assert not (copy.collection / "releases").exists()
    done = call("settle", copy.config, "--workers", 2)
    assert done.code == 0, done.err
    assert problems(copy, reference[1]) == []


def test_parts_and_whole_runs_of_an_examined_collection_do_nothing(
    reference: Reference,
) -> None:
    scrape, truth = reference
    for command in (("examine", scrape.config, "--part", "2/3"), ("settle", scrape.config), ("run", scrape.config)):
        assert call(*command, "--workers", 1).code == 0
        assert outputs(scrape.collection, scrape.identity) == truth


def test_models_give_the_same_bytes_in_this_process_and_in_two_workers(tmp_path: Path) -> None:
    from modelled import add_models  # noqa: PLC0415 - loads torch

    scrape = make_scrape(tmp_path / "scrape", shards=3, samples=7)
    add_models(scrape)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    assert "unsafe_stand_in_models" in done.err
    truth = outputs(scrape.collection, scrape.identity)
    assert problems(scrape, truth) == []
    assert {row["reason"] for row in scrape.decisions()} >= {"rule:sexual", "fault:truncated"}
    copy_folder(None, scrape.collection)
    shuffled(scrape, 2)
    done = call("run", scrape.config, "--workers", 2)
    assert done.code == 0, done.err
    assert problems(scrape, truth) == []
