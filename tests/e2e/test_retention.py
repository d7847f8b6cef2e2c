"""What is past its retention ends when somebody asks for it, by a verb that names no file."""

from __future__ import annotations

import os
import re
import shutil
import time

import pytest
from finished import make_finished
from in_process import call, files, message
from scrapes import Scrape

SIGNED = ("--by", "A. Name", "--why", "past-its-days")
DAY_S = 86_400


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_finished(tmp_path_factory.mktemp("retention") / "scrape")


@pytest.fixture
def scrape(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "scrape")
    scrape = Scrape(tmp_path / "scrape", finished.identity, dict(finished.settings))
    (scrape.collection / "journal" / "config").write_bytes(os.fsencode(scrape.config))
    return scrape


def keep(scrape, **days):
    scrape.settings["retention"] = days
    scrape.write()


def age(path, days):
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


def due(scrape, *more):
    return call("destroy", scrape.collection, "--due", *SIGNED, *more)


def names(scrape):
    return set(files(scrape.collection)) - {"destroyed.jsonl"}


def gone(scrape, before):
    return before - names(scrape)


def test_a_settle_and_its_release_are_as_old_as_their_close(scrape):
    keep(scrape, release_days=30, restricted_days=60)
    before = names(scrape)
    assert due(scrape, "--yes").out.count(": destroyed 0 files, 0 bytes; on hold and left: 0\n") == 2
    for number, days in (("0001", 31), ("0002", 300)):
        age(scrape.collection / "settled" / number / "close.json", days)
    told = due(scrape)
    assert told.code == 0, told.err
    assert gone(scrape, before) == set()
    done = due(scrape, "--yes")
    assert done.out == told.out.replace("would destroy", "destroyed")
    assert not re.search(r"0000|kept|sealed|later|removed|cut", done.out + done.err)
    # Of the newest settle the decisions are due; its release is superseded by none and stays.
    expected = {name for name in before if name.startswith("releases/0001/")}
    expected |= {name for name in before if re.fullmatch(r"settled/0002/(.*parquet|report.*)", name)}
    assert gone(scrape, before) == expected
    assert call("verify", scrape.collection).code == 0
    assert "destroyed 0 files" in due(scrape, "--yes").out


def test_features_age_by_themselves_and_a_hold_keeps_its_shard(scrape):
    keep(scrape, restricted_days=7)
    for path in (scrape.collection / "examined").glob("*.parquet"):
        age(path, 8)
    (scrape.collection / "holds.toml").write_text('[[hold]]\nshard = "00001"\nuntil = 2999-01-31\nby = "C"\n')
    before = names(scrape)
    done = due(scrape, "--yes")
    assert re.fullmatch(r"restricted: destroyed 1 files, \d+ bytes; on hold and left: 1\n", done.out)
    assert {name.partition("~")[0].partition(".")[0] for name in gone(scrape, before)} == {"examined/00000"}
    assert call("verify", scrape.collection).code == 0


def test_the_last_day_is_still_kept(scrape):
    keep(scrape, restricted_days=7)
    for path in (scrape.collection / "examined").glob("*.parquet"):
        age(path, 7)
    assert "destroyed 0 files" in due(scrape, "--yes").out


def test_an_old_journal_goes_but_for_what_the_next_call_needs(scrape):
    keep(scrape, journal_days=1)
    for path in (scrape.collection / "journal").iterdir():
        age(path, 3)
    assert due(scrape, "--yes").code == 0
    assert {path.name for path in (scrape.collection / "journal").iterdir()} == {"lock", "config"}
    assert due(scrape, "--yes").code == 0


def test_sealed_records_are_due_only_where_their_owner_agrees(scrape):
    keep(scrape, sealed_days=1, journal_days=1)
    for path in (scrape.collection / "sealed").iterdir():
        age(path, 3)
    before = names(scrape)
    done = due(scrape, "--yes")
    assert (done.code, "another person than --by" in message(done)) == (2, True)
    assert gone(scrape, before) == set()
    assert due(scrape, "--tier", "journal", "--yes").code == 0
    assert due(scrape, "--tier", "sealed", "--case-owner-agrees", "B. Name", "--yes").code == 0
    assert list((scrape.collection / "sealed").iterdir()) == []
    assert call("verify", scrape.collection).code == 0


def test_without_days_nothing_is_due(scrape):
    keep(scrape, journal_days=1)
    for more in (("--tier", "release"), ("--tier", "nothing")):
        assert due(scrape, *more).code == 2
    keep(scrape)
    assert "nothing is due" in message(due(scrape))
    assert call("destroy", scrape.collection, *SIGNED).code == 2
    (scrape.collection / "journal" / "config").unlink()
    assert "`shardscrub examine CONFIG` writes it" in message(due(scrape))


@pytest.mark.parametrize("value", [-1, 40_000, "30"])
def test_days_are_a_number_of_days(scrape, value):
    keep(scrape, release_days=value)
    assert "retention.release_days" in message(due(scrape))
