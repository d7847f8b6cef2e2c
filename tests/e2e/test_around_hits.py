"""A list that comes later: its exact hits take their near-copies and neighbours along, in the next settle."""

import hashlib
import json

import pytest
from in_process import call
from modelled import AROUND_POLICY, add_models, members
from scrapes import Scrape, draw, encode, jpeg, write_list, write_tar


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    made = Scrape.make(tmp_path_factory.mktemp("around"))
    write_list(made.root / "lists" / "other.csv", [("md5", b"2" * 16)])
    samples = {"seed": jpeg(1), "recoded": encode(draw(1), quality=70), "b": jpeg(2), "c": jpeg(3)}
    write_tar(made.shards / "00.tar", members(samples))
    samples = {"same": jpeg(1), "copy-of-recoded": encode(draw(1), quality=70), "seen": jpeg(5)}
    write_tar(made.shards / "01.tar", members({**samples, "seen-recoded": encode(draw(5), quality=60)}))
    made.settings["list"] = [{"id": "known"}, {"id": "other"}]
    add_models(made)
    (made.root / "around.toml").write_text(AROUND_POLICY)
    made.settings["policy"] = {"file": "around.toml"}
    made.write()
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    assert {row["action"] for row in made.decisions()} == {"KEEP"}
    write_list(made.root / "lists" / "known.csv", [("md5", hashlib.md5(jpeg(1)).digest())])
    write_list(made.root / "lists" / "other.csv", [("md5", hashlib.md5(jpeg(5)).digest())])
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_near_copies_of_an_exact_hit_are_removed_and_withheld_where_it_is(scrape):
    rows = {row["key"]: (row["action"], row["reason"]) for row in scrape.sealed()}
    assert rows == {
        "seed": ("SEAL", "rule:listed"),
        "same": ("SEAL", "rule:listed"),
        "recoded": ("REMOVE", "near-copy"),
        "copy-of-recoded": ("REMOVE", "near-copy"),
    }
    found = {row["key"]: (row["action"], row["reason"], row["withheld"]) for row in scrape.decisions(2)}
    assert found["seen"] == ("REMOVE", "rule:other", False)
    assert found["seen-recoded"] == ("REMOVE", "near-copy", False)
    assert found["b"] == ("KEEP", None, False)


def test_it_verifies_and_settling_again_does_nothing(scrape):
    assert call("verify", scrape.collection).code == 0
    assert "nothing to do" in call("settle", scrape.config, "--workers", 2).out


def test_nothing_of_the_search_stays_behind_but_a_note_of_bad_seeds(scrape):
    folder = scrape.collection / "settled" / "0002"
    assert {path.name for path in folder.iterdir()} == {
        "changes.parquet", "close.json", "decisions", "flooded.json", "plan.json", "summary.json",
        "evidence.json", "report.html", "report.json",
    }  # fmt: skip
    note = json.loads((scrape.collection / "journal" / "around-0002.json").read_bytes())
    assert note == {"seeds_with_too_many_neighbours": []}
