"""Released tars: bytes of members unchanged, headers new, nothing else."""

from __future__ import annotations

import gc
import hashlib
import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapes import write_tar

from manifests.kept_shards import KeptMember, SourceChangedError, write_kept_shard
from manifests.tars import index_tar

BODY = st.binary(max_size=1200)
LONG = "folder/" * 20 + "ünïcode and long.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


def kept_members(source, names=None) -> list[KeptMember]:
    found = []
    with source.open("rb") as file:
        for member in index_tar(source).members:
            if names is None or member.name in names:
                file.seek(member.offset)
                digest = hashlib.sha256(file.read(member.size)).digest()
                found.append(KeptMember(member.name, member.offset, member.size, digest))
    return found


def read_tar(path) -> list[tuple[str, bytes]]:
    with tarfile.open(path, "r:") as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]


@settings(max_examples=80, deadline=None)
@given(bodies=st.lists(BODY, max_size=6), keep=st.sets(st.integers(0, 5)))
def test_members_are_copied_to_the_byte_and_the_digest_is_that_of_the_file(folder, bodies, keep):
    source, target = folder / "source.tar", folder / "target.tar"
    names = [f"{number}/{LONG}" if number % 2 else f"{number}.jpg" for number in range(len(bodies))]
    write_tar(source, zip(names, bodies, strict=True))
    chosen = [name for number, name in enumerate(names) if number in keep]
    written = write_kept_shard(source, kept_members(source, chosen), target)
    assert read_tar(target) == [(name, bodies[names.index(name)]) for name in chosen]
    data = target.read_bytes()
    assert (written.name, written.size) == ("target.tar", len(data))
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert index_tar(target).damage is None


def test_what_hides_in_the_headers_and_gaps_of_a_source_is_not_released(folder, tmp_path):
    secret = b"what hides here"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size, info.mtime, info.uid, info.mode = 5, 1234567890, 77, 0o777
        info.uname = info.gname = secret.decode()
        info.pax_headers = {"comment": secret.decode()}
        tar.addfile(info, io.BytesIO(b"bytes"))
    data = out.getvalue().replace(b"bytes" + bytes(len(secret)), b"bytes" + secret)
    assert data.count(secret) == 4
    source, target = tmp_path / "source.tar", tmp_path / "target.tar"
    source.write_bytes(data)
    write_kept_shard(source, kept_members(source), target)
    assert secret not in target.read_bytes()
    with tarfile.open(target) as tar:
        (info,) = tar.getmembers()
    assert (info.name, info.size, info.mtime, info.uid, info.gid) == ("a.jpg", 5, 0, 0, 0)
    assert (info.mode, info.uname, info.gname, info.pax_headers) == (0o644, "", "", {})


def test_the_same_members_give_the_same_bytes_whatever_their_source_looked_like(tmp_path):
    members = [("a.jpg", b"one"), ("b.jpg", b"two")]
    one = write_tar(tmp_path / "one.tar", members)
    two = write_tar(tmp_path / "two.tar", [("other.txt", b"x"), *reversed(members)])
    wanted = sorted(kept_members(two, ["a.jpg", "b.jpg"]), key=lambda member: member.name)
    assert write_kept_shard(one, kept_members(one), tmp_path / "x.tar").sha256 == (
        write_kept_shard(two, wanted, tmp_path / "y.tar").sha256
    )


# webdataset leaves the last file open until it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_it_is_read_by_webdataset_as_the_source_is(tmp_path):
    samples = {
        f"{number:03d}": {"jpg": bytes([number]) * 99, "txt": b"caption", "json": b"{}"} for number in range(5)
    }
    members = [(f"{key}.{ext}", data) for key, parts in samples.items() for ext, data in parts.items()]
    source = write_tar(tmp_path / "source.tar", members)
    kept = [member for member in kept_members(source) if not member.name.startswith("002")]
    write_kept_shard(source, kept, tmp_path / "kept.tar")
    found = {
        sample["__key__"]: {name: sample[name] for name in ("jpg", "txt", "json")}
        for sample in webdataset.WebDataset(str(tmp_path / "kept.tar"), shardshuffle=False)
    }
    gc.collect()
    assert found == {key: parts for key, parts in samples.items() if key != "002"}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"two", b"TWO"),
        lambda data: data[:1100],
        lambda data: data[:1537],
        lambda data: b"",
    ],
)
def test_a_source_that_has_changed_writes_nothing(tmp_path, change):
    source = write_tar(tmp_path / "source.tar", [("a.jpg", b"one"), ("b.jpg", b"two")])
    members = kept_members(source)
    source.write_bytes(change(source.read_bytes()))
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceChangedError, match=r"restore the shard|shorter than when it was judged"):
        write_kept_shard(source, members, tmp_path / "out" / "kept.tar")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_member_that_nobody_judged_is_copied_without_a_digest(tmp_path):
    source = write_tar(tmp_path / "source.tar", [("a.txt", b"caption")])
    (member,) = kept_members(source)
    written = write_kept_shard(source, [KeptMember("a.txt", member.offset, member.size, None)], tmp_path / "k.tar")
    assert read_tar(tmp_path / "k.tar") == [("a.txt", b"caption")]
    assert written.size == (tmp_path / "k.tar").stat().st_size


def test_no_members_make_an_empty_archive(tmp_path):
    source = write_tar(tmp_path / "source.tar", [])
    write_kept_shard(source, [], tmp_path / "kept.tar")
    index = index_tar(tmp_path / "kept.tar")
    assert (index.members, index.damage) == ((), None)
