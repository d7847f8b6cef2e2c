"""Trying samples again: what was bad luck is settled, and no other row is touched."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
from in_process import call, files
from scrapes import Scrape, draw, encode, jpeg, write_tar

from manifests.commits import Close, ExamineCommit
from pipeline.decode import DecodeLimits, Decoder
from pipeline.examine import examine_shard
from pipeline.examiners import make_examiner
from pipeline.executors.protocol import WorkerOptions
from pipeline.setup import begin, load_setup


def picture(seed: int) -> bytes:
    return encode(draw(seed, size=(64, 48)), "JPEG", quality=80)


# A decoder that never comes back from pictures with this comment in them: a slow disk, a stopped machine.
SLOW = b"a slow picture"
SLOW_WORKER = f"""
import time
from pipeline import decode_worker
from pipeline.image_pixels import decode_image
def decode(data, limits, room):
    if {SLOW!r} in data:
        time.sleep(3600)
    return decode_image(data, limits, room)
decode_worker.main(decode)
"""


def test_a_retry_settles_what_was_bad_luck_and_touches_no_other_row(tmp_path):
    scrape = Scrape.make(tmp_path / "scrape")
    members = [(f"{number:03d}.jpg", picture(number)) for number in range(6)]
    members[2] = ("002.jpg", jpeg(2, comment=SLOW))
    members[4] = ("004.jpg", members[4][1][:-300])
    write_tar(scrape.shards / "a.tar", members)
    worker = tmp_path / "worker.py"
    worker.write_text(SLOW_WORKER)
    setup = load_setup(WorkerOptions(scrape.config))
    begin(setup)
    command = (sys.executable, "-P", "-S", str(worker))
    with (
        make_examiner(setup, lambda _: None) as examiner,
        Decoder(replace(DecodeLimits(), wall_s=0.3), worker_command=command) as decoder,
    ):
        examine_shard(setup.sources[0], replace(examiner, decoder=decoder), settle=1)
    assert call("settle", scrape.config, "--workers", 1).code == 0
    reasons = [row["reason"] for row in scrape.decisions(1)]
    assert reasons == [None, None, "fault:wall_limit", None, "fault:truncated", None]
    path = scrape.collection / "examined"
    before = pq.read_table(path / "a.parquet")

    done = call("retry", scrape.collection, "--reasons", "wall_limit", "--workers", 1)
    assert (done.code, "examined 1 samples again" in done.out) == (0, True)
    assert [row["reason"] for row in scrape.decisions(2)] == [None, None, None, None, "fault:truncated", None]
    assert (scrape.collection / "current").read_text() == "0002\n"
    commit = ExamineCommit.read(path / "a.json")
    assert [(item.why, item.settle) for item in commit.rewrites] == [("retry", 2)]
    after = pq.read_table(path / commit.features.name)
    others = np.array([0, 1, 3, 4, 5])
    assert after.take(others).equals(before.take(others))
    assert sorted(item.name for item in path.iterdir()) == ["a.json", "a.keyed", commit.features.name]
    assert call("verify", scrape.collection).code == 0

    stays = call("retry", scrape.collection, "--reasons", "truncated,wall_limit", "--workers", 1)
    assert (stays.code, "examined 1 samples again" in stays.out) == (0, True)
    assert [row["reason"] for row in scrape.decisions(3)] == [None, None, None, None, "fault:truncated", None]
    nothing = call("retry", scrape.collection, "--reasons", "decoder_crash", "--workers", 1)
    assert "examined 0 samples again" in nothing.out
    assert "nothing to do: settle 0003 stands" in nothing.out
    assert call("verify", scrape.collection).code == 0


def test_a_retry_refuses_a_shard_that_has_changed(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_tar(scrape.shards / "a.tar", [("0.jpg", picture(0)), ("1.jpg", picture(1)[:-200])])
    assert call("run", scrape.config, "--workers", 1).code == 0
    write_tar(scrape.shards / "a.tar", [("0.jpg", picture(5)), ("1.jpg", picture(1))])
    before = files(scrape.collection, but="journal")
    refused = call("retry", scrape.collection, "--reasons", "truncated", "--workers", 1)
    assert refused.code == 4
    assert "is not what was examined; restore it" in refused.err
    assert files(scrape.collection, but="journal") == before
    assert Close.read(scrape.collection / "settled/0001/close.json").counts.quarantine == 1
