"""A policy that makes cases has somebody who takes them, and a run that could open them says so."""

from __future__ import annotations

import json

import pytest
from in_process import call, message
from scrapes import Scrape, jpeg, outputs, write_list, write_tar

from classifiers.hashes.digests import take_digests

STAMP = "unsafe_readable_recipient"


def make(root, **sealed):
    scrape = Scrape.make(root)
    scrape.settings["sealed"] |= sealed
    scrape.write()
    write_tar(scrape.shards / "00.tar", [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2))])
    return scrape


@pytest.mark.parametrize("missing", [{"case_owner_role": ""}, {"case_owner_contact": " "}])
def test_a_policy_that_seals_without_an_owner_is_refused(tmp_path, missing):
    done = call("run", make(tmp_path, **missing).config)
    assert done.code == 2
    assert "[sealed] case_owner_role and case_owner_contact" in message(done)
    assert not (tmp_path / "collection").exists()


def test_a_policy_that_makes_no_cases_needs_no_owner(tmp_path):
    scrape = make(tmp_path, case_owner_role="", case_owner_contact="")
    scrape.settings["policy"] = {"file": "policy.toml"}
    scrape.write()
    rule = '[[rule]]\nid = "listed"\nwhen = "list.csam.exact >= 1"\naction = "REMOVE"\n'
    (tmp_path / "policy.toml").write_text(f'name = "mild"\nrequired = ["list.csam.exact"]\n{rule}')
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    assert not (scrape.collection / "journal/notice-for-case-owner.txt").exists()


def test_every_settle_leaves_the_owner_the_same_notice_with_or_without_a_case(tmp_path):
    notices = []
    for name, listed in (("with", jpeg(1)), ("without", jpeg(9))):
        scrape = make(tmp_path / name)
        write_list(
            tmp_path / name / "lists/known.csv", [("md5", take_digests(listed).md5), ("pdq", bytes(range(32)))]
        )
        assert call("run", scrape.config, "--workers", 1).code == 0
        path = scrape.collection / "journal/notice-for-case-owner.txt"
        notices.append(path.read_bytes())
        assert oct(path.stat().st_mode & 0o777) == "0o600"
        assert len(scrape.sealed()) == (name == "with")
        path.unlink()  # as after a kill between the close and the notice
        assert call("run", scrape.config, "--workers", 1).code == 0
        assert path.read_bytes() == notices[-1]
    assert notices[0] == notices[1]
    text = notices[0].decode()
    assert "Settle 0001 is closed" in text
    assert "case owner of the drawings, drawings@example.invalid" in text
    assert "sealed/*.0001.age" in text


def key_file(name):
    def write(scrape):
        path = scrape.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# a comment\n{scrape.identity}\n")

    return write


@pytest.mark.parametrize(
    ("name", "workers"),
    [("case.key", 2), ("mine.age-key", 1), ("keys-2026.txt", 1), ("far/other", 1), ("near/case.key", 1)],
)
def test_a_run_that_can_read_a_recipients_key_warns_and_stamps_its_outputs(tmp_path, name, workers):
    scrape = make(tmp_path, identities_at=["far/other", "near", "not-there"])
    key_file(name)(scrape)
    done = call("run", scrape.config, "--workers", workers)
    assert done.code == 0, done.err
    assert done.err.count(f"warning: {STAMP}: ") == 1
    assert f"UNSAFE    {STAMP}" in done.out
    home = scrape.collection
    assert json.loads((home / "releases/0001/summary.json").read_text())["stamps"] == [STAMP]
    assert call("verify", home).code == 0
    (scrape.root / name).unlink()
    done = call("run", scrape.config, "--workers", 1)
    assert (done.code, STAMP in done.out + done.err) == (0, False)
    assert json.loads((home / "releases/0002/summary.json").read_text())["stamps"] == []


@pytest.mark.parametrize("name", ["notes.txt", "deeper/case.key"])
def test_a_key_that_does_not_lie_where_a_run_looks_is_not_found(tmp_path, name):
    scrape = make(tmp_path)
    key_file(name)(scrape)
    assert STAMP not in call("run", scrape.config, "--workers", 1).err


def test_a_key_of_somebody_else_changes_nothing(tmp_path):
    scrape, other = make(tmp_path / "one"), make(tmp_path / "other")
    assert call("run", scrape.config, "--workers", 1).code == 0
    before = outputs(scrape.collection, scrape.identity)
    (scrape.root / "case.key").write_text(f"{other.identity}\nAGE-SECRET-KEY-NONSENSE\n")
    (scrape.root / "key.txt").write_bytes(b"\xff\x00")
    (scrape.root / "folder.key").mkdir()
    done = call("run", scrape.config, "--workers", 1)
    assert (done.code, done.err) == (0, "")
    assert outputs(scrape.collection, scrape.identity) == before
