"""A small scrape of every fate, decided by words of captions, and ways to put into a release what is not kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from in_process import call
from scrapes import Scrape, draw, encode, jpeg, write_tar

from manifests import schema

POLICY = """
name = "words"
required = ["list.csam.exact", "caption.sexual"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "hidden"
when = "caption.sexual >= 1 and caption.minor >= 1"
action = "REMOVE"
[[rule]]
id = "word"
when = "caption.sexual >= 1"
action = "REMOVE"
[[rule]]
id = "child"
when = "caption.minor >= 1"
action = "QUARANTINE"
[sensitive]
rules = ["hidden"]
"""
SEEDS = {"removed": 1, "kept": 2, "two": 3, "withheld": 5, "aside": 6, "other": 7, "cut": 8}
SHARED = "http://example.invalid/shared.jpg"


def url_of(key: str) -> str:
    """The URL of a sample: that of one set aside is also borne by a kept one."""
    return SHARED if key in ("aside", "other") else f"http://example.invalid/{key}.jpg"


def caption_of(key: str) -> str:
    words = {"removed": "a nude statue", "withheld": "a nude child", "aside": "a child"}
    return f"{words.get(key, 'a drawing')}, {key}"


def sample(key: str, data: bytes) -> list[tuple[str, bytes]]:
    about = {"url": url_of(key), "caption": caption_of(key)}
    return [(f"{key}.jpg", data), (f"{key}.json", json.dumps(about).encode())]


def make_scrape(root: Path, **settings: object) -> Scrape:
    """Kept are 00/kept, 00/two (of two images) and 01/other; 01/twice has the bytes of a kept one, and a fault."""
    scrape = Scrape.make(root, policy={"file": "policy.toml"}, text={"concepts": ["minor", "sexual"]}, **settings)
    (root / "policy.toml").write_text(POLICY)
    bytes_of = {key: jpeg(seed) for key, seed in SEEDS.items()}
    bytes_of["cut"] = bytes_of["cut"][:-700]
    write_tar(
        scrape.shards / "00.tar",
        [
            *sample("removed", bytes_of["removed"]),
            *sample("kept", bytes_of["kept"]),
            *sample("two", bytes_of["two"]),
            ("two.png", encode(draw(4), "PNG")),
        ],
    )
    last = [member for key in ("withheld", "aside", "other", "cut") for member in sample(key, bytes_of[key])]
    write_tar(scrape.shards / "01.tar", [*last, *[("twice.jpg", bytes_of["kept"])] * 2])
    return scrape


def make_settled(root: Path, **settings: object) -> Scrape:
    scrape = make_scrape(root, **settings)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape


def change(path: Path, column: str, row: int, value: object) -> None:
    """Put `value` into one cell of a table of ours."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    at = table.column_names.index(column)
    field = table.schema.field(column)
    path.write_bytes(schema.encode(table.set_column(at, field, pa.array(values, field.type))))
