"""Erasure and opt-out: what is named by URL, domain or uid goes with the next settle, and it alone."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from in_process import call, message
from scrapes import Scrape, draw, encode, jpeg, list_store, write_list, write_tar

from classifiers.hashes.digests import take_digests
from manifests.handover import open_kept
from pipeline.lists.imports import import_list
from pipeline.lists.manifest import About

HOSTS = {"by_domain": "photos.gone.example", "sealed": "photos.gone.example"}
KEYS = ("by_url", "by_domain", "by_uid", "sealed", "near", "kept", "like")
LISTED = ("by_url", "by_domain", "by_uid")
POLICY = """
name = "own"
required = ["list.csam.exact"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1 or list.other.exact >= 1"
action = "SEAL"
"""
HIDES = """
name = "own"
include = ["lists-only"]
[sensitive]
rules = ["listed-other"]
"""


def picture(key: str) -> bytes:
    return encode(draw(0), "JPEG", quality=70) if key == "near" else jpeg(KEYS.index(key))


def url_of(key: str) -> str:
    return f"http://{HOSTS.get(key, 'stays.example')}/mark-{key}.jpg"


def write_input(scrape: Scrape) -> None:
    for shard, keys in (("00", KEYS[:4]), ("01", KEYS[4:])):
        members = []
        for key in keys:
            members += [(f"{key}.jpg", picture(key)), (f"{key}.json", json.dumps({"url": url_of(key)}).encode())]
        write_tar(scrape.shards / f"{shard}.tar", members)
    # No URL at all: in no list of URLs, and kept.
    write_tar(scrape.shards / "02.tar", [("bare.jpg", jpeg(100))])
    entries = [("md5", take_digests(picture("sealed")).md5), ("pdq", bytes(range(32)))]
    write_list(scrape.root / "lists" / "known.csv", entries)


def import_names(scrape: Scrape, list_id: str, text: str, purpose: str, effect: str = "remove") -> None:
    path = scrape.root / f"{list_id}.csv"
    path.write_text(text)
    import_list(list_store(scrape.root), list_id, [path], About(purpose=purpose), effect=effect)


def fates(scrape: Scrape, number: int) -> dict[str, tuple[object, ...]]:
    return {row["key"]: (row["action"], row["reason"], row["withheld"]) for row in scrape.decisions(number)}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Settled once, with digests alone."""
    scrape = Scrape.make(tmp_path_factory.mktemp("urls") / "scrape")
    write_input(scrape)
    # As somebody writes them who asks for erasure: another scheme, with www., the domain above.
    uid = hashlib.sha256(picture("by_uid")).hexdigest()[:32]
    names = f"url,domain,uid\nHTTPS://www.Stays.example/mark-by_url.jpg#top,,\n,Gone.example,\n,,{uid}\n"
    import_names(scrape, "erased", names, "erasure")
    import_names(scrape, "pages", f"url\n{url_of('kept')}\n", "csam", "case")
    assert call("run", scrape.config, "--workers", 1).code == 0
    return scrape


@pytest.fixture
def scrape(first, tmp_path):
    shutil.copytree(first.root, tmp_path / "scrape")
    return Scrape(tmp_path / "scrape", first.identity, {**first.settings})


def use(scrape: Scrape, *lists: str, **settings: object) -> None:
    scrape.settings |= {"list": [{"id": name} for name in lists], **settings}
    scrape.write()


def test_the_next_settle_removes_what_is_named_and_nothing_else(scrape):
    before = fates(scrape, 1)
    assert {key for key, (action, *_) in before.items() if action == "KEEP"} == {*KEYS, "bare"} - {"sealed"}
    sealed = sorted(path.name for path in (scrape.collection / "sealed").iterdir())
    use(scrape, "known", "erased")
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    changed = dict.fromkeys(LISTED, ("REMOVE", "rule:listed-other", False))
    assert fates(scrape, 2) == {**before, **changed}
    assert before["sealed"] == (None, None, True)
    assert {one.key.partition("/")[2] for one in open_kept(scrape.collection)} == {"near", "kept", "like", "bare"}
    assert call("verify", scrape.collection).code == 0
    assert {row["key"] for row in scrape.sealed()} == {"sealed"}
    assert sealed == sorted(path.name for path in (scrape.collection / "sealed").iterdir() if "0001" in path.name)
    told = (done.out + done.err).encode()
    release = [path for path in (scrape.collection / "releases" / "0002").rglob("*") if path.is_file()]
    for data in (told, *(path.read_bytes() for path in release)):
        for key in LISTED:
            marks = (f"mark-{key}".encode(), key.encode(), hashlib.sha256(picture(key)).digest()[:16])
            assert not any(mark in data for mark in marks)


@pytest.mark.parametrize("hidden", [False, True])
def test_an_examine_that_has_the_list_ends_as_a_settle_that_gets_it(scrape, hidden):
    (scrape.root / "own.toml").write_text(HIDES)
    policy = {"file": "own.toml"} if hidden else scrape.settings["policy"]
    use(scrape, "known", "erased", policy=policy)
    assert call("settle", scrape.config, "--workers", 1).code == 0
    use(scrape, "known", "erased", collection="other")
    assert call("run", scrape.config, "--workers", 1).code == 0
    later = fates(scrape, 2)
    assert {key for key, (_, _, withheld) in later.items() if withheld} == {"sealed", *(LISTED if hidden else ())}
    files = {path.name: path.read_bytes() for path in (scrape.collection / "releases/0002/manifest").iterdir()}
    other = Scrape(scrape.root / "nothing", scrape.identity)
    other.root.mkdir()
    (scrape.root / "other").rename(other.collection)
    assert fates(other, 1) == later
    made = (other.collection / "releases/0001/manifest").iterdir()
    assert {path.name: path.read_bytes() for path in made} == files


def test_a_url_of_a_list_of_any_purpose_is_removed_and_makes_no_case(scrape):
    use(scrape, "known", "pages")
    assert call("settle", scrape.config, "--workers", 1).code == 0
    assert fates(scrape, 2)["kept"] == ("REMOVE", "rule:listed-other", False)
    assert {row["key"] for row in scrape.sealed()} == {"sealed"}


def test_no_seal_rule_may_read_what_a_url_alone_can_make_true(scrape):
    (scrape.root / "own.toml").write_text(POLICY)
    use(scrape, "known", policy={"file": "own.toml"})
    assert call("policy", "check", scrape.config).code == 0
    use(scrape, "known", "erased")
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 2
    assert "names a place and no content" in message(done)
    assert not (scrape.collection / "settled" / "0002").exists()


def test_a_list_of_names_feeds_only_what_is_not_required_of_digests(scrape):
    (scrape.root / "own.toml").write_text(POLICY.replace("list.csam", "list.other").replace("SEAL", "REMOVE"))
    use(scrape, "pages", policy={"file": "own.toml"})
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 2
    assert "can never speak" in message(done)
