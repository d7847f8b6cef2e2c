"""An image whose decoder dies leaves no byte of itself, packed or unpacked, on a disk or in shared memory."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hostile_images as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_runs import examine, make_scrape
from PIL import Image
from scrapes import Scrape, jpeg

from manifests import cases, schema

HARMS = {
    "SIGSEGV": (hostile.SEGV, "decoder_crash"),
    "SIGKILL": (hostile.KILL, "decoder_crash"),
    "memory cap in C": (hostile.CAP, "decoder_crash"),
    "memory cap in Python": (hostile.SWELL, "memory_limit"),
    "wall clock": (hostile.HANG, "wall_limit"),
}


def marked_picture() -> bytes:
    """A sound picture whose pixels are the mark, over and over."""
    pixels = np.frombuffer((hostile.MARK * 1000)[: 96 * 96 * 3], np.uint8).reshape(96, 96, 3)
    return hostile.encoded(Image.fromarray(pixels), "bmp")


@pytest.fixture
def core_files_allowed() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.usefixtures("core_files_allowed")
@pytest.mark.parametrize(("harm", "fault"), HARMS.values(), ids=HARMS.keys())
def test_no_byte_of_an_image_outlives_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: bytes, fault: str
) -> None:
    for name in ("cwd", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    images = {"a": jpeg(1), "b": hostile.marked_bytes(harm), "c": marked_picture(), "d": jpeg(2)}
    scrape = make_scrape(tmp_path / "scrape", images)
    assert holds_mark(scrape.shards / "00000.tar", scrape.identity), "the search does not find what is there"
    began = time.time() - 1
    commit = examine(scrape)
    assert (commit.rows, commit.faults) == (4, 1)
    table = pq.read_table(scrape.collection / "examined" / commit.features.name)
    assert table["fault"].to_pylist() == [None, fault, None, None]
    assert [path for path in written_files(scrape) if holds_mark(path, scrape.identity)] == []
    assert [list((tmp_path / name).iterdir()) for name in ("cwd", "tmp")] == [[], []]
    for folder in (Path("/"), Path("/dev/shm"), Path("/tmp"), Path("/var/tmp")):
        for path in new_files(folder, began):
            assert not path.name.startswith("core")
            assert not holds_mark(path, scrape.identity)


def written_files(scrape: Scrape) -> list[Path]:
    found = [path for path in scrape.collection.rglob("*") if path.is_file()]
    assert {path.suffix for path in found} >= {".parquet", ".json", ".age"}
    return found


def new_files(folder: Path, since: float) -> Iterator[Path]:
    for entry in os.scandir(folder):
        try:
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime >= since:
                yield Path(entry.path)
        except FileNotFoundError:  # another process took it away
            continue


def holds_mark(path: Path, identity: str) -> bool:
    """Whether the mark lies in a file: in its bytes, or in a table or sealed table that it holds."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    if path.suffix == ".age":
        return in_table(cases.open_sealed(data, identity=identity, source=path.name))
    return hostile.MARK in data or (path.suffix == ".parquet" and in_table(pq.read_table(path)))


def in_table(table: pa.Table) -> bool:
    return any(
        buffer is not None and hostile.MARK in buffer.to_pybytes()
        for column in table.columns
        for chunk in column.chunks
        for buffer in chunk.buffers()
    )


@pytest.mark.parametrize("suffix", [".parquet", ".age", ".bin"])
def test_the_search_finds_a_mark_in_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    identity, recipient = cases.new_identity()
    table = pa.table({"x": pa.array([b"nothing", b"~" + hostile.MARK * 9], pa.binary())})
    data = {
        ".parquet": lambda: schema.encode(table),
        ".age": lambda: cases.seal(table, samples=2, recipients=[recipient])[0],
        ".bin": lambda: hostile.MARK,
    }[suffix]()
    (tmp_path / f"file{suffix}").write_bytes(data)
    assert holds_mark(tmp_path / f"file{suffix}", identity)
