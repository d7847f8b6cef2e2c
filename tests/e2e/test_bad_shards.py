"""Bad shards: judged as far as they go, told in one message, and what is hostile costs its sample alone."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from in_process import call, message
from scrapes import Scrape, jpeg, write_sidecar, write_tar

from manifests.handover import open_kept

IMAGE = jpeg(1)


@pytest.fixture
def scrape(tmp_path) -> Scrape:
    made = Scrape.make(tmp_path / "scrape", release={})
    write_tar(made.shards / "00000.tar", [("a.jpg", IMAGE)])
    return made


def gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def negative_size(path: Path) -> None:
    """A second header whose size leads back to itself."""
    header = bytearray(tarfile.TarInfo("b.jpg").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(path.read_bytes()[: 512 + -(-len(IMAGE) // 512) * 512] + header + bytes(1024))


def garbage_behind(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"not zeros")


def bad_sidecar(path: Path) -> None:
    path.with_suffix(".parquet").write_bytes(b"PAR1 nothing")


def foreign_sidecar(path: Path) -> None:
    write_sidecar(path, [{"name": "a"}])


def doubled_sidecar(path: Path) -> None:
    write_sidecar(path, [{"key": "a", "status": "success"}] * 2)


DAMAGED = [
    (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)", 0),
    (lambda path: write_tar(path, []), "the input holds no sample", 0),
    (lambda path: path.write_bytes(bytes(range(256)) * 40), "not a tar archive", 0),
    (gzipped, "not a tar archive (compressed archives must be unpacked first)", 0),
    (lambda path: path.write_bytes(path.read_bytes()[:1500]), "the archive ends inside its last member", 1),
    (negative_size, "unreadable bytes after byte", 1),
    (garbage_behind, "unreadable bytes after byte", 1),
    (bad_sidecar, "the sidecar 00000.parquet is not a readable Parquet table", 1),
    (foreign_sidecar, "the sidecar 00000.parquet lacks the columns key and status", 1),
    (doubled_sidecar, "the sidecar 00000.parquet promises one key twice", 1),
]


@pytest.mark.parametrize(("damage", "fragment", "samples"), DAMAGED, ids=[entry[1] for entry in DAMAGED])
def test_a_damaged_shard_is_judged_as_far_as_it_goes_and_nothing_is_released(scrape, damage, fragment, samples):
    damage(scrape.shards / "00000.tar")
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 4
    assert fragment in message(done)
    assert len(scrape.decisions()) == samples
    assert {path.name for path in scrape.collection.iterdir()} == {
        "examine_plan.json", "examined", "journal", "sealed", "secret", "settled",
    }  # fmt: skip
    assert call("verify", scrape.collection).code == 0
    again = call("run", scrape.config, "--workers", 1)
    assert (again.code, "nothing to do" in again.out) == (4, True)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE_NAMES = {
    "../../climbs.jpg": "fault:unsafe_name",
    "folder/../../climbs_too.jpg": "fault:unsafe_name",
    "/tmp/shardscrub-absolute.jpg": "fault:unsafe_name",
    "bad\udcff\udcfe.jpg": "fault:bad_name",
    "/bad\udcff.jpg": "fault:unsafe_name",
    "folder/deep/fine.jpg": None,
    "café.jpg": None,
}


@pytest.mark.parametrize("bound", [1.0, 0.10])
def test_hostile_member_names_links_and_doubled_keys_cost_their_sample_alone(tmp_path, bound):
    root = tmp_path / "outside" / "scrape"
    bounds = {"max_fault_share_shard": bound, "max_fault_share_run": bound}
    scrape = Scrape.make(root, release=bounds)
    scrape.shards.mkdir()
    with tarfile.open(
        scrape.shards / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name in HOSTILE_NAMES:
            info = tarfile.TarInfo(name)
            info.size = len(IMAGE)
            tar.addfile(info, io.BytesIO(IMAGE))
        for _ in range(2):
            info = tarfile.TarInfo("doubled.jpg")
            info.size = len(IMAGE)
            tar.addfile(info, io.BytesIO(IMAGE))
        for info in (
            special("symbolic.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            special("hard.jpg", tarfile.LNKTYPE, "folder/deep/fine.jpg"),
            special("device.jpg", tarfile.CHRTYPE),
            special("fifo.jpg", tarfile.FIFOTYPE),
            special("folder", tarfile.DIRTYPE),
        ):
            tar.addfile(info)
    expected = [*HOSTILE_NAMES.values(), "fault:ambiguous", *["fault:link_member"] * 4]
    inside = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}

    done = call("run", scrape.config, "--workers", 1)
    assert [row["reason"] for row in scrape.decisions()] == expected
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} - inside
    collection = scrape.collection.relative_to(tmp_path)
    assert all(path.is_relative_to(collection) for path in written)
    assert not Path("/tmp/shardscrub-absolute.jpg").exists()
    if bound == 1.0:
        assert done.code == 0
        assert [sample.key for sample in open_kept(scrape.collection)] == ["a/folder/deep/fine", "a/café"]
    else:
        assert done.code == 4
        assert "10 of 12 samples are faulty" in message(done)
        assert not (scrape.collection / "releases").exists()
    assert call("verify", scrape.collection).code == 0


def test_texts_that_no_table_can_hold_cost_nothing(scrape):
    deep = b"[" * 5000 + b"]" * 5000
    texts = {
        "a": rb'{"url": "\ud800", "caption": "x\udfff", "more": "\ud800"}',
        "b": deep,
        "c": b'{"deep": ' + b"[" * 940 + b"]" * 940 + b"}",
        "d": b'{"number": 1e999, "not": NaN}',
        "e": b"\xff\xfe{",
        "f": b'["a list"]',
        "g": b'{"number": ' + b"1" * 5000 + b"}",
    }
    members = [(f"{key}.json", text) for key, text in texts.items()]
    members += [(f"{key}.jpg", IMAGE) for key in texts] + [("e.txt", b"caf\xe9")]
    write_tar(scrape.shards / "00000.tar", members)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    captions = {sample.key: sample.caption for sample in open_kept(scrape.collection)}
    assert len(captions) == len(texts)
    assert (captions["00000/a"], captions["00000/e"]) == ("x?", "caf\ufffd")
