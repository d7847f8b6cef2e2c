"""What a settle leaves behind for those who do not trust it, and what `verify` makes of it."""

import base64
import json
import shutil
from random import Random

import pyarrow.parquet as pq
import pytest
from in_process import call
from scrapes import Scrape, write_list, write_plain_shards

from manifests.audit.entries import opens
from manifests.audit.log import Log
from manifests.audit.note import NoteKey
from manifests.audit.tiles import Tiles
from manifests.signers import FileSigner


def make(root):
    """A run with a log, then a second settle with another list."""
    made = Scrape.make(root)
    write_plain_shards(made.shards, 3, 4)
    done = call("keys", "new", made.root / "outside" / "key", "--origin", "example.org/scrub")
    assert done.code == 0, done.err
    made.settings["log"] = {
        "origin": "example.org/scrub",
        "key": "outside/key",
        "checkpoint_store": "outside/checkpoint",
    }
    made.settings["dataset"] = {
        "name": "drawn", "description": "drawn shapes", "url": "https://example.org/drawn",
        "license": "https://example.org/license", "creator": "example",
    }  # fmt: skip
    made.write()
    (made.root / "vkey").write_text(done.out.split()[-1])
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    shutil.copy(made.root / "outside" / "checkpoint", made.root / "older")
    write_list(made.root / "lists" / "known.csv", [("md5", b"9" * 16), ("pdq", b"7" * 32)])
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    return make(tmp_path_factory.mktemp("evidence"))


@pytest.fixture
def copy(scrape, tmp_path):
    shutil.copytree(scrape.collection, tmp_path / "collection", symlinks=True)
    return tmp_path / "collection"


def verify(scrape, collection, *options):
    return call("verify", collection, "--public-key", (scrape.root / "vkey").read_text(), *options)


def entries(collection):
    size = int((collection / "log" / "checkpoint").read_text().splitlines()[1])
    return [json.loads(one) for one in Tiles(collection / "log", size).all_entries()]


def test_two_settles_stand_in_the_log_and_everything_agrees(scrape):
    done = verify(scrape, scrape.collection, "--since", scrape.root / "older", "--deep")
    assert done.code == 0, done.err
    assert "receipts, not checked here" in done.out
    assert "signed by example.org/scrub" in done.out
    assert "continues the 15 entries" in done.out
    kinds = [one["kind"] for one in entries(scrape.collection)]
    once = [
        *("run-open", "policy", "model", "list", "canary", "override", "review", "destroy", "publish", "screen"),
        *("shard-commit",) * 3, "settle", "run-close",
    ]  # fmt: skip
    assert kinds == [*once, *once][: len(kinds)]
    assert len(kinds) == 2 * len(once)


def test_release_and_log_alone_can_be_checked_by_a_stranger(scrape, tmp_path):
    for name in ("log", "releases"):
        shutil.copytree(scrape.collection / name, tmp_path / "got" / name)
    done = verify(scrape, tmp_path / "got")
    assert done.code == 0, done.err
    assert "reasons, commitments not checked" in done.out
    (path,) = (tmp_path / "got" / "releases" / "0001" / "manifest").glob("00001*")
    path.write_bytes(path.read_bytes()[:-1])
    done = verify(scrape, tmp_path / "got")
    assert done.code == 3
    assert "releases/0001/manifest/00001.parquet: missing, or not what the log names" in done.err


def test_what_was_released_says_so_in_signed_statements(scrape):
    release = scrape.collection / "releases" / "0002"
    files = entries(scrape.collection)[-1]["files"]
    assert set(files) == {"report.html", "croissant.json", "shardscrub.intoto.jsonl"}
    lines = (release / "shardscrub.intoto.jsonl").read_text().splitlines()
    kinds = {json.loads(base64.b64decode(json.loads(one)["payload"]))["predicateType"] for one in lines}
    assert kinds == {"https://slsa.dev/provenance/v1", "https://in-toto.io/attestation/svr/v0.2"}


def test_the_log_says_nothing_of_reasons_lists_or_policy(scrape):
    text = json.dumps(entries(scrape.collection))
    plan = json.loads((scrape.collection / "settled" / "0001" / "plan.json").read_bytes())["decide"]
    for word in ("known", "REMOVE", "SEAL", "QUARANTINE", "rule:", plan["policy"], plan["policy_digest"]):
        assert word not in text
    opened = json.loads((scrape.collection / "settled" / "0001" / "openings.json").read_bytes())
    for entry in entries(scrape.collection)[:15]:
        if "value" in entry:
            assert opens(entry["value"], opened[entry["kind"]])


def test_a_log_that_was_cut_and_signed_again_is_refused(scrape, copy, tmp_path):
    older = tmp_path / "cut"
    key = FileSigner.read("example.org/scrub", scrape.root / "outside" / "key", outside=copy)
    log = Log.open(older, "example.org/scrub", [NoteKey.of(key)])
    log.append(list(Tiles(copy / "log", size_of(copy)).all_entries())[:15])
    log.publish(key)
    shutil.rmtree(copy / "log")
    shutil.copytree(older, copy / "log")
    done = verify(scrape, copy, "--since", scrape.root / "outside" / "checkpoint")
    assert done.code == 3
    assert "entries were taken away" in done.err
    done = verify(scrape, copy)
    assert done.code == 3
    assert "has no entries of settle 0002" in done.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("settled/0001/decisions/00000.parquet", "00000.parquet"),
        ("settled/0002/openings.json", "openings.json"),
        ("settled/0002/report.html", "report.html"),
        ("settled/0002/evidence.json", "evidence.json"),
        ("releases/0002/croissant.json", "croissant.json"),
        ("releases/0002/shardscrub.intoto.jsonl", "shardscrub.intoto.jsonl"),
        ("log/checkpoint", "checkpoint"),
        ("log/tile/0/000.p/30", "000.p/30"),
        ("log/tile/entries/000.p/30", "entries/000.p/30"),
    ],
)
def test_flipped_bits_and_cut_files_are_named(scrape, copy, name, said):
    path, random = copy / name, Random(name)
    data = path.read_bytes()
    for _ in range(4):
        bit = random.randrange(len(data) * 8)
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        done = verify(scrape, copy)
        assert (done.code, said in done.err, "Traceback" in done.err) == (3, True, False), bit
    path.write_bytes(data[: random.randrange(len(data))])
    done = verify(scrape, copy)
    assert (done.code, said in done.err, "Traceback" in done.err) == (3, True, False)


EVIDENCE, CHECKPOINT = "settled/0002/evidence.json", "settled/0002/checkpoint"


@pytest.mark.parametrize("left", [["current"], ["current", EVIDENCE], ["current", EVIDENCE, CHECKPOINT]])
def test_a_settle_that_was_killed_after_its_close_is_finished_by_the_next_run(tmp_path, left):
    made = make(tmp_path)
    before = {path: path.read_bytes() for path in (made.collection / "log").rglob("*") if path.is_file()}
    if len(left) > 1:
        cut_to(made, 29)  # before the close entry
    for name in left:
        (made.collection / name).unlink()
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    assert "nothing to do" in done.out
    assert verify(made, made.collection).code == 0
    if len(left) == 1:
        assert before == {path: path.read_bytes() for path in before}
    assert (made.collection / "current").read_text() == "0002\n"


def test_a_review_before_a_killed_settle_is_finished_leaves_its_openings_as_they_were(tmp_path):
    made = make(tmp_path)
    cut_to(made, 29)
    for name in ("current", EVIDENCE):
        (made.collection / name).unlink()
    (shard, *_) = sorted(path.stem for path in (made.collection / "examined").glob("*.parquet"))
    key = pq.read_table(made.collection / "examined" / f"{shard}.parquet")["key"][0].as_py()
    said = call(
        "review", made.collection, f"{shard}/{key}", "--action", "REMOVE", "--by", "a person", "--why", "seen"
    )
    assert said.code == 0, said.err
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    checked = verify(made, made.collection)
    assert checked.code == 0, checked.err
    found = json.loads((made.collection / "settled" / "0002" / "openings.json").read_bytes())
    for entry in entries(made.collection):
        if entry["kind"] == "review" and entry["settle"] == 2:
            assert opens(entry["value"], found["review"])
            return
    raise AssertionError("the settle logged no reviews")


def size_of(collection):
    return int((collection / "log" / "checkpoint").read_text().splitlines()[1])


def cut_to(made, size):
    """As a kill leaves it: the checkpoint after the settle's entries is the newest."""
    folder, kept = made.collection / "log", made.root / "outside" / "checkpoint"
    key = FileSigner.read("example.org/scrub", made.root / "outside" / "key", outside=folder)
    every = list(Tiles(folder, size_of(made.collection)).all_entries())
    shutil.rmtree(folder)
    log = Log.open(folder, "example.org/scrub", [NoteKey.of(key)])
    log.append(every[:size])
    kept.write_bytes(log.publish(key))


def test_a_log_that_begins_with_a_later_settle_says_nothing_of_the_ones_before(tmp_path):
    made = Scrape.make(tmp_path)
    write_plain_shards(made.shards, 1, 2)
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    done = call("keys", "new", made.root / "outside" / "key", "--origin", "example.org/late")
    made.settings["log"] = {
        "origin": "example.org/late", "key": "outside/key", "checkpoint_store": "outside/checkpoint",
    }  # fmt: skip
    made.write()
    assert "nothing to do" in call("run", made.config, "--workers", 1).out
    assert not (made.collection / "log" / "checkpoint").exists()
    write_list(made.root / "lists" / "known.csv", [("md5", b"9" * 16), ("pdq", b"7" * 32)])
    assert call("run", made.config, "--workers", 1).code == 0
    assert {one["settle"] for one in entries(made.collection)} == {2}
    assert call("verify", made.collection).code == 0
