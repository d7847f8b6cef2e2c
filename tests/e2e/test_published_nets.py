"""The published pixel nets over real photographs: named in the plan, decided on, the same for any workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crash_runs import copy_folder
from in_process import call
from scrapes import Scrape, outputs, write_tar

from classifiers.image.preprocessing import FACE_AGE, NSFWJS

POLICY = """
name = "published-nets"
required = ["nsfwjs@1", "face-age@1"]
[[rule]]
id = "sexual-minor"
when = "nsfwjs@1 >= 0.10 and face-age@1 >= 0.50"
action = "REMOVE"
[[rule]]
id = "sexual"
when = "nsfwjs@1 >= 0.45"
action = "REMOVE"
"""

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Scrape:
    made = Scrape.make(tmp_path_factory.mktemp("nets"), policy={"file": "policy.toml"})
    (made.root / "policy.toml").write_text(POLICY)
    made.settings["net"] = [
        {"kind": kind, "name": net.name, "file": shared_data / "weights" / folder, "sha256": net.sha256}
        for kind, net, folder in (("nsfwjs", NSFWJS, "nsfwjs"), ("face-age", FACE_AGE, "face"))
    ]
    made.write()
    photographs = sorted((shared_data / "photos").iterdir())
    for shard, part in enumerate((photographs[:6], photographs[6:])):
        write_tar(made.shards / f"{shard:05d}.tar", [(path.name, path.read_bytes()) for path in part])
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_benign_photographs_are_kept_but_for_the_known_false_alarm(scrape: Scrape) -> None:
    rows = {str(row["key"]): row for row in scrape.decisions()}
    lost = {key: row["reason"] for key, row in rows.items() if row["action"] != "KEEP"}
    assert lost == {"cell": "rule:sexual", "truncated": "fault:truncated"}
    assert rows["astronaut"]["signal.nsfwjs@1"] < 0.1
    assert rows["astronaut"]["signal.face-age@1"] < 0.5
    assert rows["brick"]["signal.face-age@1"] == 0


def test_the_plan_names_the_nets_in_full(scrape: Scrape) -> None:
    plan = json.loads((scrape.collection / "examine_plan.json").read_text())
    assert plan["nets"] == [NSFWJS.full_name, FACE_AGE.full_name]


def test_any_number_of_workers_gives_the_same_bytes(scrape: Scrape, tmp_path: Path) -> None:
    truth = outputs(scrape.collection, scrape.identity)
    copy_folder(scrape.collection, tmp_path / "first")
    copy_folder(None, scrape.collection)
    done = call("run", scrape.config, "--workers", 2)
    assert done.code == 0, done.err
    assert outputs(scrape.collection, scrape.identity) == truth


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ('name = "nsfwjs@1"', 'name = "mine@1"', "name: kind 'nsfwjs' expects 'nsfwjs@1', found 'mine@1'"),
        ('name = "nsfwjs@1"', 'name = "face-age@1"', "two [[net]] tables have the name 'face-age@1'"),
        ('kind = "nsfwjs"', 'kind = "nsfw"', "kind: expected onnx | nsfwjs | face-age, found 'nsfw'"),
        (f'sha256 = "{NSFWJS.sha256}"', 'sha256 = ""', f"is not pinned; found sha256 {NSFWJS.sha256}"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(scrape: Scrape, good: str, bad: str, message: str) -> None:
    config = scrape.config.read_text()
    assert good in config
    scrape.config.write_text(config.replace(good, bad))
    done = call("settle", scrape.config, "--workers", 1)
    scrape.config.write_text(config)
    assert done.code == 2
    assert message in done.err
