"""A settle with a log, killed before any of its changes of the disk: the next run leaves a log that verifies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from crash_points import stopper
from crash_runs import copy_folder, make_scrape
from in_process import call

from manifests.audit.entries import decode_entry
from manifests.audit.tiles import Tiles

pytestmark = pytest.mark.crash


def test_a_settle_with_a_log_goes_on_from_any_point(tmp_path: Path, crash_rounds: int) -> None:
    scrape = make_scrape(tmp_path / "scrape", shards=2, samples=4)
    outside = scrape.root / "outside"
    with stopper(tmp_path / "notes") as stops:
        vkey = call("keys", "new", outside / "key", "--origin", "example.org/log").out.split()[-1]
        done = stops.run("examine", scrape.config, "--workers", 1)
        assert done.code == 0, done.text
        about = {"origin": "example.org/log", "key": "outside/key", "checkpoint_store": "outside/checkpoint"}
        scrape.settings["log"] = about
        scrape.write()
        copy_folder(scrape.collection, tmp_path / "examined")
        copy_folder(outside, tmp_path / "outside")
        command = ("settle", scrape.config, "--workers", 1)
        undisturbed = stops.run(*command)
        assert undisturbed.code == 0, undisturbed.text
        told = said(scrape.collection)
        for point in range(undisturbed.changes, 0, -max(1, 30 // crash_rounds)):
            copy_folder(tmp_path / "examined", scrape.collection)
            shutil.rmtree(outside)
            copy_folder(tmp_path / "outside", outside)
            assert stops.run(*command, at=point).code == -9
            again = stops.run(*command)
            assert again.code == 0, (point, again.text)
            checked = call("verify", scrape.collection, "--public-key", vkey, "--since", outside / "checkpoint")
            assert checked.code == 0, (point, checked.err)
            assert [one["kind"] for one in said(scrape.collection)] == [one["kind"] for one in told], point
            assert (outside / "checkpoint").read_bytes() == (scrape.collection / "log" / "checkpoint").read_bytes()


def said(collection: Path) -> list[dict[str, object]]:
    size = int((collection / "log" / "checkpoint").read_text().splitlines()[1])
    return [decode_entry(data, number) for number, data in enumerate(Tiles(collection / "log", size).all_entries())]
