"""What users and other programs read, held against files: help texts, and the records of one fixed tiny scrape.

The pictures are written byte by byte, so that no library's encoder is in the way. Digests that change with the
version of a library are left out. `make golden` writes the files again; review the difference.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from in_process import call
from scrapes import Scrape, write_list, write_sidecar, write_tar

from classifiers.hashes.digests import take_digests
from classifiers.hashes.pdq import Pdq

HERE = Path(__file__).parent
COMMANDS = [
    (), ("init",), ("run",), ("examine",), ("settle",), ("status",), ("explain",), ("quarantine",), ("retry",),
    ("verify",), ("train-head",), ("make-prompts",), ("models",), ("models", "pull"), ("policy",),
    ("policy", "check"), ("policy", "preview"), ("leakscan",), ("guard",), ("publish",), ("review",),
    ("destroy",), ("cases",), ("cases", "open"), ("cases", "export"), ("cases", "access-record"),
    ("cases", "keys"), ("cases", "keys", "new"),
]  # fmt: skip
WIDTH, HEIGHT = 64, 48
PDQ = "pdq:fullres.oriented"


def compare(name: str, text: str, *, rewrite: bool) -> None:
    path = HERE / name
    if rewrite:
        path.write_text(text)
    assert text == path.read_text(), f"{name} differs; if that is meant: make golden, and review the difference"


def pixels(seed: int) -> np.ndarray:
    """A pattern of whole numbers: the same on every machine."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [(x * (3 + seed) + y * y // (5 + channel) + (x * y) // (7 + seed)) % 256 for channel in range(3)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def bmp(picture: np.ndarray) -> bytes:
    """24 bits a pixel, rows from the bottom, blue first."""
    body = picture[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 24, 0, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + head + body


def png(picture: np.ndarray) -> bytes:
    """One block of deflate that is stored as it is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    stored += struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")


def near(picture: np.ndarray, bits: int) -> bytes:
    """The PDQ code of a picture with its first bits turned over."""
    code = Pdq().encode(picture)
    assert code is not None
    return (int.from_bytes(code.codes[0].tobytes(), "big") ^ ((1 << bits) - 1)).to_bytes(32, "big")


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    lists = [{"id": name} for name in ("csam", "other")]
    scrape = Scrape.make(tmp_path_factory.mktemp("golden"), list=lists)
    members = [
        ("0000.bmp", bmp(pixels(0))),
        ("0000.txt", "a pattern, café".encode()),
        ("0000.json", b'{"url": "http://example.invalid/0000.bmp", "width": 64}'),
        ("0001.jpg", png(pixels(1))),
        ("0002.bmp", bmp(pixels(2))),
        ("0003.bmp", bmp(pixels(3))),
        ("0004.png", png(pixels(4))[:-500]),
        ("0005.txt", b"no picture"),
        ("0006.bmp", bmp(pixels(6))),
        ("0006.mp4", b"\0\0\0\x18ftypmp42"),
        ("0007.bmp", bmp(np.full((HEIGHT, WIDTH, 3), 77, np.uint8))),
        ("0008.bmp", bmp(pixels(8))),
        ("0001.png", png(pixels(9))),
        ("0008.bmp", bmp(pixels(8))),
    ]
    write_tar(scrape.shards / "one.tar", members)
    write_tar(scrape.shards / "two.tar", [("a.b/0000.png", png(pixels(20)))])
    rows = [
        {"key": "a.b/0000", "status": "success", "url": "http://example.invalid/x", "caption": "x", "punsafe": 0.5}
    ]
    write_sidecar(
        scrape.shards / "two.tar", [*rows, {"key": "gone", "status": "success", "url": "u", "caption": "c"}]
    )
    write_list(
        scrape.root / "lists/csam.csv", [("md5", take_digests(members[4][1]).md5), ("pdq", bytes(range(32)))]
    )
    write_list(scrape.root / "lists/other.csv", [("pdq", near(pixels(3), 10))])
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape.collection


def lines(paths: list[Path], columns: list[str]) -> str:
    """The rows of tables as JSON, one a line; bytes in hex, of a PDQ column the picture's own code."""

    def plain(name: str, value: object) -> object:
        if isinstance(value, bytes):
            return value[:32].hex()
        return str(value) if value == float("inf") else value

    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    for row in rows:
        if row.get(f"{PDQ}.usable") is False:  # such a code hangs on rounding
            row[PDQ] = None
    kept = [{name: plain(name, row[name]) for name in columns if row.get(name) is not None} for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)


def without_digests(path: Path) -> str:
    """A record as people read it, without what hangs on the versions of libraries."""
    record = json.loads(path.read_bytes())
    for name in ("plan", "examine_plan", "decide_plan"):
        if name in record:
            record[name] = "..."
    if "shards" in record and isinstance(record["shards"], dict):
        record["shards"] = dict.fromkeys(record["shards"], "...")
    if record.get("release_summary"):
        record["release_summary"]["sha256"] = "..."
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_help(monkeypatch, rewrite_golden):
    monkeypatch.setenv("COLUMNS", "100")
    parts = []
    for command in COMMANDS:
        done = call(*command, "--help")
        assert (done.code, done.err) == (0, "")
        parts.append(f"$ {' '.join(('shardscrub', *command))} --help\n{done.out}")
    compare("help.txt", "\n".join(parts), rewrite=rewrite_golden)


def test_features(collection, rewrite_golden):
    columns = [
        "shard",
        "index",
        "key",
        "withheld",
        "role",
        "member",
        "offset",
        "size",
        "url",
        "caption",
        "metadata",
    ]
    columns += ["sample_fault", "fault", "sha256", "format", "width", "height"]
    columns += [f"{PDQ}{part}" for part in ("", ".quality", ".usable")]
    found = lines(sorted((collection / "examined").glob("*.parquet")), columns)
    compare("features.jsonl", found, rewrite=rewrite_golden)


def test_decisions(collection, rewrite_golden):
    paths = sorted((collection / "settled/0001/decisions").glob("*.parquet"))
    columns = pq.read_schema(paths[0]).names
    compare("decisions.jsonl", lines(paths, columns), rewrite=rewrite_golden)


def test_manifest(collection, rewrite_golden):
    paths = sorted((collection / "releases/0001/manifest").glob("*.parquet"))
    compare("manifest.jsonl", lines(paths, pq.read_schema(paths[0]).names), rewrite=rewrite_golden)


def test_close(collection, rewrite_golden):
    compare("close.json", without_digests(collection / "settled/0001/close.json"), rewrite=rewrite_golden)


def test_release_summary(collection, rewrite_golden):
    compare("release.json", without_digests(collection / "releases/0001/summary.json"), rewrite=rewrite_golden)


def test_restricted_status(collection, rewrite_golden):
    out = call("status", collection, "--restricted").out.splitlines()
    out[0] = out[0].partition(";")[0]
    out += call("quarantine", collection).out.splitlines()
    for key in ("one/0000", "one/0002", "one/0003", "one/0004", "two/gone"):
        out += ["", *call("explain", collection, key).out.splitlines()]
    compare("restricted.txt", "\n".join(out) + "\n", rewrite=rewrite_golden)
