"""One process holds the model for several workers: the same bytes as with nothing side by side, and it may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crash_runs import copy_folder, make_scrape, problems, processes_of, wait_until
from in_process import call
from modelled import add_models
from scrapes import ROOT, Scrape, outputs

SHARDS, SAMPLES = 3, 13  # three batches of 5 a shard, the last one short
Reference = tuple[Scrape, dict[str, str]]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A scrape with an embedder and heads, examined with nothing side by side."""
    scrape = make_scrape(tmp_path_factory.mktemp("overlap") / "scrape", shards=SHARDS, samples=SAMPLES)
    add_models(scrape)
    done = call("run", scrape.config, "--serial")
    assert done.code == 0, done.err
    return scrape, outputs(scrape.collection, scrape.identity)


@pytest.fixture
def shared(serial: Reference, tmp_path: Path) -> Scrape:
    """The same scrape elsewhere, unexamined, whose workers share the model."""
    copy_folder(serial[0].root, tmp_path / "copy")
    scrape = Scrape(tmp_path / "copy", serial[0].identity, dict(serial[0].settings))
    copy_folder(None, scrape.collection)
    scrape.settings["run"] = {"share_model": True, "price_per_hour": 3.6}
    scrape.write()
    return scrape


def device_processes(scrape: Scrape) -> list[int]:
    """The processes of devices that are at work for a scrape."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"pipeline.device_process" in command and str(scrape.config).encode() in command:
                found.append(int(entry.name))
    return found


def test_a_model_that_cannot_be_loaded_is_named_and_nothing_is_committed(shared: Scrape) -> None:
    assert isinstance(shared.settings["embedder"], dict)
    weights = shared.root / "model" / "open_clip_model.safetensors"
    before = weights.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", str(shared.config), "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: bool(device_processes(shared)), "the process of the device")
        weights.write_bytes(before[:-1])
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 2
    assert b"expected the digest" in said or b"pin" in said, said
    assert not list((shared.collection / "examined").glob("*.json"))


def test_workers_share_a_model_and_where_its_process_was_killed_the_next_run_goes_on(
    serial: Reference, shared: Scrape
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", str(shared.config), "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: bool(device_processes(shared)), "the process of the device")
        os.kill(device_processes(shared)[0], signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "the process that holds the model ended" in said
    assert processes_of(shared) == []
    before = set((shared.collection / "journal").iterdir())
    done = call("run", shared.config, "--workers", 2, "--profile")
    assert done.code == 0, done.err
    assert problems(shared, serial[1]) == []
    assert "devices   1, at work" in done.err
    assert "for a million images at 3.60 an hour" in done.err
    assert device_processes(shared) == []
    (note,) = set((shared.collection / "journal").glob("*-examine-*.json")) - before
    profile = json.loads(note.read_text())["profile"]
    assert profile["samples"] == SHARDS * SAMPLES
    assert profile["images"] == SHARDS * (SAMPLES - 1)  # one of each shard is cut short
    assert 0 < profile["device_s"] < profile["wall_s"]
    assert profile["seconds"]["decode"] > 0


def test_a_serial_run_says_its_pace(shared: Scrape) -> None:
    done = call("examine", shared.config, "--serial", "--profile")
    assert done.code == 0, done.err
    assert "images/s with 1 workers" in done.err
    assert "slowest   " in done.err
