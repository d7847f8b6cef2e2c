"""A person's decisions and the end of what is stored, through the command."""

import fnmatch
import json
import re
import shutil
from pathlib import Path

import pytest
from finished import make_finished
from in_process import call, files, message
from scrapes import Scrape, jpeg, write_list, write_tar

from manifests import schema
from manifests.handover import KeptSetError, open_kept

DATA = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
SIGNED = ("--by", "A. Name", "--why", "they-asked-for-it")


def sample(key, seed, url):
    about = {"url": f"http://example.invalid/{url}", "caption": "a drawing"}
    return [(f"{key}.jpg", jpeg(seed)), (f"{key}.json", json.dumps(about).encode())]


def settled_numbers(scrape):
    return sorted(path.name for path in (scrape.collection / "settled").iterdir())


def found(scrape, number):
    rows = scrape.decisions(number)
    return {f"{row['shard']}/{row['key']}": (row["action"], row["reason"], row["withheld"]) for row in rows}


def settle(scrape):
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return done.out


def review(scrape, *keys, action="REMOVE"):
    return call("review", scrape.collection, *keys, "--action", action, *SIGNED)


def destroy(scrape, tier, *more):
    return call("destroy", scrape.collection, "--tier", tier, *SIGNED, *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Settled twice: sealed, removed, faulted and kept samples in two shards."""
    return make_finished(tmp_path_factory.mktemp("lifetime") / "scrape")


@pytest.fixture
def scrape(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "scrape")
    return Scrape(tmp_path / "scrape", finished.identity, finished.settings)


def test_a_review_makes_one_new_settle_and_holds_for_copies_and_urls(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_tar(scrape.shards / "00.tar", [*sample("a", 1, "a"), *sample("b", 2, "b"), *sample("c", 3, "c")])
    write_tar(scrape.shards / "01.tar", [*sample("d", 1, "d"), *sample("e", 4, "a"), *sample("f", 5, "f")])
    assert call("run", scrape.config, "--workers", 1).code == 0
    assert {action for action, *_ in found(scrape, 1).values()} == {"KEEP"}
    done = review(scrape, "00/a")
    assert (done.code, done.out) == (0, "recorded 1 reviews; they take effect at the next settle\n")
    assert review(scrape, "00/b", "01/f", action="QUARANTINE").out.startswith("recorded 2 reviews")
    settle(scrape)
    assert found(scrape, 2) == {
        "00/a": ("REMOVE", "review", False),
        "00/b": ("QUARANTINE", "review", False),
        "00/c": ("KEEP", None, False),
        "01/d": ("REMOVE", "copy", False),
        "01/e": ("QUARANTINE", "url", False),
        "01/f": ("QUARANTINE", "review", False),
    }
    assert "nothing to do" in settle(scrape)
    assert review(scrape, "00/a").out.startswith("recorded 0 reviews")
    assert "nothing to do" in settle(scrape)
    assert settled_numbers(scrape) == ["0001", "0002"]
    assert call("verify", scrape.collection).code == 0
    assert "a person set it aside" in call("quarantine", scrape.collection).out


def test_a_review_never_loosens_and_a_withheld_sample_stays_withheld(scrape):
    before = found(scrape, 2)
    assert review(scrape, *before, action="QUARANTINE").code == 0
    settle(scrape)
    after = found(scrape, 3)
    for key, (action, reason, withheld) in before.items():
        kept = action == "KEEP"
        assert after[key] == ("QUARANTINE", "review", False) if kept else (action, reason, withheld)
    assert call("verify", scrape.collection).code == 0


def test_two_workers_decide_as_one_by_the_reviews(scrape, tmp_path):
    shutil.copytree(scrape.root, tmp_path / "other")
    other = Scrape(tmp_path / "other", scrape.identity, scrape.settings)
    for one, workers in ((scrape, 1), (other, 2)):
        assert review(one, "00000/kept_a").code == 0
        assert call("settle", one.config, "--workers", workers).code == 0
    assert found(scrape, 3) == found(other, 3)
    assert found(scrape, 3)["00000/kept_a"] == ("REMOVE", "review", False)


def test_what_is_refused_names_no_key_and_records_nothing(scrape):
    told = [
        review(scrape, "00000/kept_a", "00000/secret-name"),
        review(scrape, "99/secret-name"),
        review(scrape, "00000/kept_a", action="KEEP"),
        call("review", scrape.collection, "00000/kept_a", "--action", "REMOVE", "--by", " ", "--why", "x"),
    ]
    assert [done.code for done in told] == [2] * 4
    text = "\n".join(message(done) for done in told)
    assert "KEY 2:" in text
    assert "[policy] overrides" in text
    assert "secret-name" not in text
    assert "kept_a" not in text
    assert not (scrape.collection / "reviews.jsonl").exists()


def test_nothing_outside_the_record_says_who_reviewed_or_why(scrape):
    assert review(scrape, "00000/kept_a").code == 0
    out = settle(scrape) + "".join(call(*command).out for command in (("status", scrape.collection),))
    assert "kept_a" not in out
    marks = (b"A. Name", b"they-asked-for-it")
    holding = {path.name for path in scrape.collection.rglob("*") if path.is_file() if has(path, marks)}
    assert holding == {"reviews.jsonl"}
    assert (scrape.collection / "reviews.jsonl").stat().st_mode & 0o777 == 0o600
    released = [path for path in (scrape.collection / "releases").rglob("*") if path.is_file()]
    assert not any(has(path, (b"review",)) for path in released if path.suffix == ".json")


def has(path, marks):
    data = path.read_bytes()
    return any(mark in data for mark in marks)


def test_a_changed_review_stops_the_settle(scrape):
    assert review(scrape, "00000/kept_a", "00000/kept_b").code == 0
    path = scrape.collection / "reviews.jsonl"
    path.write_bytes(path.read_bytes().replace(b"00000/kept_a", b"00000/kept_c"))
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 1
    assert "line 2 is not what was recorded" in message(done)
    assert settled_numbers(scrape) == ["0001", "0002"]
    assert call("verify", scrape.collection).code == 3


def test_verify_finds_a_review_that_was_changed_or_cut_off_after_its_settle(scrape):
    assert review(scrape, "00000/kept_a").code == 0
    settle(scrape)
    path = scrape.collection / "reviews.jsonl"
    for data in (path.read_bytes().replace(b"REMOVE", b"QUARANTINE"), b""):
        path.write_bytes(data)
        done = call("verify", scrape.collection)
        assert done.code == 3
        assert "rests on reviews that are not recorded as they were" in message(done)


def test_without_yes_it_is_only_said_what_would_go(scrape):
    before = files(scrape.collection)
    for tier in ("restricted", "journal", "release"):
        done = destroy(scrape, tier)
        assert done.code == 0, done.err
        assert re.fullmatch(r"would destroy [1-9]\d* files, [1-9]\d* bytes; on hold and left: 0\n", done.out)
    assert files(scrape.collection) == before


def test_after_the_features_are_gone_verify_says_so_and_the_rest_still_stands(scrape):
    before = files(scrape.collection)
    done = destroy(scrape, "restricted", "--yes")
    assert done.code == 0, done.err
    gone = before.keys() - files(scrape.collection).keys()
    assert {
        path for path in before if re.match(r"examined/.*parquet|settled/.*parquet|settled/.*/report\.", path)
    } == gone
    assert done.out == f"destroyed {len(gone)} files, {sum_of(done.out)} bytes; on hold and left: 0\n"
    checked = call("verify", scrape.collection)
    assert checked.code == 0, checked.err
    assert re.search(
        rf"{len(gone)} files of the tier restricted: destroyed on [\d-]{{10}}, not checkable", checked.out
    )
    tar = scrape.collection / "releases" / "0002" / "shards" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert call("verify", scrape.collection).code == 3


def sum_of(text):
    return re.search(r"(\d+) bytes", text)[1]


def test_what_needs_destroyed_features_names_the_record(scrape):
    assert destroy(scrape, "restricted", "--yes").code == 0
    write_list(scrape.root / "lists" / "other.csv", [("md5", b"1" * 16)])
    for command in (
        ("settle", scrape.config, "--workers", 1),
        ("run", scrape.config, "--workers", 1),
        ("explain", scrape.collection, "00000/kept_a"),
        ("quarantine", scrape.collection),
        ("review", scrape.collection, "00000/kept_a", "--action", "REMOVE", *SIGNED),
    ):
        done = call(*command)
        assert done.code == 1, command
        assert re.search(r"restricted: destroyed on [\d-]{10}, as \S+destroyed\.jsonl records", message(done))


def test_a_file_that_is_missing_otherwise_is_still_a_failure(scrape):
    assert destroy(scrape, "restricted", "--settle", 1, "--yes").code == 0
    assert call("verify", scrape.collection).code == 0
    (scrape.collection / "settled" / "0002" / "decisions" / "00000.parquet").unlink()
    done = call("verify", scrape.collection)
    assert done.code == 3
    assert "missing, though a record names it" in done.err
    (scrape.collection / "destroyed.jsonl").unlink()
    assert call("verify", scrape.collection).err.count("missing, though") > 1


def test_a_kill_between_the_record_and_the_files_is_finished_by_the_same_command(scrape, tmp_path):
    shutil.copytree(scrape.collection, tmp_path / "before")
    assert destroy(scrape, "restricted", "--yes").code == 0
    recorded = (scrape.collection / "destroyed.jsonl").read_bytes()
    shutil.rmtree(scrape.collection)
    shutil.copytree(tmp_path / "before", scrape.collection)
    (scrape.collection / "destroyed.jsonl").write_bytes(recorded)
    (scrape.collection / "examined" / "00000.parquet").unlink(missing_ok=True)
    assert call("verify", scrape.collection).code == 0
    assert destroy(scrape, "restricted", "--yes").code == 0
    assert list((scrape.collection / "examined").glob("*.parquet")) == []
    assert (scrape.collection / "destroyed.jsonl").read_bytes() == recorded
    assert call("verify", scrape.collection).code == 0


def test_sealed_records_go_only_when_their_owner_agrees_and_no_hold_stands(scrape):
    sealed = len(list((scrape.collection / "sealed").iterdir()))
    for more in ((), ("--case-owner-agrees", " a. name ")):
        done = destroy(scrape, "sealed", "--yes", *more)
        assert done.code == 2
        assert "another person than --by" in message(done)
    assert len(list((scrape.collection / "sealed").iterdir())) == sealed
    (scrape.collection / "holds.toml").write_text('[[hold]]\nshard = "00001"\nuntil = 2999-01-31\nby = "C"\n')
    done = destroy(scrape, "sealed", "--yes", "--case-owner-agrees", "B. Name")
    assert done.code == 0, done.err
    assert re.search(r"on hold and left: [1-9]", done.out)
    assert {path.name[:5] for path in (scrape.collection / "sealed").iterdir()} == {"00001"}
    checked = call("verify", scrape.collection)
    assert checked.code == 0, checked.err
    assert "of the tier sealed: destroyed on" in checked.out


def test_only_superseded_releases_go_unless_all_are_asked_for(scrape):
    assert destroy(scrape, "release", "--yes").code == 0
    releases = scrape.collection / "releases"
    assert [path.name for path in releases.iterdir()] == ["0002"]
    assert call("verify", scrape.collection).code == 0
    assert destroy(scrape, "release", "--yes").out.startswith("destroyed 0 files")
    assert destroy(scrape, "release", "--yes", "--all").code == 0
    assert list(scrape.collection.glob("releases/*")) == []
    checked = call("verify", scrape.collection)
    assert checked.code == 0, checked.err
    with pytest.raises(KeptSetError, match="release: destroyed on"):
        next(open_kept(scrape.collection))


def test_a_settle_goes_on_when_the_releases_before_it_are_gone(scrape):
    assert destroy(scrape, "release", "--yes", "--all").code == 0
    assert review(scrape, "00000/kept_a").code == 0
    settle(scrape)
    assert {sample.key for sample in open_kept(scrape.collection)} == {
        f"{row['shard']}/{row['key']}" for row in scrape.decisions(3) if row["action"] == "KEEP"
    }
    assert call("verify", scrape.collection).code == 0


def test_a_release_that_is_partly_gone_is_not_handed_out_in_part(scrape):
    (scrape.collection / "releases" / "0002" / "manifest" / "00001.parquet").unlink()
    (scrape.collection / "releases" / "0002" / "summary.json").unlink()
    with pytest.raises(KeptSetError, match="missing, though a record names it"):
        next(open_kept(scrape.collection))


def test_a_journal_that_is_gone_hinders_no_run(scrape):
    assert destroy(scrape, "journal", "--yes").code == 0
    assert [path.name for path in (scrape.collection / "journal").iterdir()] == ["lock"]
    assert "nothing to do" in call("run", scrape.config, "--workers", 1).out
    assert call("verify", scrape.collection).code == 0


def test_no_output_of_a_destruction_names_a_sample_or_a_shard(scrape):
    done = destroy(scrape, "restricted", "--yes")
    assert not re.search(r"0000|kept|sealed|later|removed|cut", done.out + done.err)


@pytest.mark.parametrize(
    "more", [("--tier", "everything"), ("--tier", "journal", "--settle", 1), ("--tier", "release", "--settle", 9)]
)
def test_what_cannot_be_destroyed_so_is_a_usage_error(scrape, more):
    assert call("destroy", scrape.collection, *more, *SIGNED, "--yes").code == 2


def test_every_stored_file_stands_in_the_table_of_data(scrape):
    assert review(scrape, "00000/kept_a").code == 0
    assert destroy(scrape, "journal", "--yes").code == 0
    named = re.findall(r"^\| `([\w./<>~-]+)` \|", DATA, re.MULTILINE)
    patterns = [re.sub(r"<\w+>|NNNN", "*", name) for name in named]
    stored = [
        path.relative_to(scrape.collection).as_posix() for path in scrape.collection.rglob("*") if path.is_file()
    ]
    assert [name for name in stored if not any(fnmatch.fnmatchcase(name, one) for one in patterns)] == []


def test_every_stored_column_stands_in_the_table_of_data():
    shape = schema.FeatureColumns((("<kind>.<view>", 32),), 4, ("<name>",))
    columns = [
        *schema.examined_schema(shape).names,
        *schema.decision_schema(["<name>"]).names,
        *schema.MANIFEST_SCHEMA.names,
        schema.IN_TAR,
    ]
    assert [name for name in columns if not re.search(rf"^\|.*`{re.escape(name)}`.*\|", DATA, re.MULTILINE)] == []
