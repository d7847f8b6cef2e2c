"""What is withheld stands in clear nowhere: not after a settle, not while one is interrupted, not in any message.

Searched are the bytes of every file, the pages, dictionaries and statistics of tables, and for likeness every
stored code (31 bits) and embedding (cosine 0.99). A run under every log level that Python and its libraries know.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call
from modelled import add_models
from plain_search import Marks, find, marks_of, spellings
from scrapes import ROOT, Scrape, draw, encode, jpeg, write_list, write_tar

from manifests import schema

KNOWN, LATER, REMOVED = 2, 4, 5
# Every logger of every library speaks, to standard error, and so do all warnings; but not the compiler, whose
# logger tells byte code for minutes.
EVERY_LEVEL = """
import logging
logging.basicConfig(level=1)
logging.captureWarnings(True)
logging.getLogger("numba").setLevel(logging.INFO)
"""


def sample(key: str, data: bytes) -> list[tuple[str, bytes]]:
    about = {"url": f"http://example.invalid/url-{key}.jpg", "caption": f"caption of {key}, a drawing"}
    return [(f"{key}.jpg", data), (f"{key}.json", json.dumps(about).encode())]


def list_numbers(scrape: Scrape, *numbers: int) -> None:
    entries = [("sha1", hashlib.sha1(jpeg(number)).digest()) for number in numbers]
    write_list(scrape.root / "lists/csam.csv", [*entries, ("pdq", bytes(range(32)))])


def make_scrape(root: Path) -> Scrape:
    """Listed pictures, a copy of one and a near-copy of it in another shard, one removed, others kept."""
    scrape = Scrape.make(root, list=[{"id": name} for name in ("csam", "other")])
    add_models(scrape)
    policy = root / "policy.toml"
    assert "near_copies = 31" in policy.read_text()
    policy.write_text(policy.read_text().replace("near_copies = 31", "near_copies = 31\nneighbours = 0.999"))
    near = encode(draw(LATER), "JPEG", quality=60)
    write_tar(scrape.shards / "00.tar", [part for n in range(6) for part in sample(f"k{n}", jpeg(n))])
    others = [sample("copy", jpeg(LATER)), sample("near", near), sample("kept", jpeg(9)), sample("last", jpeg(10))]
    write_tar(scrape.shards / "01.tar", [part for one in others for part in one])
    write_list(root / "lists/other.csv", [("md5", hashlib.md5(jpeg(REMOVED)).digest())])
    list_numbers(scrape, KNOWN)
    return scrape


@dataclass(frozen=True, slots=True)
class Story:
    """A collection settled twice, and two copies of it as a kill left it on the way."""

    scrape: Scrape
    early: Path  # all is found out, and nothing withheld by it yet
    late: Path  # all but the close
    printed: str
    marks: Marks


def leave(scrape: Scrape, name: str, at: str, patch: pytest.MonkeyPatch) -> Path:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with patch.context() as inner:
        inner.setattr(at, stop)
        assert call("settle", scrape.config, "--workers", 1).code == 130
    return shutil.copytree(scrape.collection, scrape.root / name)


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    scrape = make_scrape(tmp_path_factory.mktemp("nowhere") / "scrape")
    environment = {**os.environ, "PYTHONPATH": f"{scrape.root / 'loud'}:{ROOT}", "PYTHONWARNINGS": "always"}
    (scrape.root / "loud").mkdir()
    (scrape.root / "loud/sitecustomize.py").write_text(EVERY_LEVEL)

    def loudly(*arguments: object) -> str:
        command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout + done.stderr

    printed = loudly("run", scrape.config, "--workers", 1)
    list_numbers(scrape, KNOWN, LATER)
    with pytest.MonkeyPatch.context() as patch:
        early = leave(scrape, "early", "pipeline.settle.prove_conservation", patch)
        late = leave(scrape, "late", "pipeline.settles.close_settle", patch)
    printed += loudly("settle", scrape.config, "--workers", 1) + loudly("verify", scrape.collection)
    rows = scrape.sealed()
    assert {row["key"] for row in rows} == {"k2", "k4", "copy", "near"}
    return Story(scrape, early, late, printed, marks_of(rows, [jpeg(KNOWN), jpeg(LATER)]))


def in_clear(marks: Marks, *folders: Path) -> set[str]:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return {path.name for path in files if find(marks, path.read_bytes())}


def test_nothing_of_a_withheld_sample_stands_in_any_file_after_a_settle(story):
    home = story.scrape.collection
    newest = [path for path in home.iterdir() if path.is_dir() and path.name != "releases"]
    assert {"examined", "settled", "journal", "sealed"} <= {path.name for path in newest}
    assert in_clear(story.marks, *newest, home / "releases/0002") == set()
    # What the second settle withheld stands in the first release still: the next one replaces it.
    assert "01.parquet" in in_clear(story.marks, home / "releases/0001")


def test_nothing_of_it_stands_in_what_an_interrupted_settle_leaves(story):
    assert in_clear(story.marks, story.early / "settled", story.early / "journal", story.early / "sealed") == set()
    for name in ("spread", "around"):
        assert (
            story.early / "settled/0002" / name
        ).stat().st_size > 0  # what it works by is there, and was searched
        assert (story.late / "settled/0002" / name).exists()
    folders = [story.late / name for name in ("settled", "journal", "sealed", "examined")]
    assert in_clear(story.marks, *folders, story.late / "releases/0002") == set()
    assert (
        in_clear(story.marks, story.early / "examined") != set()
    )  # the same search finds what is not withheld yet


def test_no_log_level_prints_anything_of_what_was_not_kept(story):
    assert "DEBUG" in story.printed or "import" in story.printed
    removed = {b"url-k5", b"caption of k5", *spellings(hashlib.sha256(jpeg(REMOVED)).digest())}
    words = {mark.decode("latin-1") for mark in story.marks.exact | removed}
    assert [word for word in words if word in story.printed] == []
    assert not any(key in story.printed for key in ("00/k2", "00/k4", "00/k5", "01/copy", "01/near"))


def test_an_error_that_says_what_it_read_is_told_and_kept_without_its_words(story, tmp_path, monkeypatch):
    root = shutil.copytree(story.scrape.root, tmp_path / "scrape")
    scrape = Scrape(root, story.scrape.identity, story.scrape.settings)
    shutil.rmtree(scrape.collection)

    def burst(*_: object, **__: object) -> None:
        try:
            raise KeyError(" ".join(["caption", "of", "k4,", "a", "drawing"]))
        except KeyError as error:
            raise ValueError("-".join(["http://example.invalid/url", "k4.jpg"])) from error

    monkeypatch.setattr("pipeline.commit.sealed_records", burst)
    done = call("run", scrape.config, "--workers", 1)
    assert (done.code, "internal error (ValueError in test_withheld_nowhere.py" in done.err) == (1, True)
    assert in_clear(story.marks, scrape.collection / "journal") == set()
    note = (scrape.collection / "journal/error-examine-00.txt").read_text()
    assert "ValueError" in note
    assert "commit_shard" in note
    assert not any(words in note + done.err + done.out for words in ("url-k4", "caption of k4"))


def test_values_that_only_a_dictionary_or_a_statistic_holds_are_found(story):
    hidden = "http://example.invalid/url-k4.jpg"
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["plain", hidden]))
    for column in (pa.array(["a", hidden]), odd):
        sink = io.BytesIO()
        pq.write_table(pa.table({"url": column}), sink, compression="zstd")
        assert find(story.marks, sink.getvalue()) == {hidden.encode()}
    near = (
        np.array(next(row for row in story.scrape.sealed() if row["key"] == "k4")["embedding"], np.float32) * 1.01
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(near.astype(np.float16)), len(near))
    assert find(story.marks, schema.encode(pa.table({"any": vectors}))) != set()
    code = bytearray(next(iter(story.marks.codes)).tobytes())
    code[3] ^= 0xFF
    assert find(story.marks, schema.encode(pa.table({"any": pa.array([bytes(code)], pa.binary(32))}))) != set()
    assert pq.read_table(next(story.scrape.collection.glob("examined/*.parquet"))).num_rows
