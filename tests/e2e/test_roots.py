"""Tiers in folders of their own: the same bytes, found again from the folder of the collection alone."""

from __future__ import annotations

import json
import shutil

import pytest
from finished import SHARDS, image, make_finished
from in_process import call, files, message
from scrapes import Scrape, write_list

from classifiers.hashes.digests import take_digests
from manifests.handover import open_kept

ROOTS = {"release_root": "public", "sealed_root": "vault/far", "log_root": "public"}


def bytes_of(folder):
    return {name: digest for name, (_, _, digest) in files(folder).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One input, settled twice in one folder, and once in `apart` with its tiers elsewhere."""
    scrape = make_finished(tmp_path_factory.mktemp("roots") / "scrape")
    apart = Scrape(scrape.root, scrape.identity, {**scrape.settings, "collection": "apart", **ROOTS})
    apart.write()
    assert call("run", apart.config, "--workers", 1).code == 0
    plain = {**scrape.settings, "collection": "together"}
    Scrape(scrape.root, scrape.identity, plain).write()
    assert call("run", scrape.config, "--workers", 1).code == 0
    return apart


@pytest.fixture
def scrape(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "scrape")
    scrape = Scrape(tmp_path / "scrape", finished.identity, finished.settings)
    scrape.write()
    record = scrape.root / "apart" / "roots.json"
    record.write_bytes(record.read_bytes().replace(str(finished.root).encode(), str(scrape.root).encode()))
    return scrape


def test_each_tier_lies_where_it_was_asked_for_with_its_modes(finished):
    root = finished.root
    assert sorted(path.name for path in (root / "apart").iterdir()) == [
        "examine_plan.json", "examined", "journal", "roots.json", "secret", "settled",
    ]  # fmt: skip
    assert sorted(path.name for path in (root / "public").iterdir()) == ["current", "log", "releases"]
    assert json.loads((root / "apart/roots.json").read_bytes()).keys() == {"releases", "sealed", "log"}
    modes = {
        "apart/roots.json": 0o600,
        "vault/far/sealed": 0o700,
        "public/releases": 0o755,
        "public/current": 0o644,
    }
    sealed = list((root / "vault/far/sealed").iterdir())
    assert len(sealed) == 2
    modes |= {path.relative_to(root).as_posix(): 0o600 for path in sealed}
    assert {name: (root / name).stat().st_mode & 0o777 for name in modes} == modes


def test_a_release_has_the_same_bytes_wherever_it_lies(finished):
    root = finished.root
    assert bytes_of(root / "public" / "releases") == bytes_of(root / "together" / "releases")
    assert bytes_of(root / "apart" / "settled") == bytes_of(root / "together" / "settled")


def test_every_reader_finds_the_tiers_from_the_collection_alone(finished, tmp_path):
    apart = finished.root / "apart"
    assert call("verify", apart).code == 0
    assert call("status", apart).code == 0
    assert call("leakscan", apart).code == 0
    kept = [one.key for one in open_kept(apart)]
    assert kept
    assert kept == [one.key for one in open_kept(finished.root / "public")]
    key = tmp_path / "case.key"
    key.write_text(finished.identity)
    key.chmod(0o600)
    sealed = sorted((finished.root / "vault/far/sealed").iterdir())
    signed = ("--by", "A", "--why", "a case", "--access-record", tmp_path / "record")
    done = call("cases", "open", *sealed, "--identity", key, "--out", tmp_path / "opened", *signed)
    assert done.code == 0, done.err


def test_another_settle_and_the_end_of_a_release_go_on_there(scrape):
    still = [("md5", take_digests(image(shard, "removed")).md5) for shard in SHARDS]
    write_list(scrape.root / "lists/other.csv", [*still, ("md5", bytes(range(16)))])
    assert call("settle", scrape.config, "--workers", 1).code == 0
    releases = scrape.root / "public" / "releases"
    assert sorted(path.name for path in releases.iterdir()) == ["0001", "0002"]
    tars = [releases / number / "shards" / "00000.tar" for number in ("0001", "0002")]
    assert tars[0].stat().st_ino == tars[1].stat().st_ino
    signed = ("--by", "A", "--why", "B", "--yes")
    assert call("destroy", scrape.root / "apart", "--tier", "release", *signed).code == 0
    assert sorted(path.name for path in releases.iterdir()) == ["0002"]
    done = call("verify", scrape.root / "apart")
    assert done.code == 0, done.err
    assert "of the tier release: destroyed on" in done.out
    record = (scrape.root / "apart/destroyed.jsonl").read_text()
    assert '"releases/0001/summary.json"' in record
    (scrape.root / "public" / "left.txt").write_text("?")
    assert "left.txt: named by no record" in call("verify", scrape.root / "apart").err


def test_a_leftover_of_a_killed_run_is_cleared_there(scrape):
    left = scrape.root / "vault/far/sealed/.tmp-00000.0002.age-abcd"
    left.write_bytes(b"half")
    write_list(scrape.root / "lists/other.csv", [("md5", b"2" * 16)])
    assert call("settle", scrape.config, "--workers", 1).code == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"release_root": "elsewhere"}, "the configuration asks for log in"),
        ({"collection": "together"}, "was begun with all in one folder"),
        ({"collection": "third"}, "exists already, of another collection"),
        ({"collection": "third", "release_root": "third/public"}, "outside of the collection"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(scrape, changes, told):
    scrape.settings |= changes
    scrape.write()
    before = files(scrape.root)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 2
    assert told in message(done)
    assert files(scrape.root) == before
    assert not (scrape.root / "third").exists()


def test_a_damaged_record_of_the_roots_is_told(scrape):
    (scrape.root / "apart/roots.json").write_text('{"releases": "public"}')
    assert "expected absolute folders" in message(call("verify", scrape.root / "apart"))
    assert call("run", scrape.config, "--workers", 1).code == 2
