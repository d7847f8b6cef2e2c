"""Scrapes to kill, the killing, and what must not be left afterwards."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scrapes import ROOT, Scrape, jpeg, outputs, write_list, write_tar

from manifests.verify import verify
from pipeline.config import DecodeConfig

PHASES = ("start", "examine", "settle", "close")
GIVE_UP_S = 60.0


def make_scrape(root: Path, *, shards: int, samples: int, **settings: object) -> Scrape:
    """A scrape with all that a kill could spoil: in each shard a listed image, one cut short, and good ones.

    The cap on bytes is a number of this scrape alone, by which its decoders are known (`processes_of`).
    """
    max_bytes = DecodeConfig().max_bytes + secrets.randbelow(1 << 24)
    scrape = Scrape.make(root, decode={"max_bytes": max_bytes}, **settings)
    listed = []
    for shard in range(shards):
        images = [jpeg(1000 * shard + number) for number in range(samples)]
        listed.append(images[1])
        images[2] = images[2][:900]
        members = [(f"{shard:03d}{number:05d}.jpg", image) for number, image in enumerate(images)]
        captions = [(f"{shard:03d}{number:05d}.txt", b"drawn shapes") for number in range(samples)]
        write_tar(scrape.shards / f"{shard:05d}.tar", [*members, *captions])
    write_known(scrape, listed)
    for name in ("cwd", "tmp"):
        (root / name).mkdir()
    return scrape


def write_known(scrape: Scrape, listed: list[bytes]) -> None:
    """Write the list: the MD5 of each image, and a code that matches nothing."""
    entries = [("md5", hashlib.md5(image).digest()) for image in listed]
    write_list(scrape.root / "lists" / "known.csv", [*entries, ("pdq", hashlib.sha256(b"nothing").digest())])


def copy_folder(source: Path | None, target: Path) -> None:
    """Make `target` a copy of `source`, or nothing at all."""
    shutil.rmtree(target, ignore_errors=True)
    if source is not None:
        shutil.copytree(source, target)


def problems(scrape: Scrape, truth: dict[str, str]) -> list[str]:
    """What is wrong with a collection that should be an undisturbed run's; empty where nothing is."""
    found = outputs(scrape.collection, scrape.identity)
    wrong = [f"{name}: differs" for name in sorted({name for name, _ in set(found.items()) ^ set(truth.items())})]
    wrong += [f"{path}: left behind" for path in scrape.collection.rglob(".tmp-*")]
    return wrong + verify(scrape.collection).problems


def phase_of(collection: Path, shards: int) -> str:
    """How far the first run of a collection has come, by what lies on the disk."""
    if (collection / "current").exists():
        return "done"
    decided = len(list((collection / "settled" / "0001" / "decisions").glob("*.json")))
    if decided:
        return "close" if decided == shards else "settle"
    return "examine" if any((collection / "examined").glob("*.json")) else "start"


def start_run(scrape: Scrape) -> subprocess.Popen[bytes]:
    """Start `shardscrub run --workers 2` as the leader of a process group of its own."""
    with (scrape.root / "text").open("wb") as text:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", str(scrape.config), "--workers", "2"],
            cwd=scrape.root / "cwd",
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scrape.root / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=text,
            start_new_session=True,
        )


def finish_run(scrape: Scrape) -> dict[str, float]:
    """Run to the end and return how many seconds each phase took."""
    shards = len(list(scrape.shards.glob("*.tar")))
    seconds, before = dict.fromkeys((*PHASES, "done"), 0.0), time.monotonic()
    with start_run(scrape) as process:
        while process.poll() is None:
            time.sleep(0.001)
            now = time.monotonic()
            seconds[phase_of(scrape.collection, shards)] += now - before
            before = now
    assert process.returncode == 0, (scrape.root / "text").read_text()
    return seconds


@dataclass(frozen=True, slots=True)
class Killer:
    """Kills runs of one scrape at random moments. seconds: how long each phase of an undisturbed run takes."""

    scrape: Scrape
    seconds: dict[str, float]
    random: Random

    def kill(self, aim: str | None = None) -> str:
        """Start a run, kill its process group, and return the phase that lay on the disk then.

        aim: a moment within this phase of a collection's first run; None: any moment of a whole run.
        """
        shards = len(list(self.scrape.shards.glob("*.tar")))
        with start_run(self.scrape) as process:
            reached = aim is None or aim == "start"
            while not reached and process.poll() is None:
                reached = phase_of(self.scrape.collection, shards) in (aim, "done")
                time.sleep(0 if aim == "close" else 0.001)
            length_s = sum(self.seconds.values()) if aim is None else self.seconds[aim]
            time.sleep(self.random.uniform(0, length_s))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: not processes_of(self.scrape), "processes outlived the run")
        return phase_of(self.scrape.collection, shards)


def processes_of(scrape: Scrape) -> list[str]:
    """Command lines of all live processes of a scrape's runs: they name its folder, or its cap on bytes."""
    marks = (str(scrape.config).encode(), f'"max_bytes": {_cap(scrape)},'.encode())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(mark in command for mark in marks):
                found.append(command.replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


def _cap(scrape: Scrape) -> object:
    decode = scrape.settings["decode"]
    assert isinstance(decode, dict)
    return decode["max_bytes"]


def wait_until(is_true: Callable[[], bool], otherwise: str) -> None:
    """Wait for what the kernel does soon, but not at once."""
    for _ in range(int(GIVE_UP_S / 0.01)):
        if is_true():
            return
        time.sleep(0.01)
    raise AssertionError(otherwise)
