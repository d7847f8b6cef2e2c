"""Verification of a collection in which a forger brought every digest in line again."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished import image, make_finished, record_again, rewrite
from in_process import call
from scrapes import write_tar

from manifests.commits import ExamineCommit
from manifests.verify import verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_finished(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished.collection, tmp_path / "copy")
    return tmp_path / "copy"


def table_of(root: Path, name: str) -> tuple[Path, pa.Table]:
    path = root / name
    return path, pq.read_table(path)


def changed(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))


MANIFEST = "releases/0002/manifest/00000.parquet"
DECISIONS = "settled/0002/decisions/00000.parquet"
TAR = "releases/0002/shards/00000.tar"


def swapped_rows(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, table.take(pa.array([1, 0, 2])))


def dropped_row(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, table.slice(1))


def doubled_row(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, pa.concat_tables([table.slice(0, 1), table]))


def removed_sample_in_the_manifest(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, changed(changed(table, "key", 0, "removed"), "index", 0, 3))


def content_nobody_judged(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, changed(changed(table, "sha256", 0, b"\1" * 32), "uid", 0, b"\1" * 16))


def another_samples_content(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    second = table.to_pylist()[1]
    rewrite(path, changed(changed(table, "sha256", 0, second["sha256"]), "uid", 0, second["uid"]))


def another_uid(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, changed(table, "uid", 0, b"\1" * 16))


def digest_of_several(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, changed(table, "images_sha256", 0, b"\1" * 32))


def column_less(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, table.drop_columns(["images_sha256"]))


def column_more(root: Path) -> None:
    path, table = table_of(root, MANIFEST)
    rewrite(path, table.append_column("reason", pa.array(["x"] * table.num_rows)))


def kept_against_the_manifest(root: Path) -> None:
    path, table = table_of(root, DECISIONS)
    row = table["key"].to_pylist().index("removed")
    rewrite(path, changed(changed(table, "action", row, "KEEP"), "reason", row, None))


def lost_decision(root: Path) -> None:
    path, table = table_of(root, DECISIONS)
    rewrite(path, table.slice(1))


def renamed_decision(root: Path) -> None:
    path, table = table_of(root, DECISIONS)
    rewrite(path, changed(table, "key", 0, "renamed"))


def withheld_sample_with_a_reason(root: Path) -> None:
    path, table = table_of(root, DECISIONS)
    row = table["key"].to_pylist().index("sealed")
    rewrite(path, changed(table, "rule", row, "listed"))


def withheld_sample_with_a_signal(root: Path) -> None:
    path, table = table_of(root, DECISIONS)
    row = table["key"].to_pylist().index("later")
    rewrite(path, changed(table, "signal.list.csam.exact", row, 1.0))


def withheld_sample_with_an_action(root: Path) -> None:
    path, table = table_of(root, DECISIONS)
    row = table["key"].to_pylist().index("sealed")
    rewrite(path, changed(table, "action", row, "REMOVE"))


def features(root: Path) -> tuple[Path, pa.Table]:
    return table_of(root, f"examined/{ExamineCommit.read(root / 'examined/00000.json').features.name}")


def withheld_sample_with_a_url(root: Path) -> None:
    path, table = features(root)
    rewrite(path, changed(table, "url", table["key"].to_pylist().index("sealed"), "http://example.invalid/x"))


def withheld_sample_with_a_digest(root: Path) -> None:
    path, table = features(root)
    rewrite(path, changed(table, "md5", table["key"].to_pylist().index("later"), b"\1" * 16))


def fault_taken_away(root: Path) -> None:
    path, table = features(root)
    rewrite(path, changed(table, "fault", table["key"].to_pylist().index("cut"), None))


def features_without_a_sample(root: Path) -> None:
    path, table = features(root)
    rewrite(path, table.slice(0, table.num_rows - 1))


def uids_unsorted(root: Path) -> None:
    uids = np.load(root / "releases/0002/uids.npy")
    np.save(root / "releases/0002/uids.npy", uids[::-1])


def uids_without_one(root: Path) -> None:
    uids = np.load(root / "releases/0002/uids.npy")
    np.save(root / "releases/0002/uids.npy", uids[1:])


def uids_of_others(root: Path) -> None:
    uids = np.load(root / "releases/0002/uids.npy")
    uids["f1"][2] ^= np.uint64(1)
    np.save(root / "releases/0002/uids.npy", np.sort(uids, order=("f0", "f1")))


def tar_members(root: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(root / TAR) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]


def sample_more_in_the_tar(root: Path) -> None:
    write_tar(root / TAR, [*tar_members(root), ("removed.jpg", image("00000", "removed"))])


def sample_less_in_the_tar(root: Path) -> None:
    write_tar(root / TAR, tar_members(root)[:-1])


def another_image_in_the_tar(root: Path) -> None:
    members = dict(tar_members(root))
    write_tar(root / TAR, {**members, "kept_b.jpg": image("00000", "removed")}.items())


def swapped_samples_in_the_tar(root: Path) -> None:
    write_tar(root / TAR, reversed(tar_members(root)))


FORGED: list[tuple[Callable[[Path], None], str]] = [
    (swapped_rows, f"{MANIFEST}: does not name exactly the samples that were kept"),
    (dropped_row, f"{MANIFEST}: does not name exactly the samples that were kept"),
    (doubled_row, f"{MANIFEST}: does not name exactly the samples that were kept"),
    (removed_sample_in_the_manifest, f"{MANIFEST}: does not name exactly the samples that were kept"),
    (content_nobody_judged, f"{MANIFEST}: names content that was not judged"),
    (another_samples_content, f"{MANIFEST}: names content that was not judged"),
    (another_uid, f"{MANIFEST}: a uid is not the head of its sha256"),
    (digest_of_several, f"{MANIFEST}: names content that was not judged"),
    (column_less, f"{MANIFEST}: columns are not those of a manifest"),
    (column_more, f"{MANIFEST}: columns are not those of a manifest"),
    (kept_against_the_manifest, f"{DECISIONS}: counts differ from its record"),
    (lost_decision, "shard 00000: 7 decisions do not stand for its 8 samples"),
    (renamed_decision, "shard 00000: 8 decisions do not stand for its 8 samples"),
    (withheld_sample_with_a_reason, f"{DECISIONS}: column rule is not blank for withheld samples"),
    (withheld_sample_with_a_signal, "column signal.list.csam.exact is not blank for withheld samples"),
    (withheld_sample_with_an_action, "shard 00000: a decision is neither withheld nor one of"),
    (withheld_sample_with_a_url, "examined/00000.json: column url is not blank for withheld samples"),
    (withheld_sample_with_a_digest, "examined/00000.json: column md5 is not blank for withheld samples"),
    (fault_taken_away, "examined/00000.json: says 2 faults, its features hold 1"),
    (features_without_a_sample, "examined/00000.json: its features do not hold exactly its 8 samples"),
    (uids_unsorted, "uids.npy: is not sorted"),
    (uids_without_one, "uids.npy: holds 5 uids, 6 samples were kept"),
    (uids_of_others, "uids.npy: lacks a kept sample of shard"),
    (sample_more_in_the_tar, f"{TAR}: its sample number 4 is not the one its manifest names"),
    (sample_less_in_the_tar, f"{TAR}: holds 2 samples, its manifest names 3"),
    (another_image_in_the_tar, f"{TAR}: sample number 2 does not hold the image that was judged"),
    (swapped_samples_in_the_tar, f"{TAR}: its sample number 1 is not the one its manifest names"),
]


@pytest.mark.parametrize(("forge", "problem"), FORGED, ids=[forge.__name__ for forge, _ in FORGED])
def test_a_forger_who_mends_every_digest_is_still_found(copy, forge, problem):
    forge(copy)
    record_again(copy)
    assert any(problem in line for line in verify(copy).problems), verify(copy).problems
    done = call("verify", copy)
    assert (done.code, problem in done.err) == (3, True)
