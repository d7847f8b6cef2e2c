"""Verification: every change of a finished collection is found and named, and an honest one passes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from finished import SHARDS, make_finished

from manifests.cases import SealError, open_sealed
from manifests.commits import Close, ExamineCommit, RecordError, SettleCommit
from manifests.verify import verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_finished(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished.collection, tmp_path / "copy")
    return tmp_path / "copy"


def named_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file() and "journal" not in path.parts]


def test_an_honest_collection_passes_and_so_does_a_copy_without_its_journal(copy):
    shutil.rmtree(copy / "journal")
    report = verify(copy)
    assert report.problems == []
    assert [line.split(":")[0] for line in report.checked] == [
        "2 examined shards", "settle 0001", "release 0001", "settle 0002", "release 0002",
        "no log is kept",
    ]  # fmt: skip


def test_a_folder_that_is_no_collection_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="not a collection"):
        verify(tmp_path)


def test_a_changed_byte_in_any_file_is_found(copy, finished):
    for path in named_files(copy):
        good = path.read_bytes()
        is_sealed = path.suffix == ".age"
        for at in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:at] + bytes([good[at] ^ 0x04]) + good[at + 1 :])
            problems = verify(copy).problems
            if is_sealed:  # only a holder of the key can tell
                with pytest.raises(SealError):
                    open_sealed(path.read_bytes(), identity=finished.identity, source="x")
            else:
                assert problems, (path, at)
        path.write_bytes(good)
    assert verify(copy).problems == []


def test_a_file_that_is_gone_or_longer_is_found_and_named(copy):
    for path in named_files(copy):
        if path.name == "examine_plan.json":
            continue  # without it there is no collection
        good = path.read_bytes()
        path.unlink()
        assert any(str(path.parent) in line for line in verify(copy).problems), path
        # Of a sealed file only the size is known.
        path.write_bytes(good[:-1000] if path.suffix == ".age" else good + b"\n")
        assert any(str(path.parent) in line for line in verify(copy).problems), path
        path.write_bytes(good)
    assert verify(copy).problems == []


def test_a_file_more_is_found_in_any_folder(copy):
    folders = [copy, *(path for path in copy.rglob("*") if path.is_dir() and path.name != "journal")]
    for folder in folders:
        for name in ("00002.parquet", "more.txt", ".hidden", "0003"):
            (folder / name).write_bytes(b"")
            assert any(f"{folder / name}" in line for line in verify(copy).problems), folder / name
            (folder / name).unlink()
    (copy / "releases/0003").mkdir()
    assert verify(copy).problems == [f"{copy / 'releases/0003'}: belongs to no closed release"]


@pytest.mark.parametrize("shard", SHARDS)
def test_a_shard_that_was_taken_out_whole_is_found(copy, shard):
    for path in copy.rglob(f"{shard}*"):
        if "settled" not in path.parts and "releases" not in path.parts:
            path.unlink()
    assert any(f"{shard}.json: missing or damaged; settle 0002 names it" in line for line in verify(copy).problems)


def test_a_settle_that_was_taken_out_whole_is_found(copy):
    shutil.rmtree(copy / "settled/0001")
    shutil.rmtree(copy / "releases/0001")
    assert verify(copy).problems == [f"{copy / 'settled'}: settles [2] are not numbered without a gap"]


RECORDS = [
    ("settled/0002/close.json", Close, {"number": 3}),
    ("settled/0002/close.json", Close, {"released": False, "refused": ("x",)}),
    ("settled/0002/close.json", Close, {"stamps": ("unsafe_stand_in_models",)}),
    ("settled/0002/close.json", Close, {"plan": "0" * 64}),
    ("settled/0002/close.json", Close, {"examine_plan": "0" * 64}),
    ("settled/0002/close.json", Close, {"uids": None}),
    ("settled/0001/close.json", Close, {"plan": "0" * 64}),
    ("settled/0002/decisions/00000.json", SettleCommit, {"keep": 4, "remove": 0}),
    ("settled/0002/decisions/00000.json", SettleCommit, {"plan": "0" * 64}),
    ("settled/0001/decisions/00000.json", SettleCommit, {"faults": 0}),
    ("examined/00000.json", ExamineCommit, {"plan": "0" * 64}),
    ("examined/00000.json", ExamineCommit, {"samples": 7}),
    ("examined/00000.json", ExamineCommit, {"withheld": 1}),
    ("examined/00000.json", ExamineCommit, {"damage": "none at all"}),
    ("examined/00000.json", ExamineCommit, {"input_sha256": "0" * 64}),
    ("examined/00000.json", ExamineCommit, {"judged_under": "0" * 64}),
    ("examined/00000.json", ExamineCommit, {"shard": "00001"}),
]


@pytest.mark.parametrize(
    ("name", "kind", "change"), RECORDS, ids=[f"{name} {change}" for name, _, change in RECORDS]
)
def test_a_record_with_another_value_is_found(copy, name, kind, change):
    path = copy / name
    replace(kind.read(path), **change).write(path, replace=True, mode=0o600)
    assert verify(copy).problems


@pytest.mark.parametrize(
    "name", ["settled/0002/close.json", "settled/0001/decisions/00001.json", "examined/00000.json"]
)
def test_a_record_that_says_the_same_in_another_form_is_found(copy, name):
    record = json.loads((copy / name).read_bytes())
    (copy / name).write_text(json.dumps(record, indent=1))
    assert any("not in the one form" in line for line in verify(copy).problems)


@pytest.mark.parametrize("text", ["0001\n", "0003\n", "", "\xff", "2\n"])
def test_current_must_name_the_newest_release(copy, text):
    (copy / "current").write_bytes(text.encode("latin-1"))
    assert any("does not name the newest release (0002)" in line for line in verify(copy).problems)


def test_a_settle_that_was_never_closed_is_found(copy):
    os.rename(copy / "settled/0002/close.json", copy / "x")
    os.unlink(copy / "x")
    problems = verify(copy).problems
    assert f"{copy / 'settled/0002'}: named by no record" in problems
    assert f"{copy / 'releases/0002'}: belongs to no closed release" in problems


def test_verifying_changes_nothing(copy):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in copy.rglob("*")}
    verify(copy)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in copy.rglob("*")} == before
