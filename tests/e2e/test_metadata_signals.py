"""Metadata columns in a run: sidecar and JSON, what is unknown, plans, the same bytes for any number of workers."""

from __future__ import annotations

import json
import math

import pytest
from crash_runs import copy_folder
from in_process import call
from scrapes import Scrape, jpeg, outputs, write_sidecar, write_tar

POLICY = """
name = "published-scores"
required = ["meta.punsafe"]
[[rule]]
id = "unsafe"
when = "meta.punsafe >= 0.98"
action = "REMOVE"
[[rule]]
id = "tagged"
when = "meta.nsfw >= 1"
action = "QUARANTINE"
"""
COLUMNS = [
    {"column": "punsafe"},
    {"column": "NSFW", "words": ["UNLIKELY", "UNSURE", "NSFW"], "scores": [0.0, 0.5, 1.0]},
]
SAFE = {"punsafe": 0.01, "NSFW": "UNLIKELY"}
JSON = {  # key: (what the sample's JSON says, action)
    "safe": (SAFE, "KEEP"),
    "unsafe": ({**SAFE, "punsafe": 0.98}, "REMOVE"),
    "below": ({**SAFE, "punsafe": 0.97}, "KEEP"),
    "whole": ({**SAFE, "punsafe": 1}, "REMOVE"),
    "tagged": ({**SAFE, "NSFW": "NSFW"}, "QUARANTINE"),
    "unknown-tag": ({**SAFE, "NSFW": "UNKNOWN"}, "QUARANTINE"),
    "both": ({"punsafe": 0.99, "NSFW": "UNKNOWN"}, "REMOVE"),
    "missing": ({"NSFW": "UNLIKELY"}, "QUARANTINE"),
    "null": ({**SAFE, "punsafe": None}, "QUARANTINE"),
    "text": ({**SAFE, "punsafe": "0.01"}, "QUARANTINE"),
    "nan": ({**SAFE, "punsafe": math.nan}, "QUARANTINE"),
    "infinite": ({**SAFE, "punsafe": math.inf}, "QUARANTINE"),
    "below-0": ({**SAFE, "punsafe": -1}, "QUARANTINE"),
    "above-1": ({**SAFE, "punsafe": 1.5}, "QUARANTINE"),
    "other-case": ({"PUNSAFE": 0.01, "nsfw": "UNLIKELY"}, "QUARANTINE"),
    "no-json": (None, "QUARANTINE"),
}
ROWS = {  # key: (the sidecar's punsafe, what the sample's JSON says, action)
    "row-safe": (0.02, {**SAFE, "punsafe": 0.99}, "KEEP"),
    "row-unsafe": (0.99, SAFE, "REMOVE"),
    "row-null": (None, SAFE, "QUARANTINE"),
    "row-nan": (math.nan, SAFE, "QUARANTINE"),
    "row-above": (7.0, SAFE, "QUARANTINE"),
    "no-row": ("absent", SAFE, "KEEP"),
}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    root = tmp_path_factory.mktemp("metadata")
    (root / "policy.toml").write_text(POLICY)
    made = Scrape.make(root, metadata=COLUMNS, policy={"file": "policy.toml"})
    shards = {"00000": [(key, said) for key, (said, _) in JSON.items()]}
    shards["00001"] = [(key, said) for key, (_, said, _) in ROWS.items()]
    for shard, samples in shards.items():
        members: list[tuple[str, bytes]] = []
        for number, (key, said) in enumerate(samples):
            members.append((f"{key}.jpg", jpeg(100 * int(shard) + number)))
            if said is not None:
                members.append((f"{key}.json", json.dumps(said).encode()))
        write_tar(made.shards / f"{shard}.tar", members)
    rows = [
        {"key": key, "status": "success", "punsafe": value, "NSFW": "UNLIKELY"}
        for key, (value, _, _) in ROWS.items()
        if value != "absent"
    ]
    write_sidecar(made.shards / "00001.tar", rows)
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_a_sample_without_a_score_that_counts_is_never_kept(scrape):
    rows = {row["key"]: row for row in scrape.decisions()}
    expected = {key: action for key, (_, action) in JSON.items()} | {key: row[2] for key, row in ROWS.items()}
    assert {key: row["action"] for key, row in rows.items()} == expected
    assert rows["unsafe"]["signal.meta.punsafe"] == pytest.approx(0.98)
    for key in (
        "missing",
        "null",
        "text",
        "nan",
        "infinite",
        "below-0",
        "above-1",
        "no-json",
        "row-nan",
        "row-above",
    ):
        assert (rows[key]["signal.meta.punsafe"], rows[key]["reason"]) == (None, "unknown")


def test_the_plan_holds_columns_words_and_scores_and_another_one_is_refused(scrape):
    plan = json.loads((scrape.collection / "examine_plan.json").read_bytes())
    assert plan["metadata"] == [{"column": "punsafe", "words": [], "scores": []}, COLUMNS[1]]
    written = scrape.config.read_text()
    scrape.config.write_text(written.replace("[0.0, 0.5, 1.0]", "[0.0, 0.4, 1.0]"))
    done = call("settle", scrape.config, "--workers", 1)
    scrape.config.write_text(written)
    assert done.code == 2
    assert "metadata (was" in done.err


def test_a_dry_run_sweeps_over_the_scores(scrape):
    done = call("run", scrape.config, "--dry-run")
    assert done.code == 0, done.err
    assert "at or over meta.nsfw: " in done.out


def test_any_number_of_workers_gives_the_same_bytes(scrape, tmp_path):
    truth = outputs(scrape.collection, scrape.identity)
    copy_folder(scrape.collection, tmp_path / "first")
    copy_folder(None, scrape.collection)
    done = call("run", scrape.config, "--workers", 2)
    assert done.code == 0, done.err
    assert outputs(scrape.collection, scrape.identity) == truth


def test_a_policy_may_bind_a_threshold_to_the_very_words_and_scores(scrape, tmp_path):
    policy = scrape.root / "policy.toml"
    good = policy.read_text()
    bound = '[signal.crawl]\nfrom = ["meta.nsfw#00000000"]\n'
    policy.write_text(good.replace("[[rule]]", bound + "[[rule]]", 1).replace("meta.nsfw >=", "crawl >="))
    done = call("settle", scrape.config, "--workers", 1)
    policy.write_text(good)
    assert done.code == 2
    assert "expected the signal 'meta.nsfw#00000000'" in done.err
