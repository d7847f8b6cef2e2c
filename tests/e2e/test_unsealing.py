"""Withheld samples decided anew by those who hold the key: what nothing withholds any more comes back, no more."""

import hashlib
import json

import pytest
from in_process import call
from modelled import AROUND_POLICY, add_models, members
from scrapes import Scrape, draw, encode, jpeg, write_list, write_tar

LISTED, ALSO = hashlib.md5(jpeg(1)).digest(), hashlib.md5(jpeg(2)).digest()


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    """Two listed pictures, one of them twice and as a near-copy; then a version of the list without the other."""
    made = Scrape.make(tmp_path_factory.mktemp("unsealing"))
    write_tar(made.shards / "00.tar", members({"wrong": jpeg(2), "right": jpeg(1), "b": jpeg(3)}))
    write_tar(made.shards / "01.tar", members({"same": jpeg(1), "c": jpeg(4)}))
    add_models(made)
    (made.root / "around.toml").write_text(AROUND_POLICY)
    made.settings["policy"] = {"file": "around.toml"}
    made.write()
    write_list(made.root / "lists" / "known.csv", [("md5", LISTED), ("md5", ALSO)])
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    assert {row["key"] for row in made.sealed()} == {"wrong", "right", "same"}
    write_list(made.root / "lists" / "known.csv", [("md5", LISTED)])
    # A near-copy of what is sealed already, in a later shard: only the opened seed can find it.
    write_tar(made.shards / "02.tar", members({"recoded": encode(draw(1), quality=70), "d": jpeg(6)}))
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def kept(scrape, number):
    return {row["key"] for row in scrape.decisions(number) if row["action"] == "KEEP"}


def settle(scrape, *options):
    return call("settle", scrape.config, "--workers", 1, *options)


@pytest.fixture(scope="module")
def opened(scrape):
    record = scrape.root / "team" / "access.jsonl"
    about = ("--by", "Ada", "--why", "the list was wrong", "--access-record", record)
    (scrape.root / "key").write_text(scrape.identity)
    done = settle(scrape, "--identity", scrape.root / "key", *about)
    assert done.code == 0, done.err
    return scrape


def test_without_the_key_what_is_withheld_stays_so(scrape):
    assert kept(scrape, 2) == {"b", "c", "d", "recoded"}


def test_with_it_what_nothing_withholds_comes_back_and_seeds_are_found_again(opened):
    assert kept(opened, 3) == {"wrong", "b", "c", "d"}
    rows = {row["key"]: row["withheld"] for row in opened.decisions(3)}
    assert {key for key, withheld in rows.items() if withheld} == {"right", "same", "recoded"}
    assert call("verify", opened.collection).code == 0
    assert call("leakscan", opened.collection).code == 0


def test_the_opening_is_recorded_and_the_output_stamped(opened):
    (line,) = (opened.root / "team" / "access.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["by"], entry["why"]) == ("Ada", "the list was wrong")
    assert {item["name"].split(".")[0] for item in entry["files"]} == {"00", "01"}
    summary = json.loads((opened.collection / "releases" / "0003" / "summary.json").read_bytes())
    assert "unsafe_readable_recipient" in summary["stamps"]


def test_what_came_back_stays_in_the_next_settle(opened):
    done = settle(opened)
    assert done.code == 0, done.err
    assert kept(opened, 4) == {"wrong", "b", "c", "d"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--identity", "KEY"), "--identity and --access-record: expected both or neither"),
        (("--identity", "KEY", "--access-record", "R"), "--by: expected words on one line"),
        (("--identity", "EMPTY", "--access-record", "R", "--by", "a", "--why", "b"), "holds no age identity"),
    ],
)
def test_an_opening_that_says_too_little_is_refused_before_anything_is_opened(opened, tmp_path, options, said):
    (tmp_path / "empty").write_text("")
    places = {"KEY": opened.root / "key", "EMPTY": tmp_path / "empty", "R": tmp_path / "record"}
    done = settle(opened, *(places.get(one, one) for one in options))
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "record").exists()
