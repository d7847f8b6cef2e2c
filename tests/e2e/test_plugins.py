"""The distribution of `docs/plugins.md` in a run: a hash and a head of others in features, plan and policy."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import stand_ins
from crash_runs import copy_folder
from in_process import call, message
from made_plugins import install, install_example, installed
from scrapes import Scrape, jpeg, outputs, write_list, write_plain_shards

from classifiers.plugins import IMPORTERS
from manifests.features import decode_features, encode_features
from manifests.verify import verify

POLICY = """
name = "with-a-plug-in"
required = ["list.csam.exact", "way@1"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1 or list.csam.pdq_distance <= 31"
action = "SEAL"
[[rule]]
id = "way"
when = "way@1 >= 0.5"
action = "REMOVE"
"""
LISTED = hashlib.md5(jpeg(1)).digest()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = install_example(tmp_path_factory.mktemp("site"))
    with installed(folder):
        yield folder


@pytest.fixture(scope="module")
def scrape(tmp_path_factory, site) -> Scrape:
    root = tmp_path_factory.mktemp("plugins")
    pin = stand_ins.write_stand_in_clip(root / "model", seed=0)
    file = {"name": "way@1", "embedder": f"clip-stand-in@1#{pin[:8]}/bicubic224"}
    file["direction"] = np.random.default_rng(5).normal(size=64).tolist()
    (root / "way.json").write_text(json.dumps(file))
    (root / "policy.toml").write_text(POLICY)
    made = Scrape.make(
        root,
        unsafe_stand_in_models=True,
        policy={"file": "policy.toml"},
        hashes={"kinds": ["pdq:fullres", "rowdiff"], "views": ["oriented", "thumbnail"]},
        embedder={"name": "clip-stand-in@1", "folder": "model", "sha256": pin, "precision": "fp32"},
        head=[
            {
                "file": "way.json",
                "sha256": hashlib.sha256((root / "way.json").read_bytes()).hexdigest(),
                "kind": "direction",
            }
        ],
    )
    write_list(root / "lists" / "known.csv", [("md5", LISTED), ("pdq", bytes(range(32)))])
    write_plain_shards(made.shards, shards=2, samples=6)
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_the_plan_names_the_plugins_their_version_and_what_they_make(scrape):
    plan = json.loads((scrape.collection / "examine_plan.json").read_bytes())
    assert plan["software"].count("shardscrub-example==1.2.0") == 1
    assert plan["hashes"] == [
        f"{kind}.{view}" for kind in ("pdq:fullres", "rowdiff:8x9") for view in ("oriented", "thumbnail")
    ]
    assert plan["heads"][0].startswith("way@1#")


def test_codes_and_scores_of_plugins_are_features_and_a_policy_reads_the_scores(scrape):
    tables = [pq.read_table(path) for path in sorted((scrape.collection / "examined").glob("*.parquet"))]
    for table in tables:
        codes = table["rowdiff:8x9.oriented"].to_pylist()
        clear = [not hidden for hidden in table["withheld"].to_pylist()]
        assert [code is not None for code in codes] == clear
        assert {len(code) for code in codes if code} == {8}
        assert encode_features(decode_features(table)).equals(table.replace_schema_metadata())
    scores = {row["key"]: row["signal.way@1"] for row in scrape.decisions()}
    for row in scrape.decisions():
        if not row["withheld"]:
            assert row["action"] == ("REMOVE" if scores[row["key"]] >= 0.5 else "KEEP")
    assert [row["key"] for row in scrape.sealed()] == ["00000001"]
    assert len(scrape.sealed()[0]["rowdiff:8x9.oriented"]) == 8
    assert verify(scrape.collection).problems == []


def test_any_number_of_workers_gives_the_same_bytes(scrape, tmp_path):
    truth = outputs(scrape.collection, scrape.identity)
    copy_folder(scrape.collection, tmp_path / "first")
    copy_folder(None, scrape.collection)
    done = call("run", scrape.config, "--workers", 2)
    assert done.code == 0, done.err
    assert outputs(scrape.collection, scrape.identity) == truth


def test_another_version_is_another_plan(scrape, tmp_path):
    install_example(tmp_path, version="1.3.0")
    with installed(tmp_path):  # the first on the path is the one that counts
        done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 2
    assert 'these differ: software (was ["shardscrub-example==1.2.0", ' in done.err
    assert 'now ["shardscrub-example==1.3.0", ' in done.err


@pytest.mark.parametrize(
    ("key", "written", "wrong", "said"),
    [
        ("kinds", '"rowdiff"', '"rowdif"', "[hashes] kinds: 'rowdif' is unknown; did you mean 'rowdiff'?"),
        (
            "kind",
            '"direction"',
            '"directions"',
            "[[head]] kind: 'directions' is unknown; did you mean 'direction'?",
        ),
        ("kind", '"direction"', '"zeroshot"', "[[head]] kind: 'zeroshot' is unknown; did you mean 'zero-shot'?"),
    ],
)
def test_a_kind_that_nobody_has_is_refused_with_the_nearest(scrape, key, written, wrong, said):
    config = scrape.config.read_text()
    scrape.config.write_text(config.replace(written, wrong))
    done = call("settle", scrape.config, "--workers", 1)
    scrape.config.write_text(config)
    assert done.code == 2
    assert f"error: {said}" in done.err


def test_the_hash_command_knows_the_kind(scrape, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(3))
    done = call("hash", path, "--kinds", "rowdiff", "--json")
    assert done.code == 0, done.err
    (found,) = [item for item in json.loads(done.out)["hashes"] if item["column"] == "rowdiff:8x9.oriented"]
    assert (len(found["codes"]), len(found["codes"][0]), found["quality"]) == (1, 16, None)
    done = call("hash", path, "--kinds", "rowdif")
    assert done.code == 2
    assert "did you mean 'rowdiff'" in message(done)


def test_an_importer_of_a_plugin_reads_a_list_whose_manifest_names_it(scrape, tmp_path):
    code = "from classifiers.blocklists.importers.plain import PlainImporter as Plain\n"
    code += "class Mine(Plain):\n    name = 'mine'\n"
    install(tmp_path / "site", "list-readers", "0.3", {IMPORTERS: {"mine": "list_readers:Mine"}}, list_readers=code)
    path = tmp_path / "a.csv"
    path.write_text(f"md5\n{'ab' * 16}\n")
    arguments = [
        "lists",
        "import",
        path,
        "--store",
        tmp_path / "store",
        "--key",
        scrape.root / "lists.key",
        "--id",
        "a",
    ]
    arguments += ["--purpose", "ncii", "--effect", "remove", "--format", "mine"]
    done = call(*arguments)
    assert done.code == 2
    assert "--format: 'mine' is unknown; known: plain, " in message(done)
    with installed(tmp_path / "site"):
        done = call(*arguments)
    assert done.code == 0, done.err
    manifest = json.loads(next((tmp_path / "store").rglob("manifest.json")).read_bytes())
    assert manifest["format"] == "mine of list-readers==0.3"
