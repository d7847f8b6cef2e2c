"""The next release from stored features: other lists and policies, linked tars, and the difference kept inside."""

import hashlib
import shutil

import pyarrow.parquet as pq
import pytest
from in_process import call, message
from scrapes import Scrape, jpeg, outputs, write_list, write_plain_shards


@pytest.fixture
def scrape(tmp_path):
    made = Scrape.make(tmp_path, input=[{"shards": "shards/{00000..00002}.tar"}])
    write_plain_shards(made.shards, 3, 4)
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def list_one(scrape, seed):
    entries = [("md5", hashlib.md5(jpeg(seed)).digest()), ("pdq", bytes(range(7, 39)))]
    return write_list(scrape.root / "lists" / "new.csv", entries)


def changes(scrape, number):
    return pq.read_table(scrape.collection / "settled" / f"{number:04d}" / "changes.parquet").to_pylist()


def test_another_list_is_another_release_and_the_difference_stays_restricted(scrape):
    list_one(scrape, 1)
    done = call("settle", scrape.config, "--list", "known", "--list", "new@1", "--workers", 1)
    assert done.code == 0, done.err
    assert changes(scrape, 2) == [
        {"shard": "00000", "index": 1, "key": "00000001", "before": "KEEP", "after": "WITHHELD"}
    ]
    assert "00000001" not in done.out + done.err
    assert call("verify", scrape.collection).code == 0


def test_tars_in_which_nothing_changed_are_linked_even_without_their_source(scrape):
    list_one(scrape, 1)
    (scrape.shards / "00002.tar").unlink()
    done = call("settle", scrape.config, "--list", "new", "--workers", 2)
    assert done.code == 0, done.err
    inode = {
        (number, shard): (scrape.collection / "releases" / number / "shards" / f"{shard}.tar").stat().st_ino
        for number in ("0001", "0002")
        for shard in ("00000", "00001", "00002")
    }
    assert inode["0001", "00000"] != inode["0002", "00000"]
    assert inode["0001", "00001"] == inode["0002", "00001"]


def test_without_tars_a_release_needs_no_source(scrape):
    list_one(scrape, 1)
    shutil.rmtree(scrape.shards)
    refused = call("settle", scrape.config, "--list", "new", "--workers", 1)
    assert refused.code == 4
    assert "set [release] shards = false" in refused.err
    done = call("settle", scrape.config, "--list", "new", "--no-shards", "--workers", 1)
    assert done.code == 0, done.err
    assert not (scrape.collection / "releases" / "0002" / "shards").exists()


def test_decisions_manifest_and_uids_are_those_of_a_whole_run_under_the_same_plan(scrape, tmp_path_factory):
    list_one(scrape, 1)
    call("settle", scrape.config, "--list", "new", "--workers", 1)
    other = Scrape.make(tmp_path_factory.mktemp("whole"), input=scrape.settings["input"])
    write_plain_shards(other.shards, 3, 4)
    list_one(other, 1)
    other.settings["list"] = [{"id": "new"}]
    other.settings["sealed"] = scrape.settings["sealed"]
    other.write()
    assert call("run", other.config, "--workers", 1).code == 0

    def contents(made, number):
        found = {}
        for name in (f"settled/{number}/decisions", f"releases/{number}/manifest"):
            for path in sorted((made.collection / name).glob("*.parquet")):
                found[f"{name.partition('/')[0]}/{path.name}"] = pq.read_table(path).to_pylist()
        return found, (made.collection / "releases" / number / "uids.npy").read_bytes()

    assert contents(scrape, "0002") == contents(other, "0001")
    assert outputs(other.collection, scrape.identity)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--list", "absent"), "absent"),
        (("--list", "new@x"), "expected ID or ID@VERSION"),
        (("--policy", "separaton"), "did you mean 'separation'"),
        (("--policy", "gone.toml"), "cannot be read"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_is_written(scrape, options, words):
    before = outputs(scrape.collection, scrape.identity)
    done = call("settle", scrape.config, *options, "--workers", 1)
    assert done.code == 2
    assert words in message(done)
    assert outputs(scrape.collection, scrape.identity) == before
