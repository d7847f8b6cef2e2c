"""A collection that lives in a bucket: the bytes that a folder has, one winner, nothing twice, nothing left."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass

import pytest
from buckets import broken, machine, what_counts
from in_process import call, message
from object_store import BUCKET, KEY_ID, SECRET, Fault, ObjectStore, serve
from scrapes import Scrape, jpeg, write_list, write_tar

from manifests.collection import Collection
from manifests.verify import verify
from pipeline.errors import ExitCode

SHARDS = ("00000", "00001")


@pytest.fixture(scope="module")
def server():
    with serve() as store:
        yield store


@pytest.fixture
def store(server):
    server.faults.clear()
    server.on_request = None
    for name in server.names():
        server.drop(name)
    return server


def picture(shard: str, name: str) -> bytes:
    return jpeg(["listed", "later", "kept"].index(name) + 10 * int(shard))


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    scrape = Scrape.make(tmp_path_factory.mktemp("bucket"))
    for shard in SHARDS:
        members = [(f"{name}.jpg", picture(shard, name)) for name in ("listed", "later", "kept")]
        write_tar(scrape.shards / f"{shard}.tar", [*members, ("cut.jpg", picture(shard, "kept")[:700])])
    for names in (("listed",), ("listed", "later")):  # versions 2 and 3
        entries = [("md5", hashlib.md5(picture(shard, name)).digest()) for shard in SHARDS for name in names]
        write_list(scrape.root / "lists/known.csv", [*entries, ("pdq", bytes(range(32)))])
    return scrape


@dataclass(frozen=True)
class Truth:
    """What a folder without a bucket ends as: after one settle, and after a second with a longer list."""

    once: dict[str, str]
    twice: dict[str, str]


@pytest.fixture(scope="module")
def truth(scrape) -> Truth:
    local = machine(scrape, "local", None)
    states = []
    for version in (2, 3):
        with_version(local, version)
        done(local)
        states.append(what_counts(local))
    return Truth(*states)


_made = iter(range(1000))


def on_a_machine(scrape: Scrape, store: ObjectStore, *, version: int = 2) -> Scrape:
    return machine(scrape, f"machine{next(_made)}", store, list=[{"id": "known", "version": version}])


def with_version(scrape: Scrape, version: int) -> None:
    scrape.settings["list"] = [{"id": "known", "version": version}]
    scrape.write()


def run(scrape: Scrape, command: str = "run", *arguments: object):
    done = call(command, scrape.config, *arguments)
    assert not any(word in done.out + done.err for word in (SECRET, KEY_ID, "Signature"))
    return done


def done(scrape: Scrape, command: str = "run", *arguments: object) -> str:
    ended = run(scrape, command, *arguments)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.fixture(scope="module")
def finished(scrape, server) -> tuple[Scrape, dict[str, bytes]]:
    """A run into the bucket that has ended, and what it left there."""
    one = on_a_machine(scrape, server)
    done(one)
    return one, {name: server.data(name) for name in server.names()}


@pytest.fixture
def one(scrape, store, finished) -> Scrape:
    """A machine that has run, as is the bucket; a copy of its own for each test."""
    made = on_a_machine(scrape, store)
    shutil.copytree(finished[0].collection, made.collection)
    for name, data in finished[1].items():
        store.fill(name, data)
    return made


def test_a_run_ends_as_in_a_folder_and_a_lost_folder_is_had_back_with_nothing_examined_again(
    scrape, store, truth, one
):
    assert what_counts(one) == truth.once
    assert broken(store) == []
    written = [
        *(path.read_bytes() for path in one.root.rglob("*") if path.is_file()),
        *map(store.data, store.names()),
    ]
    assert not any(word.encode() in data for data in written for word in (SECRET, KEY_ID))
    shutil.rmtree(one.collection)
    assert "examined 0 shards; 2 were examined before" in done(one)
    assert what_counts(one) == truth.once
    assert verify(one.collection).problems == []
    two = on_a_machine(scrape, store)
    done(two, "pull")
    assert what_counts(two) == truth.once
    assert {path.stat().st_mode & 0o777 for path in (two.collection / "examined").iterdir()} == {0o600}
    with_version(two, 3)
    done(two)
    assert what_counts(two) == truth.twice
    assert store.data("c/current") == b"0002\n"
    done(one, "pull")
    assert what_counts(one) == truth.twice
    for name in store.names():  # a bucket that is lost is filled again from a whole folder
        store.drop(name)
    assert "nothing to do" in done(two, "settle")
    assert broken(store) == []
    assert len(store.names("c/releases/")) == len(list((two.collection / "releases").rglob("*.*")))


def test_what_a_settle_withholds_or_a_person_destroys_is_nowhere_in_the_bucket(scrape, store, truth, one):
    before = {name: store.data(name) for name in store.names("c/examined/") if ".parquet." in name}
    with_version(one, 3)
    in_the_way = one.collection / "settled/0002/summary.json"
    in_the_way.mkdir(parents=True)
    assert run(one).code == ExitCode.FAILED  # after it withheld, before it closed
    assert not set(before) & set(store.names())
    assert "c/claim" not in store.names()
    in_the_way.rmdir()
    done(one)
    assert what_counts(one) == truth.twice
    after = [name for name in store.names("c/examined/") if ".parquet." in name]
    assert len(after) == len(before) == 2
    assert not set(after) & set(before)
    assert broken(store) == []
    two = on_a_machine(scrape, store, version=3)
    done(two, "pull")
    signed = ("--by", "a person", "--why", "a reason", "--yes")
    assert call("destroy", one.collection, "--tier", "release", "--settle", 1, *signed).code == 0
    assert call("destroy", one.collection, "--tier", "restricted", *signed).code == 0
    assert store.names("c/releases/0001") == []
    assert [name for name in store.names("c/examined/") if ".parquet." in name] == []
    assert store.names("c/releases/0002") != []
    done(two, "pull")
    assert what_counts(two) == what_counts(one)
    assert verify(two.collection).problems == []


def test_of_two_writers_of_a_shard_one_wins_and_both_end_alike(scrape, store, truth):
    one, two = (on_a_machine(scrape, store) for _ in range(2))
    raced: list[str] = []

    def race(method: str, path: str) -> None:
        if method == "PUT" and "/marks/00000.json" in path and not raced:
            raced.append(path)
            done(two, "examine", "--part", "1/2")

    store.on_request = race
    assert "examined 2 shards" in done(one)
    assert raced
    assert what_counts(one) == truth.once
    assert broken(store) == []
    sealed = {name for name in store.names("c/sealed/") if name.startswith("c/sealed/00000.")}
    assert len(sealed) == 1
    done(two, "pull")
    for folder in ("sealed", "examined"):
        theirs = {path.name: path.read_bytes() for path in (two.collection / folder).iterdir()}
        assert theirs == {path.name: path.read_bytes() for path in (one.collection / folder).iterdir()}


def test_machines_with_parts_of_the_shards_make_one_collection(scrape, store, truth):
    parts = [on_a_machine(scrape, store) for _ in range(2)]
    for number, each in enumerate(parts, start=1):
        assert "examined 1 shards" in done(each, "examine", "--part", f"{number}/2")
    assert not (parts[1].collection / "examined/00000.parquet").exists()
    done(parts[1], "settle")
    assert what_counts(parts[1]) == truth.once


def test_a_log_is_there_to_follow_and_goes_on_from_another_machine(scrape, store):
    key = scrape.root / "outside/key"
    vkey = call("keys", "new", key, "--origin", "example.org/scrub").out.split()[-1]
    kept = str(scrape.root / "outside/checkpoint")
    log = {"origin": "example.org/scrub", "key": str(key), "checkpoint_store": kept}
    one, two = (
        machine(scrape, f"log{n}", store, list=[{"id": "known", "version": n + 2}], log=log) for n in (0, 1)
    )
    done(one)
    done(two)
    shutil.rmtree(one.collection)
    done(one, "pull")
    for name in store.names("c/log/"):
        path = scrape.root / "follower" / name.removeprefix("c/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.data(name))
    for folder in (one.collection, two.collection, scrape.root / "follower"):
        verified = call("verify", folder, "--public-key", vkey)
        assert verified.code == 0, verified.err
    assert what_counts(one) == what_counts(two)


def test_reviews_of_two_machines_meet_and_what_was_changed_on_both_sides_is_refused(scrape, store, one):
    two = on_a_machine(scrape, store)
    done(two, "pull")
    about = ("--action", "REMOVE", "--by", "a person", "--why", "a reason")
    assert call("review", one.collection, "00000/kept", *about).code == 0
    assert call("review", two.collection, "00001/kept", *about).code == 0
    assert len((two.collection / "reviews.jsonl").read_bytes().splitlines()) == 2
    done(one)
    assert {row["key"] for row in one.decisions(2) if row["reason"] == "review"} == {"kept"}
    assert sum(row["reason"] == "review" for row in one.decisions(2)) == 2
    assert call("publish", one.collection, "--to", one.root / "public").code == ExitCode.VERIFICATION
    assert "c/claim" not in store.names()
    done(two, "pull")
    lost = two.collection / "settled/0001/decisions/00001.parquet"
    lost.unlink()
    hold = '[[hold]]\nshard = "{}"\nuntil = 2999-01-01\nby = "a person"\n'
    for each, shard in ((one, "00000"), (two, "00001")):
        (each.collection / "holds.toml").write_text(hold.format(shard))
    assert call("review", one.collection, "00000/later", *about).code == 0
    ended = run(two, "pull")
    assert ended.code == ExitCode.INPUT
    assert "holds.toml: was changed here and in s3://drawings/c" in message(ended)
    (two.collection / "holds.toml").unlink()
    done(two, "pull")
    assert lost.exists()
    assert Collection(two.collection).holds.read_text() == hold.format("00000")


def test_throttling_and_server_errors_are_borne_and_a_store_that_is_gone_ends_a_run_that_goes_on(
    scrape, store, truth
):
    one = on_a_machine(scrape, store)
    for method, part, after in (("PUT", "/marks/", True), ("PUT", "/head", True), ("GET", "list-type", False)):
        store.faults.append(Fault(method, part, 503, "SlowDown", after=after))
    store.faults += [
        Fault("PUT", "/sealed/", 500, "InternalError"),
        Fault("PUT", "/claim", 500, "InternalError", after=True),
    ]
    done(one)
    assert what_counts(one) == truth.once
    assert broken(store) == []
    assert not any(fault.times for fault in store.faults)
    with_version(one, 3)
    one.settings["remote"] = store.settings(attempts=1)
    one.write()
    store.faults = [Fault("PUT", "/releases/0002", 503, "SlowDown", 99)]
    ended = run(one)
    assert ended.code == ExitCode.FAILED
    assert "no answer" in ended.err
    assert broken(store) == []
    two = on_a_machine(scrape, store, version=3)
    assert "is lost, remove this object" in message(busy := run(two, "settle"))
    assert busy.code == ExitCode.BUSY
    store.faults.clear()
    assert "nothing to do" in done(one)
    done(two)
    assert what_counts(one) == what_counts(two) == truth.twice


def test_a_folder_and_a_bucket_that_are_not_of_one_collection_are_not_mixed(scrape, store, one):
    alone = machine(scrape, "alone", None, list=[{"id": "known", "version": 2}])
    done(alone)
    alone.settings |= {"bucket": one.settings["bucket"], "remote": store.settings()}
    alone.write()
    ended = run(alone)
    assert "which holds another collection" in message(ended)
    assert ended.code == ExitCode.INPUT
    alone.settings["bucket"] = f"s3://{BUCKET}/other"
    alone.write()
    assert "nothing to do" in done(alone)  # and goes up, to a place of its own
    assert len(store.names("other/releases/")) == len(store.names("c/releases/")) > 0
    assert len(store.names("other/marks/")) == len(SHARDS)
    one.settings["bucket"] = f"s3://{BUCKET}/other"
    one.write()
    assert "this folder is a copy of s3://drawings/c" in message(run(one))
    del one.settings["bucket"]
    one.write()
    assert run(one).code == ExitCode.USAGE
    for bad in (
        "folder",
        "https://example.invalid/x",
        f"s3://{KEY_ID}:{SECRET}@{BUCKET}/c",
        f"s3://{BUCKET}/c?x=1",
    ):
        one.settings["bucket"] = bad
        one.write()
        assert "bucket: expected a URL such as s3://" in message(run(one))
