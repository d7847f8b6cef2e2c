"""All members of a sample are judged and the strictest decides, wherever in the tar they lie."""

from __future__ import annotations

import io
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from in_process import call
from PIL import Image
from scrapes import Scrape, draw, encode, jpeg, write_list, write_tar

from classifiers.hashes.digests import take_digests
from classifiers.hashes.pdq import Pdq
from manifests.handover import open_kept

GOOD = [jpeg(seed) for seed in range(40)]
LISTED, KNOWN, NEAR = GOOD[30], GOOD[31], encode(draw(31), "JPEG", quality=40)
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(200)
CAPTION = b"BMW 3 series, drawn from memory by a child of the neighbourhood"

# Of each sample: its members by extension, then the action, the reason and the member that decided.
SCENES: dict[str, tuple[list[tuple[str, bytes]], tuple[str | None, str | None, str | None]]] = {
    "two_good": ([("jpg", GOOD[0]), ("png", GOOD[1])], ("KEEP", None, "jpg")),
    "second_listed": ([("jpg", GOOD[2]), ("png", LISTED)], ("REMOVE", "rule:listed-other", "png")),
    "second_known": ([("jpg", LISTED), ("png", KNOWN)], (None, None, None)),
    "second_near_known": ([("jpg", GOOD[3]), ("webp", NEAR)], (None, None, None)),
    "second_cut": ([("jpg", GOOD[4]), ("png", GOOD[5][:-900])], ("QUARANTINE", "fault:truncated", "png")),
    "cut_and_listed": ([("jpg", GOOD[6][:-900]), ("png", LISTED)], ("REMOVE", "rule:listed-other", "png")),
    "listed_and_cut": ([("jpg", LISTED[:-900] + b"x")], ("QUARANTINE", "fault:truncated", "jpg")),
    "video": ([("jpg", GOOD[7]), ("mp4", VIDEO)], ("QUARANTINE", "fault:unjudged_member", "jpg")),
    "video_alone": ([("mp4", VIDEO)], ("QUARANTINE", "fault:unjudged_member", "mp4")),
    "copied": ([("jpg", GOOD[8]), ("vtt", b"WEBVTT\n")], ("KEEP", None, "jpg")),
    "copied_listed": ([("jpg", GOOD[9]), ("vtt", b"WEBVTT listed")], ("REMOVE", "rule:listed-other", "vtt")),
    "copied_image": ([("jpg", GOOD[10]), ("vtt", LISTED)], ("REMOVE", "rule:listed-other", "vtt")),
    "copied_alone": ([("vtt", b"WEBVTT\n")], ("QUARANTINE", "fault:no_image", "vtt")),
    "left_out": ([("jpg", GOOD[11]), ("npy", b"\x93NUMPY")], ("KEEP", None, "jpg")),
    "left_out_image": ([("jpg", GOOD[12]), ("thumb.jpg", LISTED)], ("KEEP", None, "jpg")),
    "left_out_alone": ([("npy", b"\x93NUMPY")], ("QUARANTINE", "fault:no_image", None)),
    "image_as_text": ([("txt", GOOD[13])], ("KEEP", None, "txt")),
    "listed_as_text": ([("jpg", GOOD[14]), ("txt", LISTED)], ("REMOVE", "rule:listed-other", "txt")),
    "jpeg_as_png": ([("png", GOOD[15])], ("KEEP", None, "png")),
    "caption_of_a_car": ([("jpg", GOOD[16]), ("txt", CAPTION)], ("KEEP", None, "jpg")),
    "doubled": ([("jpg", GOOD[17]), ("jpg", GOOD[18])], ("QUARANTINE", "fault:ambiguous", "jpg")),
    "doubled_in_case": ([("jpg", GOOD[19]), ("JPG", GOOD[20])], ("QUARANTINE", "fault:ambiguous", "jpg")),
    "doubled_text": ([("jpg", GOOD[21]), ("txt", b"a"), ("txt", b"b")], ("QUARANTINE", "fault:ambiguous", "jpg")),
    "goes_on": ([("jpg", GOOD[22] + b"PK\3\4 more")], ("QUARANTINE", "fault:trailing_bytes", "jpg")),
    "page": ([("jpg", b"<html>not found</html>")], ("QUARANTINE", "fault:not_an_image", "jpg")),
    "no_extension": ([("", GOOD[23])], ("KEEP", None, "")),
}  # fmt: skip


def scene_members() -> list[tuple[str, bytes]]:
    return [
        (f"{key}.{extension}" if extension else key, data)
        for key, (members, _) in SCENES.items()
        for extension, data in members
    ]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    scrape = Scrape.make(
        tmp_path_factory.mktemp("scenes"),
        members={"copied": ["vtt"], "left_out": ["npy", "thumb.jpg"]},
        list=[
            {"id": "known"},
            {"id": "other"},
        ],
    )
    code = Pdq().encode(np.asarray(Image.open(io.BytesIO(KNOWN))))
    assert code is not None
    entries = [("sha1", take_digests(KNOWN).sha1), ("pdq", code.codes[0].tobytes())]
    write_list(scrape.root / "lists/known.csv", entries)
    listed, copied = take_digests(LISTED), take_digests(b"WEBVTT listed")
    write_list(scrape.root / "lists/other.csv", [("md5", listed.md5), ("sha256", copied.sha256)])
    members = scene_members()
    write_tar(scrape.shards / "ordered.tar", members)
    shuffled = list(members)
    random.Random(3).shuffle(shuffled)
    write_tar(scrape.shards / "shuffled.tar", shuffled)
    return scrape, call("run", scrape.config, "--workers", 1)


@pytest.mark.parametrize("shard", ["ordered", "shuffled"])
def test_the_strictest_member_decides_wherever_in_the_tar_it_lies(scenes, shard):
    scrape, done = scenes
    assert done.code == 0, done.err
    rows = {row["key"]: row for row in scrape.decisions() if row["shard"] == shard}
    found = {key: (row["action"], row["reason"], row["member"]) for key, row in rows.items()}
    assert found == {key: expected for key, (_, expected) in SCENES.items()}
    assert {key for key, row in rows.items() if row["withheld"]} == {"second_known", "second_near_known"}


@pytest.mark.parametrize("shard", ["ordered", "shuffled"])
def test_a_kept_sample_is_released_whole_but_for_what_is_left_out(scenes, shard):
    scrape, _ = scenes
    kept = {
        sample.key.split("/")[1]: sample for sample in open_kept(scrape.collection) if sample.key.startswith(shard)
    }
    assert set(kept) == {key for key, (_, expected) in SCENES.items() if expected[0] == "KEEP"}
    for key, sample in kept.items():
        wanted = {ext.lower(): data for ext, data in SCENES[key][0] if ext not in ("npy", "thumb.jpg")}
        assert dict(sample.members) == wanted
    assert kept["caption_of_a_car"].caption == CAPTION.decode()
    manifest = pq.read_table(scrape.collection / "releases/0001/manifest" / f"{shard}.parquet").to_pylist()
    assert {row["key"]: row["images"] for row in manifest}["two_good"] == 2
    assert call("verify", scrape.collection).code == 0


def test_the_stored_format_is_that_of_the_bytes_and_not_of_the_name(scenes):
    scrape, _ = scenes
    table = pq.read_table(scrape.collection / "examined/ordered.parquet").to_pylist()
    formats = {row["key"]: row["format"] for row in table if row["key"] in ("jpeg_as_png", "image_as_text")}
    assert formats == {"jpeg_as_png": "jpeg", "image_as_text": "jpeg"}
