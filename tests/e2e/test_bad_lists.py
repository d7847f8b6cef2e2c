"""Lists that must not be used: a run refuses them by name, prints no entry, commits and releases nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from in_process import call, files
from listed_scrapes import change_manifest, spoil_canary, store_options
from scrapes import Command, Scrape, jpeg, list_store, write_list, write_plain_shards, write_tar

from manifests.cases import new_identity

RANDOM = np.random.default_rng(11)
ENTRIES = [("md5", RANDOM.bytes(16)) for _ in range(4)] + [("pdq", RANDOM.bytes(32)) for _ in range(4)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """A scrape with the list `known`, version 2, examined and released."""
    scrape = Scrape.make(tmp_path_factory.mktemp("bad-lists") / "scrape")
    write_list(scrape.root / "lists" / "known.csv", ENTRIES)
    for shard in range(2):
        members = [(f"{shard}{number}.jpg", jpeg(10 * shard + number)) for number in range(2)]
        write_tar(scrape.shards / f"{shard}.tar", [*members, (f"{shard}9.jpg", jpeg(9)[:-600])])
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape


@pytest.fixture
def scrape(finished: Scrape, tmp_path: Path) -> Scrape:
    """A copy of it to spoil."""
    shutil.copytree(finished.root, tmp_path / "scrape")
    return Scrape(tmp_path / "scrape", finished.identity, {**finished.settings})


def shows_no_entry(done: Command, more: Iterable[bytes] = ()) -> bool:
    text = (done.out + done.err).lower()
    return not any(value.hex()[:16] in text for value in [*(value for _, value in ENTRIES), *more])


def lists(scrape: Scrape, verb: str, *arguments: object) -> None:
    done = call("lists", verb, *arguments, *store_options(scrape, key=verb not in ("remove", "withdraw")))
    assert done.code == 0, done.err


def import_again(scrape: Scrape, list_id: str = "known", rows=ENTRIES, **about: object) -> None:
    write_list(scrape.root / "lists" / f"{list_id}.csv", rows, **about)


def withdrawn(scrape: Scrape) -> None:
    lists(scrape, "withdraw", "known", "--why", "the agreement ended", "--yes")


def removed(scrape: Scrape) -> None:
    lists(scrape, "remove", "known", "--version", 1, "--yes")
    scrape.settings["list"] = [{"id": "known", "version": 1}]


def expired(scrape: Scrape) -> None:
    import_again(scrape, expires="2020-02-29")


def too_old(scrape: Scrape) -> None:
    scrape.settings["list"] = [{"id": "known", "max_age_days": 30}]
    long_ago = datetime.now(UTC) - timedelta(days=31, hours=1)
    change_manifest(list_store(scrape.root), "known", imported_at=long_ago.isoformat())


def entries_file(scrape: Scrape) -> Path:
    return list_store(scrape.root).folder("known", 2) / "entries.age"


def one_byte_changed(scrape: Scrape) -> None:
    data = bytearray(entries_file(scrape).read_bytes())
    data[len(data) // 2] ^= 1
    entries_file(scrape).write_bytes(data)


def cut_short(scrape: Scrape) -> None:
    entries_file(scrape).write_bytes(entries_file(scrape).read_bytes()[:-1])


def entries_gone(scrape: Scrape) -> None:
    entries_file(scrape).unlink()


def other_set_digest(scrape: Scrape) -> None:
    change_manifest(list_store(scrape.root), "known", set_digest="0" * 64)


def manifest_of_another(scrape: Scrape) -> None:
    change_manifest(list_store(scrape.root), "known", id="another")


def manifest_damaged(scrape: Scrape) -> None:
    (entries_file(scrape).parent / "manifest.json").write_text("{")


def wrong_key(scrape: Scrape) -> None:
    key = scrape.root / "lists.key"
    key.write_text(new_identity()[0])


def open_key(scrape: Scrape) -> None:
    (scrape.root / "lists.key").chmod(0o640)


def key_gone(scrape: Scrape) -> None:
    (scrape.root / "lists.key").unlink()


def key_in_store(scrape: Scrape) -> None:
    (scrape.root / "lists.key").rename(scrape.root / "list-store" / "lists.key")
    scrape.settings["lists"] = {**scrape.settings["lists"], "key": "list-store/lists.key"}


def not_there(scrape: Scrape) -> None:
    scrape.settings["list"] = [{"id": "known"}, {"id": "missing"}]


def no_such_version(scrape: Scrape) -> None:
    scrape.settings["list"] = [{"id": "known", "version": 7}]


def other_codes(scrape: Scrape) -> None:
    import_again(scrape, "codes", [("phash", RANDOM.bytes(8)), ("phash", b"\x0f\xf0" * 4)])
    scrape.settings["list"] = [{"id": "known"}, {"id": "codes"}]


REFUSED: dict[Callable[[Scrape], None], str] = {
    not_there: "list 'missing': .* has no such list; it has known",
    no_such_version: "list 'known' .*: no version 7; it has 1, 2",
    withdrawn: rf"list 'known' was withdrawn on {datetime.now(UTC).year}-.*\(the agreement ended\)",
    removed: "list 'known' .*: no version 1; it has 2",
    expired: "list known@3 expired on 2020-02-29; import the owner's newest version",
    too_old: "list known@2 was imported 31 days ago, more than max_age_days = 30",
    one_byte_changed: "list known@2: .*entries.age: changed on disk",
    cut_short: "list known@2: .*entries.age: changed on disk",
    entries_gone: "list known@2: .*entries.age: no such file",
    other_set_digest: "list known@2: .*does not agree with its manifest.json",
    manifest_of_another: "known/0002/manifest.json: is the manifest of another@2",
    manifest_damaged: "known/0002/manifest.json: damaged",
    wrong_key: "list known@2: .*lists.key is not the key that it was imported with",
    open_key: r"lists.key: others can read this key \(mode 0640\); chmod 600 it",
    key_gone: "lists.key: no such key file",
    key_in_store: "lists.key: the key lies in the store",
    other_codes: "list 'codes' holds phash codes, which .hashes. kinds does not take",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda one: one.__name__)
def test_a_run_refuses_a_list_that_must_not_be_used(scrape: Scrape, spoil: Callable[[Scrape], None]) -> None:
    spoil(scrape)
    collection = scrape.collection
    before = files(collection)
    for folder, verb in (("collection", "run"), ("collection", "settle"), ("new", "run"), ("new", "examine")):
        scrape.settings["collection"] = folder
        scrape.write()
        done = call(verb, scrape.config, "--workers", 1)
        assert done.code == 2
        assert_matches(done.err, REFUSED[spoil])
        assert done.out == ""
        assert shows_no_entry(done)
    assert files(collection) == before
    assert not (scrape.root / "new").exists()


def assert_matches(text: str, pattern: str) -> None:
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(text)


@pytest.mark.parametrize("text", ["", "algorithm,value\n", "md5,category\n"])
def test_an_empty_delivery_is_refused_and_the_version_before_stands(scrape: Scrape, text: str) -> None:
    path = scrape.root / "empty.csv"
    path.write_text(text)
    before = files(list_store(scrape.root).root)
    wanted = ("--id", "known", "--purpose", "csam", "--effect", "case", "--format", "plain")
    done = call("lists", "import", path, *store_options(scrape), *wanted)
    assert done.code in (2, 4)
    assert done.err.startswith("error: ")
    assert files(list_store(scrape.root).root) == before
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0
    assert "nothing to do: settle 0001" in done.out


CANARIES = [("md5", 0), ("pdq", 0), ("pdq", 31)]


@pytest.mark.parametrize(("algorithm", "distance", "workers"), [(*one, 1) for one in CANARIES] + [("pdq", 31, 2)])
def test_a_run_without_its_canaries_examines_nothing(scrape: Scrape, algorithm, distance, workers) -> None:
    store = list_store(scrape.root)
    scrape.settings["collection"] = "new"
    scrape.write()
    new, ours = scrape.root / "new", canary_entries(scrape)
    good = spoil_canary(store, "known", algorithm, distance)
    done = call("run", scrape.config, "--workers", workers)
    assert_missed(done, algorithm, distance, ours + canary_entries(scrape))
    for place in ("examined", "sealed", "settled", "releases"):
        assert list((new / place).rglob("*")) == []
    assert not (new / "current").exists()
    restore(good)
    if workers > 1:
        return
    assert call("run", scrape.config, "--workers", 1).code == 0
    assert call("verify", new).code == 0
    assert "all 3 canaries of the lists were found" in call("status", new, "--restricted").out


@pytest.mark.parametrize(("algorithm", "distance"), CANARIES)
def test_a_settle_or_a_retry_without_its_canaries_releases_nothing(scrape: Scrape, algorithm, distance) -> None:
    before = {name: one for name, one in files(scrape.collection).items() if not name.startswith("journal/")}
    import_again(scrape)
    ours = canary_entries(scrape)
    good = spoil_canary(list_store(scrape.root), "known", algorithm, distance)
    for command in (
        ("settle", scrape.config),
        ("run", scrape.config),
        ("retry", scrape.collection, "--reasons", "truncated"),
    ):
        write_note(scrape)
        done = call(*command, "--workers", 1)
        assert_missed(done, algorithm, distance, ours + canary_entries(scrape))
        after = {name: one for name, one in files(scrape.collection).items() if not name.startswith("journal/")}
        assert after == before, command
    restore(good)
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    assert (scrape.collection / "current").read_text() == "0002\n"
    assert call("verify", scrape.collection).code == 0


def write_note(scrape: Scrape) -> None:
    """The journal of a copied collection names the configuration that it was copied from."""
    (scrape.collection / "journal" / "config").write_text(str(scrape.config))


def canary_entries(scrape: Scrape) -> list[bytes]:
    _, stored = list_store(scrape.root).read("known")
    return [one.entry for one in stored.canaries]


def assert_missed(done: Command, algorithm: str, distance: int, entries: list[bytes]) -> None:
    assert done.code == 1
    assert_matches(done.err, f"list 'known': its {algorithm} canary at a distance of {distance} was missed")
    assert "release " not in done.out
    assert shows_no_entry(done, entries)


def restore(saved: dict[Path, bytes]) -> None:
    for path, data in saved.items():
        path.write_bytes(data)


def test_codes_without_the_view_that_every_picture_has_are_refused(tmp_path):
    scrape = Scrape.make(tmp_path, hashes={"views": ["stored", "thumbnail"]})
    write_plain_shards(scrape.shards, shards=1, samples=1)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 2
    assert "list 'known' holds pdq codes, and [hashes] views does not take pictures as they are shown" in done.err
    assert not scrape.collection.exists()
