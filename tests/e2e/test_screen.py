"""Tables screened before download: what is listed is not in the table to download, and every row has one state."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from in_process import call, files, message
from scrapes import STORE, Scrape, list_store, write_list

from manifests.cases import open_sealed
from pipeline.lists.imports import import_list
from pipeline.lists.manifest import About

POLICY = """
name = "table"
required = ["url.usable", "meta.punsafe"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "listed-other"
when = "list.other.exact >= 1"
action = "REMOVE"
[[rule]]
id = "words"
when = "meta.punsafe >= 0.1 and (caption.minor >= 1 or url.minor >= 1)"
action = "REMOVE"
[sensitive]
rules = ["words"]
"""
SECRET = bytes(range(16))
LISTED = ["http://bad.test/x", "HTTPS://www.BAD.test:443/a#b", "https://user@sub.bad.test./", "https://www.one.test/%61/../a%20b?q",
          "http://one.test/a b?q"]  # fmt: skip


def write_urls(root: Path) -> None:
    path = root / "lists" / "places.csv"
    path.write_text("bad.test\nhttps://one.test/a%20b?q\n")
    import_list(list_store(root), "places", [path], About(purpose="opt-out"), format_name="urls", effect="remove")


def make_rows(count: int = 400) -> pa.Table:
    random = np.random.default_rng(3)
    urls: list[str | None] = [f"https://site{n % 37}.test/pictures/{n}.jpg" for n in range(count)]
    texts: list[str | None] = [f"a drawing of a hill {n}" for n in range(count)]
    punsafe = np.round(random.random(count) * 0.05, 4).tolist()
    md5 = [hashlib.md5(str(n).encode()).hexdigest() for n in range(count)]
    urls[: len(LISTED)] = LISTED
    urls[10:15] = [None, "", "no url", "ftp://site.test/x", "http://exa mple/x"]
    md5[20], md5[21] = SECRET.hex(), SECRET.hex().upper()
    texts[30], punsafe[30] = "a child on a swing", 0.5  # withheld by the words
    texts[31], punsafe[31] = "a child on a swing", 0.01
    texts[32], punsafe[32] = None, 0.5
    punsafe[33], punsafe[34] = None, 7.0
    texts[35] = "x" * ((1 << 20) + 1)
    urls[36], punsafe[36] = "https://site.test/young-child.jpg", 0.3
    return pa.table({"SAMPLE_ID": range(count), "URL": urls, "TEXT": texts, "punsafe": punsafe, "md5": md5})


GONE = {*range(len(LISTED)), *range(10, 15), 20, 21, 30, 33, 34, 35, 36}
FAULTS, WITHHELD = {*range(10, 15), 35}, {20, 21, 30, 36}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    made = Scrape.make(
        tmp_path_factory.mktemp("screen"),
        text={"concepts": ["minor"]},
        metadata=[{"column": "punsafe"}],
        list=[{"id": "known"}, {"id": "places"}, {"id": "pictures"}],
        screen={"policy": "table.toml"},
    )
    (made.root / "table.toml").write_text(POLICY)
    write_list(made.root / "lists" / "pictures.csv", [("md5", SECRET), ("sha256", SECRET * 2)])
    write_urls(made.root)
    assert (made.root / STORE).is_dir()
    pq.write_table(make_rows(), made.root / "part.parquet", row_group_size=64)
    return made


def screen(scrape: Scrape, to: str, *arguments: object, table: str = "part.parquet", workers: int = 1):
    path = scrape.root / table
    return call(
        "screen", path, "--config", scrape.config, "--to", scrape.root / to, "--workers", workers, *arguments
    )


def read(folder: Path, kind: str) -> list[dict[str, object]]:
    return [row for path in sorted((folder / kind).iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def screened(scrape) -> Path:
    done = screen(scrape, "out")
    assert done.code == 0, done.err
    assert done.out.split()[:8] == [
        "in",
        "400",
        "kept",
        str(400 - len(GONE)),
        "not",
        "kept",
        str(len(GONE)),
        "faults",
    ]
    return scrape.root / "out"


def test_what_is_listed_or_unknown_is_not_downloaded_and_the_columns_stay(screened):
    kept = read(screened, "download")
    assert {row["SAMPLE_ID"] for row in kept} == set(range(400)) - GONE
    assert kept == [row for row in make_rows().to_pylist() if row["SAMPLE_ID"] not in GONE]
    (path,) = (screened / "download").iterdir()
    assert pq.read_schema(path).names == make_rows().column_names


def test_every_row_has_one_decision_and_withheld_ones_show_nothing_else(screened):
    rows = read(screened, "decisions")
    assert [row["row"] for row in rows] == list(range(400))
    actions = {row["row"]: row["action"] for row in rows}
    assert {row for row, action in actions.items() if action == "KEEP"} == set(range(400)) - GONE
    assert {row for row in actions if actions[row] == "REMOVE"} == set(range(len(LISTED)))
    assert {row["row"] for row in rows if (row["reason"] or "").startswith("fault:")} == FAULTS
    assert {row["row"] for row in rows if row["withheld"]} == WITHHELD
    for row in (rows[n] for n in WITHHELD):
        assert {name for name, value in row.items() if value is not None} == {"row", "withheld"}
    assert rows[50]["url_uid"] == hashlib.sha256(b"https://site13.test/pictures/50.jpg").digest()[:16]
    assert rows[50]["signal.caption.minor"] is None  # nothing hung on it
    assert rows[32]["signal.caption.minor"] == 0.0


def test_sealed_records_say_what_was_hit_and_other_files_and_words_do_not(scrape, screened):
    (path,) = (screened / "sealed").iterdir()
    rows = open_sealed(path.read_bytes(), identity=scrape.identity, source=path.name).to_pylist()
    assert {row["index"] for row in rows} == WITHHELD
    hits = {row["index"]: [(one["list"], one["algorithm"], one["entry"]) for one in row["hits"]] for row in rows}
    assert hits[20] == hits[21] == [("pictures", "md5", 0)]
    assert hits[30] == []
    first = next(row for row in rows if row["index"] == 20)
    assert (first["action"], first["crawl_md5"], json.loads(first["metadata"])["SAMPLE_ID"]) == ("SEAL", SECRET, 20)
    for name in files(screened):
        data = (screened / name).read_bytes()
        if not name.startswith("sealed/"):
            assert SECRET not in data
            assert SECRET.hex().encode() not in data.lower()
        if not name.startswith(("sealed/", "decisions/", "parts/", "plan.json", "screen.json")):
            assert (screened / name).stat().st_mode & 0o777 == 0o644
    assert json.loads((screened / "summary.json").read_text()).keys() == {
        "schema", "in", "kept", "not_kept", "faults", "stamps",
    }  # fmt: skip


def test_a_case_of_a_screen_opens_and_exports_like_one_of_a_run(scrape, screened):
    key, out = scrape.root / "id.key", scrape.root / "opened.jsonl"
    key.write_text(scrape.identity + "\n")
    key.chmod(0o600)
    (path,) = (screened / "sealed").iterdir()
    record = scrape.root / "access.jsonl"
    done = call(
        "cases", "open", path, "--identity", key, "--out", out, "--by", "A", "--why", "B", "--access-record", record
    )
    assert done.code == 0, done.err
    done = call("cases", "export", out, "--out", scrape.root / "draft.md")
    assert done.code == 0, done.err
    key.unlink()


def test_again_does_nothing_and_what_a_kill_left_is_made_up_for(scrape, screened):
    before = files(screened, but="journal")
    assert screen(scrape, "out").code == 0
    after = files(screened, but="journal")
    assert {name for name in before if before[name] != after[name]} <= {"summary.json"}
    for gone in [*(screened / "parts").iterdir(), screened / "screen.json", *(screened / "download").iterdir()]:
        gone.unlink()
    (screened / "decisions" / ".tmp-part-00000.parquet-ab12").write_bytes(b"half")
    assert screen(scrape, "out").code == 0
    again = files(screened, but="journal")
    assert before.keys() == again.keys()
    changed = {name for name in before if before[name][2] != again[name][2]}
    assert {name.partition("/")[0] for name in changed} <= {"sealed", "parts", "screen.json"}


def test_workers_and_formats_change_no_decision(scrape, screened, monkeypatch):
    monkeypatch.setattr("pipeline.screen_tables._PART_ROWS", 100)
    assert screen(scrape, "parts").code == 0
    assert len(list((scrape.root / "parts" / "download").iterdir())) == 4
    table = make_rows()
    pyarrow.csv.write_csv(table, scrape.root / "lines.csv")
    (scrape.root / "lines2.jsonl").write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    both = [scrape.root / "lines.csv", scrape.root / "lines2.jsonl"]
    done = call("screen", *both, "--config", scrape.config, "--to", scrape.root / "text", "--workers", 2)
    assert done.code == 0, done.err
    expected = read(screened, "decisions")
    assert read(scrape.root / "parts", "decisions") == expected
    assert read(scrape.root / "text", "decisions") == expected * 2


def test_the_shipped_policy_screens_a_table_of_datacomp_and_an_empty_one(scrape):
    texts = pa.array(["a hill"] * 4).dictionary_encode()
    digests = [(SECRET * 2).hex(), "0" * 64, None, "no digest"]
    urls = [f"https://site.test/{n}" for n in range(4)]
    table = pa.table({"uid": list("abcd"), "url": urls, "text": texts, "sha256": digests})
    pq.write_table(table, scrape.root / "datacomp.parquet")
    pq.write_table(table.slice(0, 0), scrape.root / "empty.parquet")
    both = [scrape.root / "datacomp.parquet", scrape.root / "empty.parquet"]
    done = call("screen", *both, "--config", scrape.config, "--to", scrape.root / "dc", "--policy", "screen")
    assert done.code == 0, done.err
    assert [row["action"] for row in read(scrape.root / "dc", "decisions")] == [
        None,
        "KEEP",
        "QUARANTINE",
        "QUARANTINE",
    ]
    assert [row["uid"] for row in read(scrape.root / "dc", "download")] == ["b"]
    assert len(list((scrape.root / "dc" / "sealed").iterdir())) == 2


def test_replicas_screen_only_where_that_is_asked_for_loudly(scrape):
    assert "known to miss" in message(screen(scrape, "old", "--policy", "historic/relaion-research"))
    assert not (scrape.root / "old").exists()
    loud = Scrape(scrape.root, scrape.identity, {**scrape.settings, "unsafe_historic_policy": True})
    loud.write()
    done = screen(scrape, "old", "--policy", "historic/relaion-research-safe")
    scrape.write()
    assert done.code == 0
    assert "known to miss" in done.err
    assert "UNSAFE    unsafe_historic_policy" in done.out
    assert (
        "unsafe_historic_policy"
        in pq.read_schema(next((scrape.root / "old" / "download").iterdir())).metadata[b"shardscrub"].decode()
    )
    assert {row["row"] for row in read(scrape.root / "old", "decisions") if row["action"] == "REMOVE"} == {30, 32}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda table: table.rename_columns({"URL": "link"}), ["no column url", "[screen]", "link"]),
        (lambda table: table.drop_columns(["TEXT"]), ["captions", "[screen]"]),
        (lambda table: table.drop_columns(["punsafe"]), ["column punsafe", "[[metadata]]"]),
        (lambda table: table.set_column(3, "punsafe", table["TEXT"]), ["column punsafe", "numbers", "string"]),
        (lambda table: table.set_column(1, "URL", table["SAMPLE_ID"]), ["column URL", "text", "int64"]),
    ],
)  # fmt: skip
def test_a_table_of_another_shape_is_refused_with_its_column_and_nothing_written(scrape, change, names):
    pq.write_table(change(make_rows(50)), scrape.root / "odd.parquet")
    done = screen(scrape, "odd", table="odd.parquet")
    assert done.code == 2
    assert all(name in message(done) for name in [*names, "odd.parquet"])
    assert not (scrape.root / "odd").exists()


def test_what_cannot_be_read_is_an_error_that_names_the_file_and_shows_nothing_of_it(scrape):
    row = {"url": "http://mark.test/", "caption": "mark", "punsafe": 0}
    lines = [json.dumps(one) for one in (row, row, {**row, "punsafe": "mark"})]
    (scrape.root / "mixed.jsonl").write_text("\n".join(lines))
    (scrape.root / "torn.parquet").write_bytes((scrape.root / "part.parquet").read_bytes()[:-500])
    long = [{**row, "caption": f"{n}mark" * (1 << 18)} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(long), scrape.root / "long.parquet")
    for name in ("mixed.jsonl", "torn.parquet", "long.parquet"):
        done = screen(scrape, f"not-{name}", table=name)
        assert done.code == 4
        assert name in message(done)
        assert "mark" not in done.out + done.err
        assert not list((scrape.root / f"not-{name}").glob("download/*"))
