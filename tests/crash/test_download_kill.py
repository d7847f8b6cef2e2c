"""A download that is killed: what was staged stays, what was half fetched is fetched again, nothing is doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call
from picture_server import PictureServer
from scrapes import ROOT, Scrape

pytestmark = pytest.mark.crash
SHARD = 12


def wait_for(condition, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found += [int(path.parent.name), *children_of(int(path.parent.name))]
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_download_goes_on_and_fetches_no_staged_shard_again(tmp_path):
    with PictureServer() as server:
        kinds = ["ok"] * (2 * SHARD) + ["hang"] + ["ok"] * (SHARD - 1)
        urls = [server.url(f"/{kind}/{n}") for n, kind in enumerate(kinds)]
        pq.write_table(pa.table({"url": urls}), tmp_path / "urls.parquet")
        caps = {"allow_hosts": [server.place], "rows_per_shard": SHARD, "host_rate": 100000, "host_connections": 64}
        scrape = Scrape.make(tmp_path, download={**caps, "retry_after_s": 0})
        command = ("download", tmp_path / "urls.parquet", "--config", scrape.config, "--to", tmp_path / "staged")
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *map(str, command)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as first:
            wait_for(lambda: len(list((tmp_path / "staged" / "commits").glob("*.json"))) == 2)
            wait_for(lambda: set(server.counts()) == {url.removeprefix(server.url("")) for url in urls})
            others = children_of(first.pid)
            assert others
            first.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(map(is_running, others)))
        server.calm = True
        staged = {path.name: path.read_bytes() for path in (tmp_path / "staged" / "shards").iterdir()}
        done = call(*command)
        assert done.code == 0, done.err
        rows = pq.read_table(tmp_path / "staged" / "rows.parquet").to_pylist()
        assert [row["state"] for row in rows] == ["downloaded"] * len(urls)
        assert len({(row["shard"], row["key"]) for row in rows}) == len(urls)
        counts = server.counts()
        assert {counts[f"/ok/{n}"] for n in range(2 * SHARD)} == {1}
        assert {counts[f"/ok/{n}"] for n in range(2 * SHARD + 1, 3 * SHARD)} == {2}
        for name, data in staged.items():
            assert (tmp_path / "staged" / "shards" / name).read_bytes() == data
        assert not (tmp_path / "staged" / "work").exists()
