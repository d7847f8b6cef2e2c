"""One decision for each byte content: copies, and the URLs that removed samples bear."""

import hashlib
import json

import pytest
from in_process import call
from leak_kit import POLICY
from scrapes import Scrape, jpeg, outputs, write_list, write_tar


def sample(key, seed, caption="a drawing", url=None):
    about = {"url": url or f"http://example.invalid/{key}.jpg", "caption": caption}
    return [(f"{key}.jpg", jpeg(seed)), (f"{key}.json", json.dumps(about).encode())]


def make(root, shards, **settings):
    scrape = Scrape.make(root, policy={"file": "policy.toml"}, text={"concepts": ["minor", "sexual"]}, **settings)
    (root / "policy.toml").write_text(POLICY)
    for name, samples in shards.items():
        write_tar(scrape.shards / f"{name}.tar", [member for one in samples for member in one])
    return scrape


def run(scrape, workers=1):
    done = call("run", scrape.config, "--workers", workers)
    assert done.code == 0, done.err
    return done


def found(scrape, number=1):
    return {
        f"{row['shard']}/{row['key']}": (row["action"], row["reason"], row["withheld"])
        for row in scrape.decisions(number)
    }


SHARED_URL = "http://example.invalid/shared.jpg"
SHARDS = {
    "00": [sample("a", 1, "nude statue"), sample("b", 2)],
    "01": [sample("c", 1, url=SHARED_URL), sample("d", 3, "a child")],
    "02": [sample("e", 4, url=SHARED_URL), sample("f", 3), sample("g", 5, "a nude child")],
    "03": [sample("h", 5), sample("i", 4), sample("j", 6), sample("k", 7, url="http://example.invalid/g.jpg")],
}
EXPECTED = {
    "00/a": ("REMOVE", "rule:word", False),
    "00/b": ("KEEP", None, False),
    "01/c": ("REMOVE", "copy", False),
    "01/d": ("QUARANTINE", "rule:child", False),
    "02/e": ("QUARANTINE", "url", False),
    "02/f": ("QUARANTINE", "copy", False),
    "02/g": (None, None, True),
    "03/h": (None, None, True),
    "03/i": ("QUARANTINE", "copy", False),
    "03/j": ("KEEP", None, False),
    "03/k": ("QUARANTINE", "url", False),
}


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    scrape = make(tmp_path_factory.mktemp("copies"), SHARDS)
    run(scrape)
    return scrape


def test_the_strictest_action_holds_wherever_the_bytes_or_the_url_stand(settled):
    assert found(settled) == EXPECTED


def test_a_copy_of_a_withheld_image_is_sealed_with_the_reason(settled):
    rows = {row["key"]: (row["action"], row["rule"], row["reason"]) for row in settled.sealed()}
    assert rows == {"g": ("REMOVE", "hidden", "rule:hidden"), "h": ("REMOVE", None, "copy")}


def test_nothing_of_a_withheld_copy_stays_in_clear(settled):
    marks = [hashlib.sha256(jpeg(5)).digest(), b"example.invalid/h.jpg", b"example.invalid/g.jpg"]
    for path in settled.collection.rglob("*"):
        if path.is_file() and path.suffix != ".age":
            data = path.read_bytes()
            # 03/k bears the URL of g by itself: it is set aside, in the restricted tier alone.
            allowed = b"example.invalid/g.jpg" if path.name.startswith("03") else b"-"
            assert not any(mark in data for mark in marks if mark != allowed), path


def test_the_same_whatever_the_order_and_the_workers(settled, tmp_path):
    shuffled = {name: SHARDS[name] for name in reversed(SHARDS)}
    other = make(tmp_path, shuffled)
    other.settings["sealed"] = settled.settings["sealed"]
    other.write()
    run(other, workers=2)
    assert outputs(other.collection, settled.identity) == outputs(settled.collection, settled.identity)


def test_verify_passes_and_settling_again_does_nothing(settled):
    assert call("verify", settled.collection).code == 0
    assert "nothing to do" in call("settle", settled.config, "--workers", 1).out


def test_a_copy_that_comes_a_night_later_meets_what_was_withheld(tmp_path):
    first = make(tmp_path, {"00": SHARDS["02"]})
    run(first)
    write_tar(first.shards / "01.tar", [*sample("x", 5), *sample("y", 8, url="http://example.invalid/g.jpg")])
    run(first)
    later = found(first, 2)
    assert later["01/x"] == (None, None, True)
    assert later["01/y"] == ("QUARANTINE", "url", False)
    assert [row["reason"] for row in first.sealed() if row["key"] == "x"] == ["copy"]


def test_without_its_secret_a_collection_refuses_rather_than_forget(tmp_path):
    scrape = make(tmp_path, {"00": SHARDS["02"]})
    run(scrape)
    (scrape.collection / "secret").unlink()
    write_list(tmp_path / "lists" / "known.csv", [("md5", b"1" * 16)])
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 1
    assert "what was withheld is known by it alone" in done.err


def test_the_copies_of_a_list_match_are_cases_of_their_own(tmp_path):
    scrape = make(tmp_path, {"00": [sample("a", 1), sample("b", 2)], "01": [sample("c", 1)]})
    write_list(tmp_path / "lists" / "known.csv", [("md5", hashlib.md5(jpeg(1)).digest())])
    run(scrape)
    assert {row["key"]: row["action"] for row in scrape.sealed()} == {"a": "SEAL", "c": "SEAL"}


def test_a_shard_that_comes_after_an_interrupted_settle_still_counts_for_the_others(tmp_path, monkeypatch):
    scrape = make(tmp_path, {"00": [sample("a", 1), sample("b", 2)]})

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.settles.close_settle", stop)
        assert call("run", scrape.config, "--workers", 1).code == 130
    assert (scrape.collection / "settled" / "0001" / "decisions" / "00.json").exists()
    write_tar(scrape.shards / "01.tar", sample("c", 1, "nude statue"))
    run(scrape)
    assert found(scrape) == {
        "00/a": ("REMOVE", "copy", False),
        "00/b": ("KEEP", None, False),
        "01/c": ("REMOVE", "rule:word", False),
    }
