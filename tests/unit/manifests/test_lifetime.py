"""Chained records, holds, and destruction that is recorded first."""

import hashlib
import json
from datetime import date

import pytest

from manifests import schema
from manifests.collection import Collection
from manifests.commits import RecordError
from manifests.lifetime import append, destroy, find_files, held_shards, read_chain, read_destroyed, say_missing

KEYS = {"what", "n"}
TODAY = date(2027, 1, 31)
ABOUT = {"settle": None, "on": "2027-01-31", "by": "A", "agreed": "", "why": "retention"}


@pytest.fixture
def home(tmp_path):
    home = Collection(tmp_path / "collection")
    home.make()
    for shard in ("00", "01", "01.0001"):
        home.commit(shard).write_text("{}")
        (home.examined / home.features_name(shard, 0)).write_bytes(shard.encode())
        (home.sealed / home.sealed_name(shard, 1)).write_bytes(b"x")
    (home.journal / "lock").write_bytes(b"")
    (home.journal / "config").write_bytes(b"scrub.toml")
    return home


def restricted(home):
    return find_files(home, "restricted", settle=None, newest_too=False, today=TODAY)


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "records.jsonl"
    append(path, [{"what": "a\nb", "n": 1}, {"what": "c", "n": 2}])
    append(path, [{"what": "d", "n": 3}])
    return path


def test_a_chain_reads_as_it_was_written_and_each_head_is_of_its_line(chain):
    records, heads = read_chain(chain, KEYS)
    assert [one["n"] for one in records] == [1, 2, 3]
    lines = chain.read_bytes().splitlines(keepends=True)
    assert heads == ["", *(hashlib.sha256(line).hexdigest() for line in lines)]
    assert [json.loads(line)["previous"] for line in lines] == heads[:-1]
    assert chain.stat().st_mode & 0o777 == 0o600


def test_no_file_is_no_record(tmp_path):
    assert read_chain(tmp_path / "none", KEYS) == ([], [""])


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0].replace(b'"n":1', b'"n":9'), *lines[1:]],
        lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:2], lines[2][:-1]],
        lambda lines: [*lines, b"[]\n"],
        lambda lines: [*lines, b"\xff\n"],
    ],
)
def test_a_broken_chain_is_refused_and_nothing_is_added_to_it(chain, change):
    chain.write_bytes(b"".join(change(chain.read_bytes().splitlines(keepends=True))))
    before = chain.read_bytes()
    with pytest.raises(RecordError, match="is not what was recorded after the line before"):
        read_chain(chain, KEYS)
    with pytest.raises(RecordError):
        append(chain, [{"what": "e", "n": 4}])
    assert chain.read_bytes() == before


def test_a_record_of_another_kind_is_refused(chain):
    with pytest.raises(RecordError):
        read_chain(chain, {"what"})


def test_what_is_destroyed_is_recorded_and_what_else_is_missing_is_not_explained(home):
    files, held = restricted(home)
    assert ([path.name for path in files], held) == (["00.parquet", "01.0001.parquet", "01.parquet"], 0)
    destroy(home, files, tier="restricted", **ABOUT)
    assert not any(path.exists() for path in files)
    assert set(read_destroyed(home).values()) == {"restricted: destroyed on 2027-01-31"}
    with pytest.raises(schema.TableError, match=r"destroyed on 2027-01-31, as .*destroyed\.jsonl records"):
        schema.read(files[0])
    assert "missing, though a record names it" in say_missing(home.examined / "02.parquet")


def test_an_interrupted_destruction_is_finished_by_the_same_call_with_one_record(home):
    files, _ = restricted(home)
    kept = {path: path.read_bytes() for path in files}
    destroy(home, files, tier="restricted", **ABOUT)
    recorded = home.destroyed.read_bytes()
    for path in files[1:]:
        path.write_bytes(kept[path])  # as a kill after the first file leaves it
    assert list(read_destroyed(home)) == files[:1]
    destroy(home, restricted(home)[0], tier="restricted", **ABOUT)
    assert not any(path.exists() for path in files)
    assert home.destroyed.read_bytes() == recorded


def test_a_file_that_came_back_as_another_is_recorded_anew(home):
    files, _ = restricted(home)
    destroy(home, files, tier="restricted", **ABOUT)
    files[0].write_bytes(b"examined again")
    destroy(home, restricted(home)[0], tier="restricted", **ABOUT)
    records, _ = read_chain(home.destroyed, {"tier", "files", *ABOUT})
    assert [len(one["files"]) for one in records] == [3, 1]


def test_nothing_is_unlinked_while_the_record_of_destructions_is_broken(home):
    home.destroyed.write_text("{}\n")
    files, _ = restricted(home)
    with pytest.raises(RecordError):
        destroy(home, files, tier="restricted", **ABOUT)
    assert all(path.exists() for path in files)


def test_the_lock_stays_when_the_journal_goes(home):
    files, held = find_files(home, "journal", settle=None, newest_too=False, today=TODAY)
    assert ([path.name for path in files], held) == (["config"], 0)


def test_shards_on_hold_stay_until_their_day_has_passed(home):
    home.holds.write_text('[[hold]]\nshard = "01"\nuntil = 2027-01-31\nby = "A. Name"\n')
    assert held_shards(home, today=TODAY) == {"01"}
    files, held = restricted(home)
    assert ([path.name for path in files], held) == (["00.parquet", "01.0001.parquet"], 1)
    sealed, held = find_files(home, "sealed", settle=None, newest_too=False, today=TODAY)
    assert ([path.name for path in sealed], held) == (["00.0001.age", "01.0001.0001.age"], 1)
    assert held_shards(home, today=date(2027, 2, 1)) == set()


@pytest.mark.parametrize(
    "text",
    [
        '[[hold]]\nshard = "0l"\nuntil = 2027-01-31\nby = "A"\n',
        '[[hold]]\nshard = "01"\nuntil = "2027-01-31"\nby = "A"\n',
        '[[hold]]\nshard = "01"\nuntil = 2027-01-31\n',
        '[hold]\nshard = "01"\n',
        "hold = 1\n",
        "not toml",
        "",
    ],
)
def test_holds_that_cannot_be_read_stop_every_destruction(home, text):
    home.holds.write_text(text)
    with pytest.raises(RecordError, match="nothing is destroyed until it is put right"):
        restricted(home)
