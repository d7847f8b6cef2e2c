"""Every sample has exactly one decision, whatever became of its bytes, its members or its shard."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from in_process import call, files
from scrapes import Scrape, draw, encode, write_sidecar, write_tar

from manifests.handover import open_kept

CUT, EMPTY, BARE = 10, 5, 5
SAMPLES = 300


def small_jpeg(seed: int) -> bytes:
    return encode(draw(seed, size=(64, 48)), "JPEG", quality=80)


def write_whole(path: Path) -> dict[str, str]:
    """Write 300 samples, 20 of them damaged, with a sidecar; returns the reason of every damaged one."""
    rng = random.Random(7)
    keys = [f"{number:09d}" for number in range(SAMPLES)]
    damaged = rng.sample(keys, CUT + EMPTY + BARE)
    reasons = {key: "fault:truncated" for key in damaged[:CUT]}
    reasons |= {key: "fault:empty" for key in damaged[CUT : CUT + EMPTY]}
    reasons |= {key: "fault:no_image" for key in damaged[CUT + EMPTY :]}
    members, rows = [], []
    for number, key in enumerate(keys):
        data = small_jpeg(number)
        if reasons.get(key) == "fault:truncated":
            data = data[: len(data) // 2]
        if reasons.get(key) == "fault:empty":
            data = b""
        if reasons.get(key) != "fault:no_image":
            members.append((f"{key}.jpg", data))
        members += [(f"{key}.json", json.dumps({"key": key}).encode()), (f"{key}.txt", b"a drawing")]
        url = f"http://example.invalid/{key}.jpg"
        rows.append(
            {"url": url, "caption": "a drawing", "key": key, "status": "success", "width": 64, "height": 48}
        )
    write_tar(path, members)
    failed = {"url": "http://example.invalid/gone", "caption": "", "key": "gone", "status": "failed_to_download"}
    write_sidecar(path, [*rows, failed])
    return reasons


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The damaged 300, run with a fault bound of 0.10."""
    bounds = {"max_fault_share_shard": 0.10, "max_fault_share_run": 0.10}
    scrape = Scrape.make(tmp_path_factory.mktemp("whole"), release=bounds)
    reasons = write_whole(scrape.shards / "00000.tar")
    return scrape, reasons, call("run", scrape.config, "--workers", 1)


@pytest.fixture(scope="module")
def both(whole, tmp_path_factory):
    """The same, and beside it the same tar cut at 90 % of its bytes, with the same sidecar."""
    bounds = {"max_fault_share_shard": 1.0, "max_fault_share_run": 1.0}
    scrape = Scrape.make(tmp_path_factory.mktemp("both"), release=bounds)
    source = whole[0].shards / "00000.tar"
    data = source.read_bytes()
    scrape.shards.mkdir()
    for name, content in (("00000", data), ("00001", data[: len(data) * 9 // 10])):
        (scrape.shards / f"{name}.tar").write_bytes(content)
        (scrape.shards / f"{name}.parquet").write_bytes(source.with_suffix(".parquet").read_bytes())
    return scrape, whole[1], call("run", scrape.config, "--workers", 2)


def test_every_damaged_sample_is_quarantined_with_its_reason_and_every_other_is_kept(whole):
    scrape, reasons, done = whole
    assert (done.code, done.out.split("\n")[2:6]) == (
        0,
        [f"{'in':<10}{300:>12}", f"{'kept':<10}{280:>12}", f"{'not kept':<10}{20:>12}", f"{'faults':<10}{20:>12}"],
    )
    rows = scrape.decisions()
    assert len(rows) == len({row["key"] for row in rows}) == SAMPLES
    for row in rows:
        expected = ("QUARANTINE", reasons[row["key"]]) if row["key"] in reasons else ("KEEP", None)
        assert (row["action"], row["reason"]) == expected
    kept = [sample.key for sample in open_kept(scrape.collection)]
    assert kept == [f"00000/{row['key']}" for row in rows if row["key"] not in reasons]


def test_doing_it_again_does_nothing_and_says_so(whole):
    scrape, _, _ = whole
    before = files(scrape.root, but="collection/journal")
    again = call("run", scrape.config, "--workers", 1)
    assert again.code == 0
    assert "examined 0 shards; 1 were examined before" in again.out
    assert "nothing to do: settle 0001 stands" in again.out
    assert files(scrape.root, but="collection/journal") == before


def test_a_tighter_bound_on_faults_refuses_the_release_and_leaves_the_old_one(whole):
    scrape, _, _ = whole
    scrape.settings["release"] = {"max_fault_share_shard": 0.10, "max_fault_share_run": 0.02}
    scrape.write()
    before = files(scrape.collection / "releases")
    refused = call("run", scrape.config, "--workers", 1)
    assert refused.code == 4
    assert refused.err.count("error:") == 1
    assert "20 of 300 samples are faulty (6.7%), more than max_fault_share_run = 2.0%" in refused.err
    assert "settle 0002 released nothing" in refused.err
    assert files(scrape.collection / "releases") == before
    assert (scrape.collection / "current").read_text() == "0001\n"
    assert len(scrape.decisions(2)) == SAMPLES
    again = call("run", scrape.config, "--workers", 1)
    assert (again.code, "nothing to do: settle 0002 stands" in again.out) == (4, True)
    assert call("verify", scrape.collection).code == 0


def test_of_a_cut_tar_every_sample_has_one_decision_and_nothing_is_released(both):
    scrape, reasons, done = both
    assert done.code == 4
    assert "shard 00001: the archive " in done.err
    assert "settle 0001 released nothing" in done.err
    assert not (scrape.collection / "releases").exists()
    assert not (scrape.collection / "current").exists()
    rows = scrape.decisions()
    assert Counter((row["shard"], row["key"]) for row in rows).most_common(1)[0][1] == 1
    assert Counter(row["shard"] for row in rows) == {"00000": SAMPLES, "00001": SAMPLES}
    found = Counter()
    for row in rows:
        reason = row["reason"]
        assert (row["action"] == "KEEP") == (reason is None)
        if row["shard"] == "00000" or reason not in ("fault:cut_short", "fault:missing_from_shard"):
            assert reason == reasons.get(row["key"])
        else:
            found[reason] += 1
            assert row["action"] == "QUARANTINE"
    # The cut may lie in a picture or between two members.
    assert found["fault:cut_short"] == ("ends inside its last member" in done.err)
    assert 20 <= found["fault:missing_from_shard"] <= 40


def test_a_refused_run_done_again_does_nothing_and_says_so(both):
    scrape, _, _ = both
    before = files(scrape.root, but="collection/journal")
    again = call("run", scrape.config, "--workers", 1)
    assert (again.code, "nothing to do: settle 0001 stands" in again.out) == (4, True)
    assert files(scrape.root, but="collection/journal") == before


def test_a_cut_tar_that_is_accepted_or_restored_is_released(both):
    scrape, reasons, _ = both
    scrape.settings["release"] = {**scrape.settings["release"], "accept_damaged": ["00001"]}
    scrape.write()
    assert call("run", scrape.config, "--workers", 1).code == 0
    accepted = {sample.key for sample in open_kept(scrape.collection)}
    del scrape.settings["release"]["accept_damaged"]
    scrape.write()
    (scrape.shards / "00001.tar").write_bytes((scrape.shards / "00000.tar").read_bytes())
    restored = call("run", scrape.config, "--workers", 1)
    assert (restored.code, "examined 1 shards; 1 were examined before" in restored.out) == (0, True)
    kept = {sample.key for sample in open_kept(scrape.collection)}
    assert accepted < kept
    assert len(kept) == 2 * (SAMPLES - len(reasons))
    assert call("verify", scrape.collection).code == 0


def test_a_missing_shard_is_accounted_for_by_its_sidecar_and_can_be_accepted(tmp_path):
    scrape = Scrape.make(tmp_path, input=[{"shards": "shards/{0..1}.tar"}])
    write_tar(scrape.shards / "0.tar", [("a.jpg", small_jpeg(1))])
    write_sidecar(scrape.shards / "1.tar", [{"key": key, "status": "success"} for key in "xyz"])
    refused = call("run", scrape.config, "--workers", 1)
    assert (refused.code, "shard 1: the shard is missing" in refused.err) == (4, True)
    reasons = {row["key"]: row["reason"] for row in scrape.decisions()}
    assert reasons == {"a": None} | dict.fromkeys("xyz", "fault:missing_from_shard")
    scrape.settings["release"] = {**scrape.settings["release"], "accept_damaged": ["1"]}
    scrape.write()
    assert call("run", scrape.config, "--workers", 1).code == 0
    assert [sample.key for sample in open_kept(scrape.collection)] == ["0/a"]
    assert call("verify", scrape.collection).code == 0
