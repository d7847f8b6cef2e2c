"""The guard: one swapped byte and one extra sample in a hundred shards are found, and an honest set passes."""

from __future__ import annotations

import hashlib
import shutil
import tarfile

import pytest
import webdataset
from made_releases import manifest_table
from scrapes import write_tar

from manifests import schema
from manifests.guard import GuardError, NotInManifestError, guard, guarded

SHARDS, SAMPLES = 100, 12


def picture(shard: int, number: int) -> bytes:
    """What begins as a JPEG does is enough: the guard decodes nothing."""
    return b"\xff\xd8\xff" + hashlib.blake2b(f"{shard} {number}".encode()).digest() * 4


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def both(shard: int) -> bytes:
    """What binds the two images of sample 3."""
    return sha256(sha256(picture(shard, 3)) + sha256(picture(shard, 900)))


def key(shard: int, number: int) -> str:
    return f"{shard:05d}{number:04d}"


def members(shard: int) -> list[tuple[str, bytes]]:
    found = []
    for number in range(SAMPLES):
        name = key(shard, number)
        found += [(f"{name}.jpg", picture(shard, number)), (f"{name}.txt", b"words"), (f"{name}.json", b"{}")]
        if number == 3:
            found.append((f"{name}.second.png", picture(shard, 900)))
    return found


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    root = tmp_path_factory.mktemp("guard")
    (root / "release" / "manifest").mkdir(parents=True)
    for shard in range(SHARDS):
        write_tar(root / "data" / f"{shard:05d}.tar", members(shard))
        several = {3: (2, both(shard))}
        rows = [
            (f"{shard:05d}", n, key(shard, n), sha256(picture(shard, n)), *several.get(n, (1, None)))
            for n in range(SAMPLES)
        ]
        path = root / "release" / "manifest" / f"{shard:05d}.parquet"
        path.write_bytes(schema.encode(manifest_table(rows)))
    return root


@pytest.fixture
def data(honest, tmp_path):
    shutil.copytree(honest / "data", tmp_path / "data")
    return tmp_path / "data"


def test_an_honest_set_passes(honest):
    for manifest in ("release", "release/manifest"):
        report = guard(honest / manifest, [honest / "data"])
        assert (report.tars, report.samples, report.absent) == (SHARDS, SHARDS * SAMPLES, 0)
        assert (report.renamed, report.problem_count, report.problems) == (0, 0, [])


def test_a_part_of_the_set_may_be_trained_on(honest):
    report = guard(honest / "release", [str(honest / "data" / "0000[0-4].tar"), honest / "data" / "00003.tar"])
    assert (report.tars, report.problem_count, report.absent) == (5, 0, (SHARDS - 5) * SAMPLES)
    one = guard(honest / "release/manifest/00007.parquet", [honest / "data/00007.tar"])
    assert (one.problem_count, one.absent) == (0, 0)


def test_one_swapped_byte_and_one_extra_sample_in_a_hundred_shards_are_found(honest, data):
    swapped = bytearray((data / "00041.tar").read_bytes())
    with tarfile.open(data / "00041.tar") as archive:
        swapped[archive.getmember(f"{key(41, 5)}.jpg").offset_data + 40] ^= 1
    (data / "00041.tar").write_bytes(swapped)
    write_tar(data / "00077.tar", [*members(77), ("extra.jpg", picture(1000, 1))])
    report = guard(honest / "release", [data])
    unknown = "not in the manifest, or its image was changed"
    assert report.problems == [f"00041.tar: sample 6: {unknown}", f"00077.tar: sample {SAMPLES + 1}: {unknown}"]
    assert report.absent == 1


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ([("copy.jpg", picture(0, 1))], "more often in the data than in the manifest"),
        ([("lonely.txt", b"words")], "no image: a member that belongs to no sample"),
        ([("noextension", b"words")], "no image: a member that belongs to no sample"),
        ([(f"{key(0, 1)}.png", picture(0, 500))], "not in the manifest"),
        ([(f"{key(0, 3)}.third.png", picture(0, 500))], "not in the manifest"),
        ([(f"{key(0, 1)}.jpg", picture(0, 1))], "two members of one extension"),
        ([(f"{key(0, 1)}.mp4", b"film")], "one that may not lie beside images"),
        ([(f"{key(0, 1)}.txt2", picture(0, 500))], "not in the manifest"),  # an image whatever it is called
        ([("../up.jpg", picture(0, 1))], "badly named"),
    ],
)
def test_what_does_not_belong_is_refused(honest, tmp_path, extra, why):
    write_tar(tmp_path / "00000.tar", [*members(0), *extra])
    report = guard(honest / "release", [tmp_path])
    assert report.problem_count == 1
    assert why in report.problems[0]
    assert not any(name in report.problems[0] or key(0, 1) in report.problems[0] for name, _ in extra)


@pytest.mark.parametrize("second", [picture(0, 500), picture(0, 3)])
def test_a_second_image_that_was_swapped_is_found(honest, tmp_path, second):
    swapped = [(name, second if "second" in name else data) for name, data in members(0)]
    write_tar(tmp_path / "00000.tar", swapped)
    report = guard(honest / "release", [tmp_path])
    assert report.problems == ["00000.tar: sample 4: not in the manifest, or its image was changed"]
    with pytest.raises(NotInManifestError, match="sample number 4"):
        list(guarded(read(tmp_path / "00000.tar"), honest / "release"))


def test_images_that_changed_places_are_found_and_other_places_in_the_tar_are_not(honest, tmp_path):
    places = {f"{key(0, 3)}.jpg": picture(0, 900), f"{key(0, 3)}.second.png": picture(0, 3)}
    write_tar(tmp_path / "a.tar", [(name, places.get(name, data)) for name, data in members(0)])
    assert guard(honest / "release", [tmp_path]).problem_count == 1
    write_tar(tmp_path / "a.tar", reversed(members(0)))
    assert guard(honest / "release", [tmp_path]).problem_count == 0


def test_members_that_are_named_may_lie_beside_images(honest, tmp_path):
    write_tar(tmp_path / "00000.tar", [*members(0), (f"{key(0, 1)}.cls", b"7")])
    assert guard(honest / "release", [tmp_path], members=["json", "txt", "cls"]).problem_count == 0


def test_resharded_samples_pass_and_new_keys_are_counted(honest, tmp_path):
    first = [(name.replace(key(0, 2), "renamed"), data) for name, data in members(0)]
    write_tar(tmp_path / "all.tar", [*members(2), *first])
    report = guard(honest / "release", [tmp_path])
    assert (report.samples, report.problem_count, report.renamed) == (2 * SAMPLES, 0, 1)


def test_a_content_that_is_named_twice_may_come_twice(tmp_path):
    digest = sha256(picture(0, 0))
    rows = [("s", 0, "a", digest, 1), ("s", 1, "b", digest, 1)]
    (tmp_path / "m.parquet").write_bytes(schema.encode(manifest_table(rows)))
    copies = [(f"{name}.jpg", picture(0, 0)) for name in "abc"]
    write_tar(tmp_path / "two.tar", copies[:2])
    write_tar(tmp_path / "three.tar", copies)
    two = guard(tmp_path / "m.parquet", [tmp_path / "two.tar"])
    assert (two.problem_count, two.renamed, two.absent) == (0, 0, 0)
    assert guard(tmp_path / "m.parquet", [tmp_path / "three.tar"]).problem_count == 1


def test_damaged_and_compressed_tars_are_refused(honest, tmp_path):
    whole = (honest / "data/00000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:-6000])
    (tmp_path / "packed.tar.gz").write_bytes(b"\x1f\x8b" + bytes(600))
    (tmp_path / "00000.txt").write_text("no tar")
    report = guard(honest / "release", [tmp_path])
    assert report.tars == 2
    assert {line.split(":")[0] for line in report.problems} == {"cut.tar", "packed.tar.gz"}


def test_only_the_first_problems_are_shown_and_all_are_counted(honest, tmp_path):
    write_tar(tmp_path / "a.tar", [(f"k{n}.jpg", picture(5000, n)) for n in range(50)])
    report = guard(honest / "release", [tmp_path])
    assert (report.problem_count, len(report.problems)) == (50, 20)


def test_nothing_to_check_is_an_error_and_not_a_pass(honest, tmp_path):
    for nothing in (tmp_path, tmp_path / "missing.tar", str(tmp_path / "*.tar")):
        with pytest.raises(GuardError, match="no tar there"):
            guard(honest / "release", [nothing])
    with pytest.raises(GuardError, match="holds no manifest"):
        guard(tmp_path, [honest / "data"])
    (tmp_path / "x.parquet").write_bytes(schema.encode(manifest_table([]).select(["key"])))
    with pytest.raises(GuardError, match="not a manifest"):
        guard(tmp_path, [honest / "data"])


def read(path):
    """As webdataset makes samples; with files of ours, since it leaves its own open."""
    with path.open("rb") as stream:
        members = webdataset.tariterators.tar_file_expander([{"url": str(path), "stream": stream}])
        yield from webdataset.tariterators.group_by_keys(members)


def test_a_webdataset_pipeline_stops_at_the_first_sample_that_is_not_in_the_manifest(honest, tmp_path):
    assert sum(1 for _ in guarded(read(honest / "data/00000.tar"), honest / "release")) == SAMPLES
    write_tar(tmp_path / "a.tar", [*members(0)[:9], ("zebra.jpg", picture(5000, 1)), *members(0)[9:]])
    passed = []
    with pytest.raises(NotInManifestError, match="sample number 4: not in the manifest") as refused:
        passed.extend(sample["__key__"] for sample in guarded(read(tmp_path / "a.tar"), honest / "release"))
    assert passed == [key(0, number) for number in range(3)]
    assert "zebra" not in str(refused.value)


def test_decoded_samples_are_refused(honest):
    with pytest.raises(NotInManifestError, match="decoded"):
        next(guarded([{"__key__": "a", "jpg": object()}], honest / "release"))
