"""A night killed in each of its stages: the next one goes on, and the end is that of an undisturbed night."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from crash_points import Stopped, stopper
from crash_runs import copy_folder, make_scrape
from in_process import call
from scrapes import Scrape, jpeg, outputs, write_tar

from pipeline.nightly import STAGES

pytestmark = pytest.mark.crash

NIGHTLY = """
[nightly]
metrics = "metrics/night.prom"
tables = ["tables/*.csv"]
[[nightly.lists]]
id = "partner"
files = "inbox/*"
purpose = "csam"
effect = "case"
[log]
origin = "example.org/nights"
key = "outside/key"
checkpoint_store = "outside/checkpoint"
"""
KEPT = ("collection", "collection.nightly", "list-store", "outside", "metrics")  # what a night changes
# These cite the log, which holds times and signatures: `verify` holds them against each other.
CITING = {"evidence.json", "checkpoint", "openings.json", "report.html", "report.json", "shardscrub.intoto.jsonl"}


def arrive(scrape: Scrape, number: int) -> None:
    """A shard, a delivery that lists an image of the shard before, and a table."""
    images = [jpeg(1000 * number + one) for one in range(3)]
    members = [(f"{number}{one}.jpg", image) for one, image in enumerate(images)]
    write_tar(scrape.shards / f"{number:05d}.tar", members)
    listed = (jpeg(1000 * (number - 1)), b"nothing")
    lines = ["md5", *(hashlib.md5(data).hexdigest() for data in listed)]
    (scrape.root / "inbox" / f"{number}.csv").write_text("\n".join([*lines, ""]))
    (scrape.root / "tables" / f"{number}.csv").write_text(f"url,caption\nhttps://site.test/{number},a hill\n")


def left(scrape: Scrape) -> dict[str, object]:
    """What must be the same after any kill."""
    found: dict[str, object] = {
        name: digest
        for name, digest in outputs(scrape.collection, scrape.identity).items()
        if not name.startswith("log/") and Path(name).name not in CITING
    }
    for path in sorted((scrape.root / "collection.nightly" / "screened").rglob("*.parquet")):
        found[str(path.relative_to(scrape.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("list-store", "collection.nightly/reports"):
        found[name] = sorted(str(path.relative_to(scrape.root)) for path in (scrape.root / name).rglob("*"))
    text = (scrape.root / "metrics" / "night.prom").read_text()
    found["metrics"] = [line for line in text.splitlines() if "samples " in line or "exit_code" in line]
    return found


def points(undisturbed: Stopped, crash_rounds: int) -> dict[str, list[int]]:
    """Changes of the disk (from 1) in each stage: one from its middle for a few rounds, more for more."""
    stages: dict[str, list[int]] = {}
    for number, size in enumerate(undisturbed.printed, 1):
        said = undisturbed.text[:size].count('"stage"')
        stages.setdefault([*STAGES, "end"][said], []).append(number)
    few = max(1, crash_rounds // 3)
    return {
        name: sorted({found[len(found) * (2 * one + 1) // (2 * few)] for one in range(few)})
        for name, found in stages.items()
    }


def test_a_night_killed_in_any_stage_ends_as_an_undisturbed_one(tmp_path: Path, crash_rounds: int) -> None:
    scrape = make_scrape(tmp_path / "scrape", shards=1, samples=3, list=[{"id": "known"}, {"id": "partner"}])
    scrape.config.write_text(scrape.config.read_text() + NIGHTLY)
    for name in ("inbox", "tables"):
        (scrape.root / name).mkdir()
    vkey = call("keys", "new", scrape.root / "outside" / "key", "--origin", "example.org/nights").out.split()[-1]
    arrive(scrape, 1)
    with stopper(tmp_path / "notes") as stops:
        command = ("nightly", "--config", scrape.config, "--workers", 1)
        first = stops.run(*command)
        assert first.code == 0, first.text
        arrive(scrape, 2)
        for name in KEPT:
            copy_folder(scrape.root / name, tmp_path / "first" / name)
        undisturbed = stops.run(*command)
        assert undisturbed.code == 0, undisturbed.text
        truth, killed = left(scrape), points(undisturbed, crash_rounds)
        assert list(killed) == [*STAGES, "end"]
        for stage, numbers in killed.items():
            for point in numbers:
                for name in KEPT:
                    copy_folder(tmp_path / "first" / name, scrape.root / name)
                assert stops.run(*command, at=point).code == -9
                again = stops.run(*command)
                assert again.code == 0, (stage, point, again.text)
                assert left(scrape) == truth, (stage, point)
                assert not any(scrape.root.rglob(".tmp-*")), (stage, point)
        since = ("--public-key", vkey, "--since", scrape.root / "outside" / "checkpoint")
        checked = call("verify", scrape.collection, *since)
        assert checked.code == 0, checked.err
