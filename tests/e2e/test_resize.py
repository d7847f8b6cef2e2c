"""`[release] resize`: the same decisions and ids, other bytes in the tars, and all who read a release know them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_runs import problems
from in_process import call, message
from PIL import Image
from scrapes import Scrape, draw, encode, jpeg, outputs, write_list, write_tar

from classifiers.hashes.digests import take_digests
from manifests import schema
from manifests.guard import guard
from manifests.handover import KeptSetError, open_kept
from manifests.publish import publish
from manifests.records import FaultKind
from manifests.verify import verify
from pipeline.decode import Decoder

SIDE = 64
LISTED = jpeg(90)
SAMPLES = {
    "large": {"jpg": jpeg(1), "txt": b"a caption", "json": b'{"url": "http://example.invalid/large"}'},
    "small": {"jpg": encode(draw(2, size=(60, 50)))},
    "clear": {"png": encode(draw(3).convert("RGBA"), "PNG")},
    "several": {"jpg": jpeg(4), "png": encode(draw(5), "PNG"), "second.webp": encode(draw(6), "WEBP"), "txt": b"x"},
    "as_text": {"txt": jpeg(7)},
    "removed": {"jpg": LISTED},
    "cut": {"jpg": jpeg(8)[:-600]},
}
KEPT = {"large", "small", "clear", "several", "as_text"}


def make(root, **release) -> Scrape:
    scrape = Scrape.make(root, list=[{"id": "known"}, {"id": "other"}])
    write_list(scrape.root / "lists/other.csv", [("md5", take_digests(LISTED).md5)])
    for shard in ("00000", "00001"):
        members = [(f"{shard}{key}.{ext}", data) for key, parts in SAMPLES.items() for ext, data in parts.items()]
        write_tar(scrape.shards / f"{shard}.tar", members)
    return settle(scrape, **release)


def settle(scrape, workers=1, **release) -> Scrape:
    scrape.settings["release"] = {"max_fault_share_shard": 1.0, "max_fault_share_run": 1.0, **release}
    scrape.write()
    done = call("run", scrape.config, "--workers", workers)
    assert done.code == 0, done.err
    return scrape


def read_tar(path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    """Settle 0001 without, settle 0002 with."""
    scrape = make(tmp_path_factory.mktemp("resized") / "scrape")
    return settle(scrape, resize=SIDE)


@pytest.fixture
def copy(resized, tmp_path):
    shutil.copytree(resized.root, tmp_path / "copy")
    return Scrape(tmp_path / "copy", resized.identity, dict(resized.settings))


def test_decisions_and_ids_are_those_without_and_one_column_more_is_of_the_new_bytes(resized):
    assert resized.decisions(1) == resized.decisions(2)
    one, two = (resized.collection / f"releases/000{number}" for number in (1, 2))
    assert (one / "uids.npy").read_bytes() == (two / "uids.npy").read_bytes()
    for shard in ("00000", "00001"):
        before, after = (pq.read_table(home / f"manifest/{shard}.parquet") for home in (one, two))
        assert after.column_names == [*before.column_names, schema.IN_TAR]
        assert after.drop_columns([schema.IN_TAR]).equals(before)
        assert not set(after[schema.IN_TAR].to_pylist()) & set(after["sha256"].to_pylist())
        assert json.loads(after.schema.metadata[b"shardscrub"])["resize"] == "shorter-64:jpeg-95@1"
    plans = [json.loads((resized.collection / f"settled/000{n}/plan.json").read_bytes())["decide"] for n in (1, 2)]
    assert "resize" not in plans[0]
    assert plans[1] == plans[0] | {"resize": "shorter-64:jpeg-95@1"}


def test_tars_hold_every_image_as_a_smaller_jpeg_and_all_else_as_it_was(resized):
    for shard in ("00000", "00001"):
        found = read_tar(resized.collection / f"releases/0002/shards/{shard}.tar")
        images = {name.removeprefix(shard): data for name, data in found.items() if data[:2] == b"\xff\xd8"}
        sizes = {name: Image.open(io.BytesIO(data)).size for name, data in images.items()}
        assert sizes == {
            "large.jpg": (85, 64), "small.jpg": (60, 50), "clear.jpg": (85, 64), "several.jpg": (85, 64),
            "several.png.jpg": (85, 64), "several.second.jpg": (85, 64), "as_text.jpg": (85, 64),
        }  # fmt: skip
        others = {name.removeprefix(shard): data for name, data in found.items() if data[:2] != b"\xff\xd8"}
        assert others == {
            "large.txt": SAMPLES["large"]["txt"], "large.json": SAMPLES["large"]["json"], "several.txt": b"x",
        }  # fmt: skip


def test_all_who_read_a_release_know_the_new_bytes(resized, tmp_path):
    release = resized.collection / "releases/0002"
    report = guard(release, [release / "shards"])
    assert (report.samples, report.problems, report.absent, report.renamed) == (10, [], 0, 0)
    assert {sample.key[11:] for sample in open_kept(resized.collection)} == KEPT
    assert verify(resized.collection).problems == []
    assert call("leakscan", resized.collection).code == 0
    publish(resized.collection, tmp_path / "out", least=1, per_withheld=1, shards=True)
    assert guard(tmp_path / "out", [tmp_path / "out/shards"]).problem_count == 0


def test_originals_pass_no_guard_of_such_a_release_nor_the_other_way_round(resized):
    one, two = (resized.collection / f"releases/000{number}" for number in (1, 2))
    assert guard(two, [one / "shards"]).problem_count == 2 * len(KEPT)
    assert guard(one, [two / "shards"]).problem_count == 2 * len(KEPT)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("00000large.jpg", None),
        ("00000large.jpg", SAMPLES["large"]["jpg"]),
        ("00000several.png.jpg", SAMPLES["several"]["png"]),
        ("00000more.jpg", jpeg(50)),
    ],
)
def test_a_changed_byte_a_smuggled_original_and_a_sample_more_are_refused(copy, name, data):
    path = copy.collection / "releases/0002/shards/00000.tar"
    members = read_tar(path)
    whole = members.get(name, b"")
    flipped = whole[:-20] + bytes(byte ^ 1 for byte in whole[-20:-19]) + whole[-19:]
    write_tar(path, (members | {name: flipped if data is None else data}).items())
    assert guard(copy.collection / "releases/0002", [path]).problem_count == 1
    with pytest.raises(KeptSetError, match=r"does not hold the image that was judged|is not the one its manifest"):
        list(open_kept(copy.collection))
    assert any("00000.tar" in problem for problem in verify(copy.collection).problems)


def test_a_column_that_names_what_was_removed_is_a_leak(copy):
    path = copy.collection / "releases/0002/manifest/00000.parquet"
    table = pq.read_table(path)
    digests = [take_digests(LISTED).sha256, *table[schema.IN_TAR].to_pylist()[1:]]
    place = table.column_names.index(schema.IN_TAR)
    forged = table.set_column(place, table.schema.field(place), pa.array(digests, pa.binary(32)))
    path.write_bytes(schema.encode(forged))
    done = call("leakscan", copy.collection)
    assert done.code == 3
    assert "row 0 has an image that is not kept elsewhere" in done.out + done.err


def test_two_workers_give_the_same_bytes_as_one(tmp_path):
    scrape = make(tmp_path / "scrape", resize=SIDE, quality=80)
    truth = outputs(scrape.collection, scrape.identity)
    shutil.rmtree(scrape.collection)
    settle(scrape, workers=2, resize=SIDE, quality=80)
    assert problems(scrape, truth) == []


def test_only_a_tar_with_images_of_the_same_kind_is_linked(copy):
    def tar(number):
        return copy.collection / f"releases/{number:04d}/shards/00000.tar"

    write_list(copy.root / "lists/known.csv", [("md5", bytes(range(16))), ("pdq", bytes(range(32)))])
    settle(copy, resize=SIDE)
    assert tar(3).stat().st_ino == tar(2).stat().st_ino
    settle(copy, resize=SIDE, quality=60)
    assert tar(4).stat().st_size < tar(3).stat().st_size
    settle(copy)
    assert tar(5).read_bytes() == tar(1).read_bytes()
    assert verify(copy.collection).problems == []


def test_an_image_that_can_not_be_decoded_again_is_not_released_and_is_not_named(copy, monkeypatch):
    decode = Decoder.decode

    def tired(self, images):
        for image in images:
            yield from [FaultKind.CPU_LIMIT] if image == SAMPLES["large"]["jpg"] else decode(self, [image])

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "decode", tired)
        copy.settings["release"]["resize"] = 32
        copy.write()
        done = call("settle", copy.config, "--workers", 1)
    assert done.code == 1
    assert "shard 00000: an image that could be decoded when it was examined cannot be now (cpu_limit)" in message(
        done
    )
    assert not any(word in done.out + done.err for word in ("large", "a caption", "example.invalid"))
    assert (copy.collection / "current").read_text() == "0002\n"
    assert not list((copy.collection / "releases/0003").rglob("*.*"))
    settle(copy, resize=32)
    assert (copy.collection / "current").read_text() == "0003\n"
    assert verify(copy.collection).problems == []


def test_without_tars_there_is_nothing_to_resize(copy):
    done = call("settle", copy.config, "--no-shards")
    assert (done.code, "[release] resize is about the images in tars" in message(done)) == (2, True)
