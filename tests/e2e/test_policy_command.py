"""`shardscrub policy check` and `policy preview` as a policy owner calls them; includes and replicas in a run."""

import hashlib
import json
import xml.etree.ElementTree as ET

import pytest
from in_process import call, files, message
from modelled import add_models
from scrapes import Scrape, jpeg, write_list, write_plain_shards, write_tar


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    scrape = Scrape.make(tmp_path_factory.mktemp("policy"))
    write_plain_shards(scrape.shards, 2, 6)
    write_list(scrape.root / "lists" / "other.csv", [("md5", hashlib.md5(jpeg(1)).digest())])
    scrape.settings["list"] = [{"id": "known"}, {"id": "other"}]
    add_models(scrape)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape


def test_check_explains_draws_and_finds_idle_rules(settled, tmp_path):
    done = call("policy", "check", settled.config, "--picture", tmp_path / "plane.svg")
    assert done.code == 0, done.err
    assert "sexual-minor: remove where sexual is at least 0.1 and minor is at least 0.2" in done.out
    assert "proved from the rules" in done.out
    assert " . . R" in done.out
    assert "at or over sexual-stand-in@1: 0.02: " in done.out
    assert ET.parse(tmp_path / "plane.svg").getroot().tag.endswith("svg")


def test_preview_counts_what_the_settle_decided_and_writes_nothing(settled):
    before = files(settled.collection, but="journal")
    done = call("policy", "preview", settled.config)
    assert done.code == 0, done.err
    assert files(settled.collection, but="journal") == before
    kept = sum(row["action"] == "KEEP" for row in settled.decisions())
    assert f"samples   12, of which {kept} would be kept" in done.out
    assert "REMOVE rule:listed-other" in done.out
    assert "not kept with sexual >=" in done.out


def test_a_policy_that_includes_decides_a_release(settled):
    (settled.root / "ours.toml").write_text(
        'name = "ours"\ninclude = ["policy.toml"]\nrequired = ["sexual"]\n[threshold]\nlow = 0.0\n'
        '[[rule]]\nid = "all"\nwhen = "sexual >= low"\naction = "QUARANTINE"\n'
        '[[source]]\nshards = ["00001"]\nthreshold = { low = 1.0 }\n'
    )
    before = dict(settled.settings)
    settled.settings["policy"] = {"file": "ours.toml"}
    settled.write()
    try:
        done = call("settle", settled.config, "--workers", 1)
        assert done.code == 0, done.err
        rows = settled.decisions(2)
        reasons = {(row["shard"], row["reason"]) for row in rows if row["reason"]}
        assert ("00000", "rule:all") in reasons
        assert ("00001", "rule:all") not in reasons
        kept = next(row["key"] for row in rows if row["action"] == "KEEP")
        assert (
            "rule      all: QUARANTINE when sexual >= 1" in call("explain", settled.collection, f"00001/{kept}").out
        )
    finally:
        settled.settings = before
        settled.write()


def test_a_broken_promise_is_refused_with_a_counter_example(settled, tmp_path):
    text = (
        (settled.root / "policy.toml")
        .read_text()
        .replace('never_kept = ["sexual >= 0.45"', 'never_kept = ["sexual >= 0.3"')
    )
    (settled.root / "broken.toml").write_text(text)
    config = settled.config.read_text().replace('file = "policy.toml"', 'file = "broken.toml"')
    (settled.root / "broken-scrub.toml").write_text(config)
    done = call("policy", "check", settled.root / "broken-scrub.toml")
    assert done.code == 2
    assert "does not follow from the rules: a sample with" in message(done)


def test_a_replica_previews_but_releases_only_when_asked_loudly(tmp_path):
    scrape = Scrape.make(tmp_path)
    rows = [("0", 0.05), ("1", 0.5), ("2", 0.99), ("3", None)]
    members = []
    for key, score in rows:
        members += [(f"{key}.jpg", jpeg(int(key))), (f"{key}.json", json.dumps({"punsafe": score}).encode())]
    write_tar(scrape.shards / "a.tar", members)
    scrape.settings |= {"metadata": [{"column": "punsafe"}], "policy": {"profile": "historic/sd2"}}
    scrape.write()
    refused = call("run", scrape.config, "--workers", 1)
    assert refused.code == 2
    assert "known to miss" in message(refused)
    assert not scrape.collection.exists()
    scrape.settings = {"unsafe_historic_policy": True, **scrape.settings}
    scrape.write()
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    assert "warning: unsafe_historic_policy: historic/sd2 is a replica" in done.err
    assert "UNSAFE    unsafe_historic_policy" in done.out
    assert [row["action"] for row in scrape.decisions()] == ["KEEP", "REMOVE", "REMOVE", "QUARANTINE"]
