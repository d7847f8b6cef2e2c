"""Tables as they come: what is broken costs its row, or stops with an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import call, message
from scrapes import Scrape

POLICY = """
name = "table"
required = ["url.usable", "meta.punsafe"]
[[rule]]
id = "words"
when = "meta.punsafe >= 0.1 and caption.minor >= 1"
action = "REMOVE"
"""
GOOD = {"url": "http://a.example/mark", "caption": "mark", "punsafe": 0.0}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    made = Scrape.make(
        tmp_path_factory.mktemp("bad"),
        text={"concepts": ["minor"]},
        metadata=[{"column": "punsafe"}],
        screen={"policy": "table.toml"},
    )
    (made.root / "table.toml").write_text(POLICY)
    return made


def screen(scrape: Scrape, to: str, *names: str):
    tables = [scrape.root / name for name in names]
    return call("screen", *tables, "--config", scrape.config, "--to", scrape.root / to, "--workers", 1)


def fates(folder: Path) -> dict[tuple[str, int], str | None]:
    """Every row of every table by identity, and what its decision says."""
    return {
        (path.stem.rpartition("-")[0], row["row"]): row["action"] and (row["reason"] or "kept")
        for path in (folder / "decisions").iterdir()
        for row in pq.read_table(path).to_pylist()
    }


def test_a_caption_that_would_fill_the_memory_costs_its_row(scrape):
    rows = [
        {**GOOD, "url": f"http://a.example/{n}", "caption": "x" * (40 << 20) if n == 7 else "x"} for n in range(99)
    ]
    pq.write_table(pa.Table.from_pylist(rows), scrape.root / "huge.parquet", use_dictionary=False)
    done = screen(scrape, "huge", "huge.parquet")
    assert done.code == 0, done.err
    found = fates(scrape.root / "huge")
    assert found == {("huge", n): "fault:too_many_bytes" if n == 7 else "kept" for n in range(99)}
    assert call("verify", scrape.root / "huge").code == 0


def test_files_of_other_columns_are_screened_each_as_it_is(scrape):
    pq.write_table(
        pa.Table.from_pylist([GOOD, {**GOOD, "url": None, "caption": None}]), scrape.root / "one.parquet"
    )
    other = {"TEXT": ["b", "c"], "more": [1, 2], "URL": ["http://b.example/", "http://[c/"], "punsafe": [0.0, None]}
    pq.write_table(pa.table(other), scrape.root / "two.parquet")
    done = screen(scrape, "both", "one.parquet", "two.parquet")
    assert done.code == 0, done.err
    assert fates(scrape.root / "both") == {
        ("one", 0): "kept", ("one", 1): "fault:bad_url", ("two", 0): "kept", ("two", 1): "fault:bad_url",
    }  # fmt: skip
    kept = pq.read_table(scrape.root / "both" / "download" / "two-00000.parquet")
    assert kept.to_pylist() == [{"TEXT": "b", "more": 1, "URL": "http://b.example/", "punsafe": 0.0}]
    pq.write_table(pa.table(other).drop_columns(["punsafe"]), scrape.root / "three.parquet")
    done = screen(scrape, "three", "one.parquet", "three.parquet")
    assert done.code == 2
    assert "three.parquet: column punsafe" in message(done)
    assert not (scrape.root / "three").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("latin.csv", "url,caption,punsafe\nhttp://a.example/mark,märk,0\n".encode("latin-1")),
        ("cut.csv", b'url,caption,punsafe\nhttp://a.example/mark,"mark,0\n' + b"x,y,0,mark\n"),
        ("line.jsonl", (json.dumps(GOOD) + '\n{"url": "http://mark\n' + json.dumps(GOOD)).encode()),
        ("page.parquet", b""),
    ],
)
def test_a_file_that_is_broken_stops_with_its_name_and_leaves_nothing_to_be_used(scrape, name, data):
    path = scrape.root / name
    if not data:
        pq.write_table(pa.Table.from_pylist([GOOD] * 500), path, use_dictionary=False, compression="zstd")
        data = bytearray(path.read_bytes())
        data[20:60] = bytes(40)
    path.write_bytes(data)
    done = screen(scrape, f"not-{name}", name)
    assert done.code == (2 if name == "latin.csv" else 4), done.out + done.err
    assert name in message(done)
    assert "mark" not in done.out + done.err.replace(str(scrape.root), "")
    assert not list((scrape.root / f"not-{name}").glob("download/*"))
    assert not (scrape.root / f"not-{name}" / "screen.json").exists()


rows = st.fixed_dictionaries(
    {
        "url": st.none()
        | st.sampled_from(["http://a.example/", "HTTP://x", "http://é.example/ä b", "//", "mailto:x"]),
        "caption": st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
        "punsafe": st.none() | st.floats(allow_nan=True, width=32),
    }
)


@settings(max_examples=8, deadline=None)
@given(st.lists(rows, min_size=1, max_size=20))
def test_every_row_has_one_state_whatever_is_in_it(scrape, tmp_path_factory, made):
    kinds = pa.schema({"url": pa.string(), "caption": pa.string(), "punsafe": pa.float64()})
    to = tmp_path_factory.mktemp("any") / "out"
    pq.write_table(pa.Table.from_pylist(made, kinds), scrape.root / "any.parquet")
    done = call("screen", scrape.root / "any.parquet", "--config", scrape.config, "--to", to, "--workers", 1)
    assert done.code == 0, done.err
    assert fates(to).keys() == {("any", n) for n in range(len(made))}
    assert call("verify", to).code == 0
