"""What a collection has withheld is not fetched again; what a screen did is logged and can be checked."""

from __future__ import annotations

import hashlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call, files, message
from scrapes import Scrape, jpeg, write_list, write_tar

from classifiers.hashes.digests import take_digests
from manifests.audit.tiles import Tiles
from manifests.cases import open_sealed
from manifests.collection import Collection
from pipeline.url_screen import UrlScreen

SPELLINGS = [
    "http://photos.example/a-b?q=mark",
    "https://www.photos.example/a-b?q=mark",
    "HTTP://Photos.EXAMPLE/a-b?q=mark",
    "http://photos.example:80/a-b?q=mark",
    "http://photos.example/a-b?q=mark#top",
    "http://photos.example./%61%2Db?q=mark",
]
OTHERS = ["http://photos.example/a-b", "http://other.example/a-b?q=mark", None]
COUNT = len(SPELLINGS) + len(OTHERS) + 2
WITHHELD = {*range(len(SPELLINGS)), COUNT - 2}
POLICY = (
    'name = "own"\nrequired = ["url.usable"]\n[[rule]]\nid = "a"\nwhen = "meta.punsafe >= 1"\naction = "REMOVE"\n'
)


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    """One sample of two was listed and sealed; then the list went."""
    made = Scrape.make(tmp_path_factory.mktemp("internal"))
    key = call("keys", "new", made.root / "outside" / "key", "--origin", "example.org/scrub")
    assert key.code == 0, key.err
    made.settings["log"] = {
        "origin": "example.org/scrub",
        "key": "outside/key",
        "checkpoint_store": "outside/checkpoint",
    }
    made.settings |= {"metadata": [{"column": "punsafe"}], "screen": {"policy": "own.toml"}}
    write_tar(made.shards / "00.tar", [
        ("a.jpg", jpeg(1)), ("a.json", json.dumps({"url": SPELLINGS[0]}).encode()),
        ("b.jpg", jpeg(2)), ("b.json", json.dumps({"url": OTHERS[0]}).encode()),
    ])  # fmt: skip
    write_list(made.root / "lists" / "known.csv", [("md5", take_digests(jpeg(1)).md5), ("pdq", bytes(range(32)))])
    made.write()
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    (made.root / "own.toml").write_text(POLICY)
    write_list(made.root / "lists" / "known.csv", [("md5", b"9" * 16), ("pdq", bytes(range(32)))])
    digests = [None] * (COUNT - 2) + [hashlib.sha256(jpeg(n)).hexdigest() for n in (1, 2)]
    urls = [*SPELLINGS, *OTHERS, "http://c.example/", "http://d.example/"]
    table = pa.table({"url": urls, "sha256": digests, "punsafe": [1.0, *[0.0] * (COUNT - 1)]})
    pq.write_table(table, made.root / "night.parquet")
    return made


def screen(scrape: Scrape, to: str, *options: object):
    table = scrape.root / "night.parquet"
    return call("screen", table, "--config", scrape.config, "--to", scrape.root / to, "--workers", 1, *options)


@pytest.fixture(scope="module")
def screened(scrape):
    done = screen(scrape, "screened")
    assert done.code == 0, done.err
    assert done.out.split()[:8] == ["in", str(COUNT), "kept", "3", "not", "kept", str(COUNT - 3), "faults"]
    return scrape.root / "screened"


def test_what_was_withheld_is_known_in_every_spelling_and_by_its_bytes_and_shows_nothing(scrape, screened):
    (decisions,), (sealed,), (kept,) = (
        list((screened / name).iterdir()) for name in ("decisions", "sealed", "download")
    )
    rows = pq.read_table(decisions).to_pylist()
    assert {row["row"] for row in rows if row["withheld"]} == WITHHELD
    for row in (rows[n] for n in WITHHELD):
        assert {name for name, value in row.items() if value is not None} == {"row", "withheld"}
    assert [row["url"] for row in pq.read_table(kept).to_pylist()] == [*OTHERS[:2], "http://d.example/"]
    opened = open_sealed(sealed.read_bytes(), identity=scrape.identity, source=sealed.name).to_pylist()
    assert {row["index"] for row in opened} == WITHHELD
    # The first is removed by a rule of its own, too.
    assert {(row["action"], row["reason"]) for row in opened} == {("REMOVE", "internal"), ("REMOVE", "rule:a")}
    digest = hashlib.sha256(jpeg(1)).digest()
    for path in screened.rglob("*"):
        data = path.read_bytes() if path.is_file() and path.suffix != ".age" else b""
        assert not any(mark in data for mark in (SPELLINGS[1].encode(), digest, digest.hex().encode()))


def test_one_url_is_asked_as_a_table_is(scrape):
    one = UrlScreen([]).and_withheld(Collection(scrape.collection))
    assert [one.is_listed(url) for url in [*SPELLINGS, *OTHERS[:2]]] == [True] * len(SPELLINGS) + [False] * 2
    assert one.is_listed("no url")
    assert one.is_listed("http://a.example/\udcff")


def test_a_screen_is_logged_with_the_next_settle_once(scrape, screened):
    chain = scrape.collection / "screens.jsonl"
    opened, closed = map(json.loads, chain.read_bytes().splitlines())
    assert (opened["phase"], closed["phase"]) == ("open", "close")
    assert {name: closed["about"][name] for name in ("in", "kept", "not_kept", "faults")} == {
        "in": COUNT, "kept": 3, "not_kept": COUNT - 3, "faults": 1,
    }  # fmt: skip
    before = files(screened, but="journal"), chain.read_bytes()
    assert screen(scrape, "screened").code == 0
    after = files(screened, but="journal"), chain.read_bytes()
    assert {name for name in before[0] if before[0][name] != after[0][name]} <= {"summary.json"}
    assert before[1] == after[1]
    assert "2 screen records" in call("verify", scrape.collection).out
    assert call("settle", scrape.config, "--workers", 1).code == 0
    done = call("verify", scrape.collection)
    assert done.code == 0, done.err
    assert "screen records" not in done.out
    size = int((scrape.collection / "log" / "checkpoint").read_text().splitlines()[1])
    logged = [
        one for one in Tiles(scrape.collection / "log", size).all_entries() if json.loads(one)["kind"] == "screen"
    ]
    assert len(logged) == 2
    assert closed["about"]["download"].encode() not in b"".join(logged)
    chain.write_bytes(b"")
    assert "screens.jsonl: does not begin with what settle 0002 logged" in message(
        call("verify", scrape.collection)
    )
    chain.write_bytes(after[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "screen.json").unlink(), "screen.json: missing"),
        (lambda folder: next((folder / "sealed").iterdir()).unlink(), "night-00000.age: missing"),
        (lambda folder: (folder / "summary.json").write_text("{}"), "summary.json: not what"),
        (lambda folder: (folder / "download" / "more.parquet").write_bytes(b""), "more.parquet"),
        (lambda folder: flip(folder / "download" / "night-00000.parquet"), "night-00000.parquet"),
        (lambda folder: show(folder / "decisions" / "night-00000.parquet"), "more than their numbers"),
    ],
)
def test_the_folder_of_a_screen_can_be_checked(screened, tmp_path, change, said):
    copy = shutil.copytree(screened, tmp_path / "copy")
    change(copy)
    done = call("verify", copy)
    assert done.code == (3 if said else 0), done.err
    assert said in done.err


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def show(path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(3, "action", pa.array(["REMOVE"] * COUNT)), path)


def test_without_the_secret_of_a_begun_collection_nothing_is_screened(scrape):
    away = Collection(scrape.collection).secret
    data = away.read_bytes()
    away.unlink()
    try:
        done = screen(scrape, "without")
        assert done.code != 0
        assert str(away) in message(done)
        assert not (scrape.root / "without" / "download").exists()
    finally:
        away.write_bytes(data)
