"""What became of one sample of a real run, shown to somebody who has the proof and the key of the log alone."""

from __future__ import annotations

import shutil

from in_process import call, message
from scrapes import Scrape, write_plain_shards


def test_every_sample_of_a_run_is_proved_and_checked_away_from_it(tmp_path):
    scrape = Scrape.make(tmp_path / "run")
    write_plain_shards(scrape.shards, 2, 3)
    made = call("keys", "new", scrape.root / "outside" / "key", "--origin", "example.org/scrub")
    log = {"origin": "example.org/scrub", "key": "outside/key", "checkpoint_store": "outside/checkpoint"}
    scrape.settings["log"] = log
    scrape.write()
    assert call("run", scrape.config, "--workers", 1).code == 0
    rows = scrape.decisions(1)
    for row in rows:
        out = tmp_path / f"{row['shard']}.{row['index']}"
        hidden = ["--outcome"] if not row["withheld"] else []
        done = call("prove", scrape.collection, f"{row['shard']}/{row['key']}", "--out", out, *hidden)
        assert done.code == 0, done.err
    assert call("verify", scrape.collection).code == 0
    shutil.rmtree(scrape.root)
    for row in rows:
        out = tmp_path / f"{row['shard']}.{row['index']}"
        done = call("check-proof", out, "--public-key", made.out.strip())
        assert done.code == 0, message(done)
        kept = row["action"] == "KEEP"
        assert f"{row['key']}, the one with index {row['index']} of shard {row['shard']}" in done.out
        assert ("not kept" in done.out) != kept
        assert row["withheld"] or f"action {row['action']}" in done.out
