"""A publication with the tars of its release, and the cover that the configuration names."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from finished import make_finished
from in_process import call, files, message
from scrapes import Scrape

from manifests.guard import guard
from manifests.publish import PublishError, publish
from manifests.verify import verify

BOUNDS = {"least": 1, "per_withheld": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_finished(tmp_path_factory.mktemp("publishing") / "scrape")


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished.collection, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "cover.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def test_the_tars_are_those_of_the_release_and_the_guard_passes_them(copy, tmp_path):
    publish(copy, tmp_path / "out", shards=True, **BOUNDS)
    made, released = files(tmp_path / "out/shards"), files(copy / "releases/0002/shards")
    assert {name: item[2] for name, item in made.items()} == {name: item[2] for name, item in released.items()}
    told = json.loads((tmp_path / "out/summary.json").read_bytes())["tars"]
    assert {f"{shard}.tar": digest for shard, digest in told.items()} == {
        name: item[2] for name, item in made.items()
    }
    report = guard(tmp_path / "out", [tmp_path / "out/shards"])
    assert (report.problem_count, report.absent) == (0, 0)
    assert not list((copy / "publications").rglob("*.tar"))
    assert verify(copy).problems == []


def test_no_tar_is_handed_out_that_holds_what_a_cover_drops(copy, tmp_path, secret):
    before = files(copy)
    with pytest.raises(PublishError, match="cover drops samples that the release's tars hold"):
        publish(copy, tmp_path / "out", shards=True, cover=secret, least=12, per_withheld=1)
    assert files(copy) == before
    assert not (tmp_path / "out").exists()
    publish(copy, tmp_path / "bare", cover=secret, least=12, per_withheld=1)
    assert not (tmp_path / "bare/shards").exists()


def test_a_cover_that_need_drop_nothing_leaves_the_tars(copy, tmp_path, secret):
    publish(copy, tmp_path / "out", shards=True, cover=secret, **BOUNDS)
    assert len(list((tmp_path / "out/shards").iterdir())) == 2


def test_a_tar_that_was_changed_is_not_handed_out(copy, tmp_path):
    tar = copy / "releases/0002/shards/00001.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    before = files(copy)
    with pytest.raises(PublishError, match="not the one that was released"):
        publish(copy, tmp_path / "out", shards=True, **BOUNDS)
    assert files(copy) == before
    assert not (tmp_path / "out").exists()


def test_a_release_without_tars_has_none_to_hand_out(finished, tmp_path):
    scrape = Scrape(finished.root, finished.identity, {**finished.settings, "collection": tmp_path / "bare"})
    scrape.settings["release"] = {**scrape.settings["release"], "shards": False}
    scrape.write()
    assert call("run", scrape.config, "--workers", 1).code == 0
    with pytest.raises(PublishError, match="was made without tars"):
        publish(tmp_path / "bare", tmp_path / "out", shards=True, **BOUNDS)


def test_the_cover_of_the_configuration_is_used_where_none_is_named(finished, copy, tmp_path, secret):
    scrape = Scrape(tmp_path, finished.identity, {**finished.settings, "publish": {"cover": "cover.key"}})
    scrape.write()
    (copy / "journal/config").write_bytes(os.fsencode(scrape.config))
    secret.chmod(0o644)
    done = call("publish", copy, "--to", tmp_path / "out")
    assert (done.code, "in a file of mode 0600" in message(done)) == (2, True)
    secret.chmod(0o600)
    assert call("publish", copy, "--to", tmp_path / "out").code == 3
