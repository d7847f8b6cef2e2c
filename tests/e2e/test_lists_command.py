"""`shardscrub lists`: import, show, check, diff, remove, withdraw, keys; as a user runs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from in_process import call
from scrapes import STORE, Command, Scrape, shardscrub, write_plain_shards, write_random_list

COUNT = 5


def line(category: str, number: int, seed: int = 0) -> str:
    return f"{hashlib.md5(f'{seed} {number}'.encode(), usedforsecurity=False).hexdigest()},{category}"


def write_list(path: Path, *rows: str, header: str = "md5,category") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


Lists = Callable[..., Command]


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    """Runs one `lists` command on the store of this test."""
    made = call("lists", "keys", "new", tmp_path / "keys" / "store.key")
    assert made.code == 0
    assert made.out.startswith("age1")

    def run(verb: str, *arguments: object) -> Command:
        key = ("--key", tmp_path / "keys" / "store.key") if verb in ("import", "check", "diff") else ()
        return call("lists", verb, *arguments, "--store", tmp_path / "store", *key)

    return run


@pytest.fixture
def category_map(tmp_path: Path) -> Path:
    path = tmp_path / "category_map.toml"
    path.write_text('[effects]\nA1 = "case"\nB = "remove"\n"0" = "ignore"\nunused = "ignore"\n')
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [line(name, number) for number, name in enumerate(("A1", "A1", "B", "0", "B"))]
    return write_list(tmp_path / "given.csv", *rows)


def shows_no_entry(done: Command, *files: Path) -> bool:
    cells = [cell for file in files for row in file.read_text().split("\n")[1:] for cell in row.split(",")]
    return not any(cell in done.out + done.err for cell in cells if len(cell) >= 32)


def test_a_list_from_import_to_withdrawal(lists: Lists, source: Path, category_map: Path, tmp_path: Path) -> None:
    about = (
        "--purpose",
        "csam",
        "--received-from",
        "A hotline",
        "--agreement",
        "2025/7",
        "--expires",
        "2999-12-31",
    )
    uses = ("--permitted-use", "training sets", "--permitted-use", "research", "--stated-count", 5)
    done = lists("import", source, "--id", "known", *about, *uses, "--categories", category_map)
    assert done.code == 0, done.err
    for part in (
        "known@1, csam, format plain",
        "records   5, 5 stated: 5 taken",
        "entries   md5=4; canaries md5=1",
        "effect    ignore: md5=1",
        "category  'A1' -> case: md5=2",
        "category  'B' -> remove: md5=2",
        "uses training sets, research",
    ):
        assert part in done.out
    assert shows_no_entry(done, source)

    newer = write_list(tmp_path / "newer.csv", line("A1", 0), line("B", 77))
    assert lists("import", newer, "--id", "known", *about, "--categories", category_map).code == 0
    table = lists("show").out.splitlines()
    assert len(table) == 2
    assert all(part in table[1] for part in ("known@2", "csam", "case,remove", "md5=2", "A hotline", "2999-12-31"))
    assert "known@1" in lists("show", "known").out

    checked = lists("check")
    assert (checked.code, checked.err) == (0, "")
    assert "known@1: 4 entries as imported" in checked.out
    difference = lists("diff", "known@1", "known")
    assert difference.out.splitlines() == [
        "first known@1, second known@2",
        "md5: only in the first 3, only in the second 1, in both 1",
    ]
    assert shows_no_entry(difference, source, newer)

    asked = lists("remove", "known", "--version", 1)
    assert asked.code == 2
    assert "0001/entries.age" in asked.out
    assert "0002" not in asked.out
    assert "--yes" in asked.err
    assert lists("diff", "known@1", "known").code == 0
    assert lists("remove", "known", "--version", 1, "--yes").code == 0
    assert lists("diff", "known@1", "known").code == 2

    asked = lists("withdraw", "known", "--why", "the owner asked")
    assert asked.code == 2
    assert "0002/entries.age" in asked.out
    assert lists("withdraw", "known", "--why", "the owner asked", "--yes").code == 0
    assert "the owner asked" in lists("show").out
    refused = lists("import", source, "--id", "known", *about, "--categories", category_map)
    assert refused.code == 2
    assert "was withdrawn on" in refused.err
    assert lists("check").code == 0
    assert [path.name for path in (tmp_path / "store" / "known").iterdir()] == ["withdrawn.json"]


def test_a_stated_count_that_does_not_fit_stores_nothing(lists: Lists, source: Path, tmp_path: Path) -> None:
    plain = write_list(tmp_path / "plain.csv", *(line("", n)[:-1] for n in range(COUNT)), "zz", header="md5")
    known = ("--id", "known", "--purpose", "internal", "--effect", "remove")
    for stated, tolerance, code in ((7, 0.0, 4), (4, 0.2, 4), (5, 0.0, 0), (6, 0.2, 0)):
        done = lists("import", plain, *known, "--stated-count", stated, "--tolerance", tolerance)
        assert done.code == code, done.err
        if code:
            assert f"expected {stated} records as stated, found 6 and took 5" in done.err
            assert not (tmp_path / "store").exists()
    assert lists("show").out.count("known@2") == 1


def test_rejected_records_store_nothing_unless_tolerated(lists: Lists, tmp_path: Path) -> None:
    rows = [line("", n)[:-1] for n in range(8)]
    plain = write_list(tmp_path / "plain.csv", *rows, "0123", "x" * 32, header="md5")
    known = ("--id", "known", "--purpose", "internal", "--effect", "remove")
    done = lists("import", plain, *known)
    assert done.code == 4
    assert "2 of 10 records were rejected" in done.err
    assert "plain.csv:10" in done.err
    assert "plain.csv:11" in done.err
    assert shows_no_entry(done, plain)
    assert not (tmp_path / "store").exists()
    done = lists("import", plain, *known, "--tolerance", 0.2)
    assert done.code == 0
    assert "records   10: 8 taken, 2 rejected" in done.out
    assert "plain.csv:10" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--purpose", "csam"), "say in one way"),
        (("--purpose", "csam", "--effect", "case"), "'A1' (2 entries)"),
        (("--purpose", "csam", "--effect", "ignore"), "expected case or remove"),
        (("--purpose", "bad", "--effect", "case"), "purpose: expected one of csam"),
        (("--purpose", "csam", "--effect", "case", "--expires", "31.12.2999"), "YYYY-MM-DD"),
        (("--purpose", "csam", "--effect", "case", "--format", "none"), "--format"),
        (("--purpose", "csam", "--effect", "case", "--tolerance", "2"), "--tolerance"),
    ],
)
def test_a_wrong_option_stores_nothing(lists: Lists, source: Path, tmp_path: Path, arguments, message) -> None:
    done = lists("import", source, "--id", "known", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "store").exists()


def test_a_store_without_encryption_is_said_everywhere(lists: Lists, source: Path, category_map, tmp_path) -> None:
    known = ("--id", "known", "--purpose", "csam", "--categories", category_map)
    store = ("--store", tmp_path / "store")
    assert call("lists", "import", source, *known, *store).code == 2
    done = call("lists", "import", source, *known, *store, "--unsafe-plain-lists")
    assert done.code == 0
    assert "warning: unsafe_plain_lists" in done.err
    assert "UNSAFE    unsafe_plain_lists: known@1" in done.out
    assert "UNSAFE    unsafe_plain_lists: known@1" in lists("show").out
    assert lists("check").code == 3
    assert lists("check", "--unsafe-plain-lists").code == 0


def test_a_changed_file_fails_the_check(lists: Lists, source: Path, category_map: Path, tmp_path: Path) -> None:
    lists("import", source, "--id", "known", "--purpose", "csam", "--categories", category_map)
    path = tmp_path / "store" / "known" / "0001" / "entries.age"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = lists("check", "known")
    assert done.code == 3
    assert "known@1" in done.err
    assert "changed on disk" in done.err
    assert lists("diff", "known", "known").code == 2
    assert lists("check", "unknown").code == 2


def test_it_works_in_a_process_of_its_own(tmp_path: Path) -> None:
    key, store = tmp_path / "store.key", tmp_path / "store"
    codes = np.random.default_rng(1).integers(0, 256, (COUNT, 32), np.uint8)
    source = write_list(tmp_path / "codes.csv", *(row.tobytes().hex() for row in codes), header="pdq")
    assert shardscrub("lists", "keys", "new", key).code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    options = ("--store", store, "--key", key, "--id", "codes", "--purpose", "opt-out", "--effect", "remove")
    done = shardscrub("lists", "import", source, *options)
    assert done.code == 0, done.err
    assert "canaries pdq=2" in done.out
    assert shows_no_entry(done, source)


def test_verify_says_what_became_of_the_lists_that_were_matched(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_plain_shards(scrape.shards, shards=1, samples=1)
    assert call("run", scrape.config, "--workers", 1).code == 0
    verify = ("verify", scrape.collection, "--lists", tmp_path / STORE)
    assert "list known@1: in the store\n" in call(*verify).out
    write_random_list(tmp_path / "lists" / "known.csv", seed=9)
    assert "list known@1: in the store, which has @2 too\n" in call(*verify).out
    manifest = tmp_path / STORE / "known" / "0001" / "manifest.json"
    good = manifest.read_bytes()
    digests = [json.loads(path.read_bytes())["set_digest"] for path in sorted(manifest.parents[1].glob("*/*.json"))]
    manifest.write_bytes(good[:-9])
    done = call(*verify)
    assert (done.code, "Traceback" in done.err) == (2, False)
    manifest.write_bytes(good.replace(digests[0].encode(), digests[1].encode()))
    done = call(*verify)
    assert done.code == 3
    assert "list known@1: the store holds another set of entries than the one that was matched" in done.err
    manifest.write_bytes(good)
    assert call("lists", "withdraw", "known", "--why", "asked", "--yes", "--store", tmp_path / STORE).code == 0
    assert "list known@1: withdrawn " in call(*verify).out
