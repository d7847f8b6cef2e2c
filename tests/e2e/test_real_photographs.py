"""Real photographs through img2dataset over loopback, then a run with a tower of ViT-B-32's size."""

from __future__ import annotations

import csv
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stand_ins
from in_process import call
from scrapes import ROOT, Scrape

FOLDERS = ("photos", "clip/images", "pdq/images")

pytestmark = pytest.mark.shared_data


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def files(shared_data: Path) -> list[str]:
    return sorted(
        path.relative_to(shared_data).as_posix()
        for folder in FOLDERS
        for path in (shared_data / folder).iterdir()
        if path.is_file()
    )


@pytest.fixture(scope="module")
def scrape(shared_data: Path, files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    root = tmp_path_factory.mktemp("photographs")
    sha256 = stand_ins.write_stand_in_clip(root / "model", seed=7, size="vit-b-32")
    made = Scrape.make(
        root,
        embedder={"name": "vit-b-32-stand-in@1", "folder": "model", "sha256": sha256, "batch": 16},
        unsafe_stand_in_models=True,
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shared_data)))
    Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/{name}" for name in files]
    pq.write_table(pa.table({"url": urls, "caption": files}), root / "urls.parquet")
    try:
        with (root / "download.log").open("wb") as log:
            subprocess.run(
                [sys.executable, ROOT / "examples/demo/scrape.py", root / "urls.parquet", made.shards, "25"],
                stdout=log, stderr=log, check=True, timeout=240,
            )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_every_photograph_is_accounted_for(scrape: Scrape, files: list[str]) -> None:
    decisions = scrape.decisions()
    assert len(decisions) == len(files)
    assert call("verify", scrape.collection).code == 0


def test_only_the_truncated_photograph_is_quarantined(scrape: Scrape) -> None:
    captions = {(row["shard"], row["key"]): row["caption"] for row in features(scrape)}
    quarantined = {
        captions[row["shard"], row["key"]]: row["reason"]
        for row in scrape.decisions()
        if row["action"] == "QUARANTINE"
    }
    assert quarantined == {"photos/truncated.jpg": "fault:truncated"}


def test_hash_and_quality_equal_the_reference_on_25_of_25(scrape: Scrape, shared_data: Path) -> None:
    found = {row["caption"]: row for row in features(scrape)}
    with (shared_data / "pdq" / "expected_fullres.csv").open() as file:
        expected = list(csv.DictReader(file))
    assert len(expected) == 25
    for row in expected:
        mine = found[f"pdq/images/{row['file']}"]
        codes = mine["pdq:fullres.oriented"]
        assert [codes[start : start + 32].hex() for start in range(0, 256, 32)] == [
            row[f"dih{n}"] for n in range(8)
        ]
        assert codes[:32].hex() == row["pdq"]
        assert mine["pdq:fullres.oriented.quality"] == int(row["quality"])


def test_every_judged_photograph_has_an_embedding(scrape: Scrape) -> None:
    without = {row["caption"] for row in features(scrape) if row["embedding"] is None}
    assert without == {"photos/truncated.jpg"}


def features(scrape: Scrape) -> list[dict[str, object]]:
    paths = sorted((scrape.collection / "examined").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]
