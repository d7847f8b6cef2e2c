"""From a run to those who train and to outsiders: guard and publish on real releases."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from finished import make_finished
from in_process import call, files, message
from scrapes import ROOT, Scrape, jpeg, write_tar

from manifests.guard import guard
from manifests.handover import open_kept
from manifests.publish import publish
from manifests.verify import verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_finished(tmp_path_factory.mktemp("handing"))


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished.collection, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_tars_of_a_release_pass_the_guard(finished):
    release = finished.collection / "releases/0002"
    done = call("guard", release, release / "shards")
    assert (done.code, done.err) == (0, "")
    assert "checked 6 samples in 2 tars" in done.out
    assert "0 samples of the manifest are not in these data" in done.out


def test_the_shards_that_went_in_do_not_and_no_key_is_told(finished):
    done = call("guard", finished.collection / "releases/0002/manifest", finished.shards / "*.tar")
    assert done.code == 3
    text = message(done)
    assert "00000.tar: sample 2: not in the manifest, or its image was changed" in text
    assert "10 problems: do not train on this" in text
    names = ("sealed", "later", "removed", "bare", "cut.")
    assert not any(name in done.out + text for name in names)


def test_an_earlier_release_is_not_covered_by_the_next(finished):
    releases = finished.collection / "releases"
    done = call("guard", releases / "0002", releases / "0001" / "shards")
    assert (done.code, message(done).count("not in the manifest")) == (3, 2)


@pytest.mark.parametrize("data", ["nowhere", "*.zip"])
def test_nothing_to_guard_is_a_mistake_of_usage(finished, data):
    done = call("guard", finished.collection / "releases/0002", finished.root / data)
    assert done.code == 2
    assert "no tar there" in message(done)


def test_guard_and_ingest_know_the_same_first_image(tmp_path):
    scrape = Scrape.make(tmp_path, members={"text": ["json", "txt"], "copied": ["cls"]})
    write_tar(
        scrape.shards / "a.tar",
        [
            ("two.png", jpeg(1)), ("two.jpg", jpeg(2)), ("two.txt", b"words"),
            ("folder.x/odd.data", jpeg(3)), ("folder.x/odd.cls", b"7"), ("UPPER.JPG", jpeg(4)),
            ("apart.0.jpg", jpeg(5)), ("other.jpg", jpeg(6)), ("apart.1.jpg", jpeg(7)),
        ],
    )  # fmt: skip
    assert call("run", scrape.config, "--workers", 1).code == 0
    release = scrape.collection / "releases/0001"
    assert len(list(open_kept(scrape.collection))) == 5
    for data in (release / "shards", scrape.shards):
        report = guard(release, [data], members=["json", "txt", "cls"])
        assert (report.samples, report.problems, report.absent, report.renamed) == (5, [], 0, 0)


def test_a_small_release_is_not_handed_out_and_nothing_is_written(copy, tmp_path):
    before = files(copy)
    done = call("publish", copy, "--to", tmp_path / "out")
    assert done.code == 3
    assert "mixing set too small" in message(done)
    assert not re.search(r"\d", message(done) + done.out)
    assert files(copy) == before
    assert not (tmp_path / "out").exists()
    secret = tmp_path / "cover.key"
    secret.write_bytes(bytes(32))
    secret.chmod(0o600)
    assert call("publish", copy, "--to", tmp_path / "out", "--cover", secret).code == 3
    secret.chmod(0o644)
    assert call("publish", copy, "--to", tmp_path / "out", "--cover", secret).code == 2
    assert call("publish", copy, "--to", tmp_path / "out", "--release", 1).code == 2
    assert call("publish", tmp_path, "--to", tmp_path / "out").code != 0
    assert files(copy) == before


def test_a_publication_is_a_manifest_to_guard_by_and_its_record_is_verified(copy, tmp_path):
    publish(copy, tmp_path / "out", least=1, per_withheld=1)
    report = guard(tmp_path / "out", [copy / "releases/0002/shards"])
    assert (report.problem_count, report.absent) == (0, 0)
    assert verify(copy).problems == []
    record = copy / "publications/0001/manifest/00000.parquet"
    shutil.copy(record, record.with_name("more.parquet"))
    assert "named by no record" in verify(copy).problems[0]
    record.write_bytes(record.read_bytes()[:-1])
    assert "bytes differ" in verify(copy).problems[0]
    shutil.move(copy / "publications/0001", copy / "publications/0002")
    assert "a record is missing" in verify(copy).problems[0]


def test_handing_over_loads_no_torch_and_nothing_of_the_pipeline():
    code = (
        "import sys, manifests.guard, manifests.publish\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'pipeline', 'classifiers', 'PIL'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"]
