"""From members to samples: grouping, roles, faults, captions, and the join with the sidecar."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scrapes import draw, encode, write_sidecar, write_tar

from manifests.records import FaultKind
from pipeline.config import MembersConfig
from pipeline.ingest.samples import MAX_TEXT_BYTES, take_inventory
from pipeline.ingest.shards import ShardSource

PICTURE = draw(1, size=(40, 30))
IMAGES = {kind: encode(PICTURE, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
JPEG = IMAGES["JPEG"]
MEMBERS = MembersConfig(copied=("vtt",), left_out=("npy", "thumb.jpg"))


def inventory(folder, members, rows=None, *, config=MEMBERS):
    path = folder / "a.tar"
    if members is not None:
        write_tar(path, members)
    sidecar = None if rows is None else write_sidecar(path, rows)
    return take_inventory(ShardSource("a", path, sidecar), config)


def only(folder, members, rows=None):
    (sample,) = inventory(folder, members, rows).samples
    return sample


def row(key, status="success", **more):
    return {"key": key, "status": status, **more}


def test_samples_stand_in_the_order_of_their_first_member_and_then_of_the_sidecar(tmp_path):
    members = [("b.txt", b""), ("a.jpg", JPEG), ("b.jpg", JPEG), ("c/a.jpg", JPEG), ("a.txt", b"")]
    found = inventory(tmp_path, members, [row("z"), row("a"), row("y"), row("x", "failed_to_download")])
    assert [(sample.index, sample.key) for sample in found.samples] == list(enumerate(["b", "a", "c/a", "z", "y"]))
    assert [len(sample.members) for sample in found.samples] == [2, 2, 1, 0, 0]
    assert [sample.fault for sample in found.samples] == [None] * 3 + [FaultKind.MISSING_FROM_SHARD] * 2
    assert found.damage is None


def test_members_are_ordered_by_extension_wherever_they_lie(tmp_path):
    sample = only(tmp_path, [("a.txt", b"t"), ("a.png", IMAGES["PNG"]), ("a.jpg", JPEG), ("a.json", b"{}")])
    assert [item.member.extension for item in sample.members] == ["jpg", "json", "png", "txt"]
    assert [item.role for item in sample.members] == ["image", "text", "image", "text"]


@pytest.mark.parametrize("kind", sorted(IMAGES))
@pytest.mark.parametrize("extension", ["jpg", "txt", "json", "vtt", "bin", "mp4", "", "JPEG"])
def test_an_image_is_known_by_its_bytes_under_any_name(tmp_path, kind, extension):
    sample = only(tmp_path, [(f"a.{extension}".rstrip("."), IMAGES[kind])])
    assert [item.role for item in sample.members] == ["image"]
    assert sample.fault is None
    assert sample.caption is None


@pytest.mark.parametrize(
    ("extension", "data", "role"),
    [
        ("jpg", b"no image", "image"),
        ("jpg", b"", "image"),
        ("large.webp", b"no image", "image"),
        ("txt", b"a caption", "text"),
        ("txt", b"BMW 3 series of 1990 and a half", "text"),
        ("txt", b"GIF8 is how they begin", "text"),
        ("txt", b"", "text"),
        ("json", b"not JSON", "text"),
        ("txt", b"x" * MAX_TEXT_BYTES, "text"),
        ("txt", b"x" * (MAX_TEXT_BYTES + 1), "unjudged"),
        ("vtt", b"WEBVTT", "copied"),
        ("npy", b"\x93NUMPY", "left_out"),
        ("thumb.jpg", JPEG, "left_out"),
        ("mp4", b"\0\0\0\x18ftypmp42", "unjudged"),
        ("cls", b"3", "unjudged"),
        ("svg", b"<svg/>", "unjudged"),
    ],
)
def test_the_part_a_member_plays(tmp_path, extension, data, role):
    sample = only(tmp_path, [("a.png", IMAGES["PNG"]), (f"a.{extension}", data)])
    roles = {item.member.extension: item.role for item in sample.members}
    assert roles == {"png": "image", extension: role}
    assert sample.fault is (FaultKind.UNJUDGED_MEMBER if role == "unjudged" else None)
    examined = [item.role for item in sample.members if item.role not in ("text", "left_out")]
    assert [item.role for item in sample.examined] == examined


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("a.txt", b"")], FaultKind.NO_IMAGE),
        ([("a.vtt", b"")], FaultKind.NO_IMAGE),
        ([("a.npy", b"")], FaultKind.NO_IMAGE),
        ([("a.jpg", JPEG), ("a.jpg", JPEG)], FaultKind.AMBIGUOUS),
        ([("a.jpg", JPEG), ("a.JPG", JPEG)], FaultKind.AMBIGUOUS),
        ([("a.jpg", JPEG), ("a.npy", b""), ("a.npy", b"")], FaultKind.AMBIGUOUS),
        ([("a", JPEG), ("a", JPEG)], FaultKind.AMBIGUOUS),
        ([("a.jpg", JPEG), ("a.mp4", b"")], FaultKind.UNJUDGED_MEMBER),
        ([("../a.jpg", JPEG)], FaultKind.UNSAFE_NAME),
        ([("\udcff.jpg", JPEG)], FaultKind.BAD_NAME),
    ],
)
def test_the_fault_of_a_sample(tmp_path, members, fault):
    assert only(tmp_path, members).fault is fault


def test_a_cut_member_is_a_fault_of_its_sample_and_its_bytes_are_still_there_to_be_digested(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.jpg", JPEG), ("b.jpg", JPEG), ("b.txt", b"x")])
    half = 512 + -(-len(JPEG) // 512) * 512 + 512 + len(JPEG) // 2
    path.write_bytes(path.read_bytes()[:half])
    found = take_inventory(ShardSource("a", path, None), MEMBERS)
    assert [(sample.key, sample.fault) for sample in found.samples] == [("a", None), ("b", FaultKind.CUT_SHORT)]
    assert found.samples[1].examined[0].member.size == len(JPEG) // 2
    assert found.damage == "the archive ends inside its last member"


def test_url_and_caption_come_from_the_sample_where_there_is_no_row(tmp_path):
    meta = {"url": "u", "caption": "from json", "key": "a", "width": 3, "height": None}
    sample = only(tmp_path, [("a.jpg", JPEG), ("a.txt", b"from txt"), ("a.json", json.dumps(meta).encode())])
    assert (sample.url, sample.caption, sample.metadata) == ("u", "from json", '{"width": 3}')
    sample = only(tmp_path, [("a.jpg", JPEG), ("a.txt", "café".encode())])
    assert (sample.url, sample.caption, sample.metadata) == (None, "café", None)


def test_the_sidecar_stands_above_the_samples_own_text(tmp_path):
    members = [("a.jpg", JPEG), ("a.txt", b"from txt"), ("a.json", b'{"url": "other"}')]
    sample = only(tmp_path, members, [row("a", url="u", caption="from the sidecar", punsafe=0.5)])
    assert (sample.url, sample.caption) == ("u", "from the sidecar")
    assert json.loads(sample.metadata) == {"punsafe": 0.5, "status": "success"}


@pytest.mark.parametrize(
    "text",
    [
        b"not JSON",
        b"[1]",
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 990 + b"]" * 990,
        b'{"a":' + b"[" * 960 + b"]" * 960 + b"}",
        b'{"url": 3, "caption": ["x"]}',
        rb'{"url": "\ud800", "caption": "\udc00\ud800", "\ud83d": "\ud83d\ude00"}',
        b'{"number": ' + b"9" * 5000 + b"}",
        b'{"number": 1e999, "other": NaN}',
    ],
)
def test_no_metadata_makes_it_raise_and_all_of_it_can_be_stored(tmp_path, text):
    sample = only(tmp_path, [("a.jpg", JPEG), ("a.json", text), ("a.txt", text)])
    assert sample.fault is None
    pa.array([sample.url, sample.caption, sample.metadata], pa.string())


def test_a_missing_tar_is_what_its_sidecar_promises(tmp_path):
    found = inventory(tmp_path, None, [row("a", url="u", caption="c"), row("b", "failed_to_download"), row("c")])
    assert [(sample.key, sample.fault) for sample in found.samples] == [
        ("a", FaultKind.MISSING_FROM_SHARD),
        ("c", FaultKind.MISSING_FROM_SHARD),
    ]
    assert (found.damage, found.sha256, found.size) == ("the shard is missing", None, 0)
    assert found.samples[0].url == "u"


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        (pa.table({"name": ["a"]}), "lacks the columns key and status"),
        (pa.table({"key": ["a", "a"], "status": ["success"] * 2}), "promises one key twice"),
        (pa.table({"key": ["a"], "status": ["success"], "t": pa.array([1 << 62], pa.timestamp("ms"))}), "readable"),
    ],
)
def test_a_sidecar_that_cannot_be_meant_is_damage(tmp_path, table, damage):
    write_tar(tmp_path / "a.tar", [("a.jpg", JPEG)])
    pq.write_table(table, tmp_path / "a.parquet")
    found = take_inventory(ShardSource("a", tmp_path / "a.tar", tmp_path / "a.parquet"), MEMBERS)
    assert damage in found.damage
    assert [sample.key for sample in found.samples] == ["a"]


def test_text_in_a_sidecar_that_is_not_utf8_is_damage(tmp_path):
    offsets = pa.py_buffer(b"\0\0\0\0\2\0\0\0")
    caption = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    write_tar(tmp_path / "a.tar", [("a.jpg", JPEG)])
    pq.write_table(pa.table({"key": ["a"], "status": ["success"], "caption": caption}), tmp_path / "a.parquet")
    found = take_inventory(ShardSource("a", tmp_path / "a.tar", tmp_path / "a.parquet"), MEMBERS)
    assert "not a readable Parquet table" in found.damage


def test_keys_of_a_sidecar_may_be_numbers(tmp_path):
    found = inventory(tmp_path, [("7.jpg", JPEG)], [row(7, url="u"), row(8)])
    assert [(sample.key, sample.url) for sample in found.samples] == [("7", "u"), ("8", None)]
