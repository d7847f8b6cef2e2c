"""The leak scan: each kind of value of what is not kept, put anywhere into a release, is found by file and row."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished import make_finished
from leak_kit import SEEDS, caption_of, change, make_settled, url_of
from scrapes import draw, encode, jpeg, write_tar

from manifests import schema
from manifests.collection import Collection
from manifests.commits import RecordError
from manifests.guard import guard
from manifests.handover import KeptSetError, open_kept
from manifests.keyed import KeyedError
from manifests.leaks import find_leaks, scan_newest
from manifests.verify import verify

SHARDS = ["00", "01"]


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    return make_settled(tmp_path_factory.mktemp("leaks"))


@pytest.fixture
def copy(settled, tmp_path) -> Path:
    shutil.copytree(settled.collection, tmp_path / "copy")
    return tmp_path / "copy"


def manifest(root: Path, shard: str) -> Path:
    return root / "releases/0001/manifest" / f"{shard}.parquet"


def sha256(key: str) -> bytes:
    return hashlib.sha256(jpeg(SEEDS[key])).digest()


def test_the_story_keeps_what_may_be_kept(settled):
    kept = {row["key"] for row in settled.decisions() if row["action"] == "KEEP"}
    assert kept == {"kept", "two", "other"}
    reasons = {row["key"]: row["reason"] for row in settled.decisions()}
    assert reasons["twice"] == "fault:ambiguous"  # the bytes of a kept sample, set aside for a fault only
    assert reasons["aside"] == "rule:child"  # the URL of a kept sample, set aside and not removed
    assert [row["images"] for row in pq.read_table(manifest(settled.collection, "00")).to_pylist()] == [1, 2]


def test_every_image_of_a_kept_sample_is_bound(settled, tmp_path):
    release = settled.collection / "releases/0001"
    assert guard(release, [release / "shards"]).problem_count == 0
    shutil.copytree(release, tmp_path / "releases/0001")
    with tarfile.open(release / "shards/00.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}
    write_tar(tmp_path / "releases/0001/shards/00.tar", {**members, "two.png": encode(draw(9), "PNG")}.items())
    with pytest.raises(KeptSetError, match="sample number 2 does not hold"):
        list(open_kept(tmp_path, number=1))
    assert guard(release, [tmp_path]).problem_count == 1


def test_an_honest_release_has_no_leak_and_neither_has_one_that_a_later_settle_withholds_from(settled, tmp_path):
    assert scan_newest(settled.collection)[1] == []
    finished = Collection(make_finished(tmp_path).collection)
    assert scan_newest(finished.root)[1] == []
    for number in (1, 2):  # what settle 0001 kept and settle 0002 seals was no leak then
        assert list(find_leaks(finished, number, ["00000", "00001"])) == []


def put(shard: str, row: int, column: str, value: object) -> Callable[[Path], str]:
    def leak(root: Path) -> str:
        change(manifest(root, shard), column, row, value)
        return f"{manifest(root, shard)}: row {row} "

    return leak


def row_of(key: str) -> Callable[[Path], str]:
    """A row that the decisions do not keep, put in whole."""

    def leak(root: Path) -> str:
        path = manifest(root, "00" if key == "removed" else "01")
        table, home = pq.read_table(path), Collection(root)
        features = pq.read_table(home.examined / f"{path.stem}.parquet").to_pylist()
        mine = next(row for row in features if row["key"] == key)
        row = {name: mine.get(name) for name in table.column_names}
        row |= {"sha256": sha256(key), "uid": sha256(key)[:16], "images": 1}
        both = pa.concat_tables([table, pa.Table.from_pylist([row], table.schema)])
        path.write_bytes(schema.encode(both))
        return f"{path}: row {table.num_rows} "

    return leak


def uid_more(key: str) -> Callable[[Path], str]:
    def leak(root: Path) -> str:
        path = root / "releases/0001/uids.npy"
        uids = np.load(path)
        halves = np.frombuffer(sha256(key)[:16], ">u8").astype("<u8")
        more = np.array([tuple(halves)], uids.dtype)
        np.save(path, np.sort(np.concatenate([uids, more]), order=("f0", "f1")))
        return f"{path}: holds"

    return leak


def uid_in_the_place_of_a_double(root: Path) -> str:
    """The number of uids stays what it was, and every kept sample has its own."""
    path = root / "releases/0001/uids.npy"
    uids = np.load(path)
    halves = np.frombuffer(sha256("withheld")[:16], ">u8").astype("<u8")
    rows = pq.read_table(manifest(root, "01")).to_pylist()
    table = pq.read_table(manifest(root, "00"))
    for column in ("sha256", "uid"):
        change(manifest(root, "01"), column, 0, table[column][0].as_py())
    mine = np.frombuffer(rows[0]["uid"], ">u8").astype("<u8")
    uids[uids == np.array(tuple(mine), uids.dtype)] = tuple(halves)
    np.save(path, np.sort(uids, order=("f0", "f1")))
    return f"{path}: holds"


def member_more(root: Path) -> str:
    path = root / "releases/0001/shards/00.tar"
    write_tar(path, [("kept.jpg", b"x"), ("two.jpg", b"x"), ("removed.jpg", b"x")])
    return f"{path}: row 2 "


def field_more(root: Path) -> str:
    path = root / "releases/0001/summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "withheld": 1}))
    return f"{path}: says "


LEAKS = {
    **{f"{name} of {key}": put("00", 0, name, made(key))
       for key in ("removed", "withheld", "aside")
       for name, made in (("url", url_of), ("caption", caption_of), ("sha256", sha256), ("key", str))},
    "uid": put("00", 0, "uid", sha256("removed")[:16]),
    "a url as a caption": put("00", 1, "caption", url_of("withheld")),
    "a key as a url": put("01", 0, "url", "00/removed"),
    "a hex digest as a caption": put("01", 0, "caption", sha256("withheld").hex()),
    "a digest of several images": put("00", 0, "images_sha256", sha256("removed")),
    "another digest of several images": put("00", 1, "images_sha256", sha256("withheld")),
    "the index of another": put("00", 0, "index", 0),
    "another shard": put("00", 0, "shard", "01"),
    "a removed row": row_of("removed"),
    "a withheld row": row_of("withheld"),
    "a removed uid": uid_more("removed"),
    "a withheld uid": uid_more("withheld"),
    "a uid for a double": uid_in_the_place_of_a_double,
    "a member": member_more,
    "a field": field_more,
}  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_leak_is_found_and_named_by_file_and_row_never_by_its_value(copy, leak):
    said = leak(copy)
    found = scan_newest(copy)[1]
    assert any(line.startswith(said) for line in found), found
    text = "\n".join(found).replace(str(copy), "")
    for key in ("removed", "withheld", "aside"):
        for mark in (url_of(key), caption_of(key), sha256(key).hex(), f"/{key}"):
            assert mark not in text


def own_cells_too(root: Path, key: str, row: dict[str, object]) -> None:
    """As a product error would: the value of what is not kept stands in the features of a kept sample as well."""
    path = root / "examined" / f"{'00' if key in ('kept', 'two') else '01'}.parquet"
    keys = pq.read_table(path)["key"].to_pylist()
    for column, value in row.items():
        change(path, column, keys.index(key), value)


@pytest.mark.parametrize("lost", ["removed", "withheld"])
def test_a_url_or_bytes_that_are_not_kept_elsewhere_are_found_though_they_are_the_samples_own(copy, lost):
    of_lost, of_kept = (hashlib.sha256(url_of(key).encode()).digest()[:16] for key in (lost, "kept"))
    own_cells_too(copy, "kept", {"url": url_of(lost), "url_uid": of_lost})
    change(manifest(copy, "00"), "url", 0, url_of(lost))
    assert list(find_leaks(Collection(copy), 1, SHARDS)) == [
        f"{manifest(copy, '00')}: row 0 has a url that is not kept elsewhere"
    ]
    own_cells_too(copy, "kept", {"url": url_of("kept"), "url_uid": of_kept, "sha256": sha256(lost)})
    change(manifest(copy, "00"), "url", 0, url_of("kept"))
    change(manifest(copy, "00"), "sha256", 0, sha256(lost))
    change(manifest(copy, "00"), "uid", 0, sha256(lost)[:16])
    assert list(find_leaks(Collection(copy), 1, SHARDS)) == [
        f"{manifest(copy, '00')}: row 0 has an image that is not kept elsewhere"
    ]


@pytest.mark.parametrize("lost", ["removed", "withheld", "aside"])
def test_a_second_image_of_a_kept_sample_is_joined_too(copy, lost):
    path = copy / "examined/00.parquet"
    keys = pq.read_table(path)["key"].to_pylist()
    change(path, "sha256", keys.index("two") + 1, sha256(lost))
    bound = hashlib.sha256(sha256("two") + sha256(lost)).digest()
    change(manifest(copy, "00"), "images_sha256", 1, bound)
    assert list(find_leaks(Collection(copy), 1, SHARDS)) == [
        f"{manifest(copy, '00')}: row 1 has an image that is not kept elsewhere"
    ]


def test_verify_tells_a_leak_too(copy):
    change(manifest(copy, "00"), "url", 0, url_of("withheld"))
    assert f"{manifest(copy, '00')}: row 0 has in url what is not a kept sample's own" in verify(copy).problems


def test_many_leaks_of_one_file_are_counted(copy):
    path = manifest(copy, "00")
    table = pq.read_table(path).slice(0, 1)
    path.write_bytes(schema.encode(pa.concat_tables([table] * 15)))
    for row in range(15):
        change(path, "caption", row, f"x{row}")
    found = list(find_leaks(Collection(copy), 1, SHARDS))
    assert len(found) == 11
    assert found[-1] == f"{path}: and 5 more such rows"


def test_what_cannot_be_searched_is_an_error_and_never_no_leak(copy):
    (copy / "secret").unlink()
    with pytest.raises(KeyedError):
        scan_newest(copy)
    with pytest.raises(RecordError, match="no closed release"):
        scan_newest(copy / "examined")
    assert any("could not be searched" in line for line in verify(copy).problems)


TABLES = ("examined/00.parquet", "settled/0001/decisions/01.parquet", "releases/0001/manifest/00.parquet")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_missing_or_damaged_is_an_error(copy, name):
    (copy / name).write_bytes(b"PAR1")
    with pytest.raises(schema.TableError, match=name):
        scan_newest(copy)
    (copy / name).unlink()
    with pytest.raises(schema.TableError, match=name):
        scan_newest(copy)
