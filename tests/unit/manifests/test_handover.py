"""What a training job gets: the kept samples of a closed release, each held against the manifest."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from finished import SHARDS, image, make_finished
from in_process import call
from scrapes import ROOT, Scrape, jpeg, write_tar

from manifests.commits import RecordError
from manifests.handover import KeptSetError, open_kept
from manifests.schema import TableError

KEPT = ("kept_a", "kept_b", "kept_c")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_finished(tmp_path_factory.mktemp("handover"))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """What is handed on: the releases and `current`, nothing restricted."""
    shutil.copytree(finished.collection / "releases", tmp_path / "copy" / "releases")
    shutil.copy(finished.collection / "current", tmp_path / "copy")
    return tmp_path / "copy"


def test_the_kept_samples_come_in_order_with_their_bytes_and_captions(copy):
    samples = list(open_kept(copy))
    assert [sample.key for sample in samples] == [f"{shard}/{name}" for shard in SHARDS for name in KEPT]
    for sample in samples:
        shard, _, name = sample.key.partition("/")
        assert sample.members["jpg"] == image(shard, name)
        assert sample.caption == (name if name == "kept_a" else None)
        assert set(sample.members) == ({"jpg", "txt"} if name == "kept_a" else {"jpg"})


def test_an_older_release_is_opened_by_its_number(copy):
    keys = {sample.key for sample in open_kept(copy, number=1)}
    assert keys - {sample.key for sample in open_kept(copy)} == {f"{shard}/later" for shard in SHARDS}


@pytest.mark.parametrize("text", [None, b"", b"two\n", b"\xff"])
def test_without_a_closed_release_there_is_nothing_to_open(copy, text):
    (copy / "current").unlink()
    if text is not None:
        (copy / "current").write_bytes(text)
    with pytest.raises(RecordError, match="no closed release"):
        next(open_kept(copy))


def change_tar(root: Path, change) -> None:
    path = root / "releases/0002/shards/00001.tar"
    with tarfile.open(path) as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}
    write_tar(path, change(members))


def with_(name, data):
    return lambda members: {**members, name: data}.items()


def without(name):
    return lambda members: [(key, data) for key, data in members.items() if key != name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_("kept_b.jpg", jpeg(99)), "sample number 2 does not hold the image that was judged"),
        (with_("kept_b.jpg", b""), "sample number 2 does not hold the image that was judged"),
        (with_("zebra.jpg", jpeg(99)), "sample number 4 is not the one its manifest names"),
        (without("kept_b.jpg"), "sample number 2 is not the one its manifest names"),
        (without("kept_c.jpg"), "holds 2 samples, its manifest names 3"),
        (lambda members: reversed(members.items()), "sample number 1 is not the one its manifest names"),
        (lambda members: [*members.items(), ("kept_a.jpg", jpeg(1))], "sample number 4"),
        (lambda members: [], "holds 0 samples, its manifest names 3"),
        (
            lambda members: [("kept_a.jpg", b"x"), *members.items()],
            "holds a member that is no file, or one member twice",
        ),
        (lambda members: [("\udcff.jpg", b"")], "00001.tar"),
    ],
)
def test_a_changed_tar_is_refused(copy, change, message):
    change_tar(copy, change)
    with pytest.raises(KeptSetError, match=message):
        list(open_kept(copy))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_folder_in_a_tar_is_refused_and_never_followed(copy, kind):
    path = copy / "releases/0002/shards/00001.tar"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("kept_a.jpg")
        info.type, info.linkname = kind, "/etc/hostname"
        tar.addfile(info)
    path.write_bytes(out.getvalue())
    with pytest.raises(KeptSetError, match="a member that is no file"):
        list(open_kept(copy))


@pytest.mark.parametrize("data", [b"", b"junk" * 500, None])
def test_a_tar_that_is_none_is_refused(copy, data):
    path = copy / "releases/0002/shards/00001.tar"
    path.write_bytes(path.read_bytes()[:700] if data is None else data)
    with pytest.raises(KeptSetError, match=r"00001\.tar"):
        list(open_kept(copy))


def test_a_damaged_manifest_is_refused(copy):
    path = copy / "releases/0002/manifest/00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TableError, match=r"00001\.parquet: not a readable Parquet table"):
        list(open_kept(copy))


def test_a_release_made_without_tars_says_so(tmp_path):
    scrape = Scrape.make(tmp_path, release={"shards": False})
    write_tar(scrape.shards / "a.tar", [("a.jpg", jpeg(1))])
    assert call("run", scrape.config, "--workers", 1).code == 0
    with pytest.raises(KeptSetError, match="was made without tars; read its manifest"):
        next(open_kept(scrape.collection))
    assert call("verify", scrape.collection).code == 0


def test_iterating_needs_neither_torch_nor_anything_of_the_pipeline(copy):
    code = (
        "import sys, pathlib\nfrom manifests.handover import open_kept\n"
        f"print(sum(1 for _ in open_kept(pathlib.Path({str(copy)!r}))))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'pipeline', 'classifiers', 'PIL'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["6", "[]"]
