"""Publishing: no difference is handed out that is too small to hide in."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_releases import content, settle

from manifests import schema
from manifests.collection import Collection
from manifests.publish import Gap, MixingError, PublishError, draw_cover, publish

BOUNDS = {"least": 10, "per_withheld": 4}


def fates(keep: int, remove: int = 0, withhold: int = 0) -> tuple[str, ...]:
    return ("keep",) * keep + ("remove",) * remove + ("withhold",) * withhold


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def published(folder) -> set[tuple[str, int]]:
    tables = [schema.read(path) for path in sorted((folder / "manifest").glob("*.parquet"))]
    return {(row["shard"], row["index"]) for table in tables for row in table.to_pylist()}


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "cover.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("remove", "withhold", "enough"),
    [
        (10_000, 0, True), (9_999, 0, False), (9_999, 1, True),
        (9_989, 11, False), (10_989, 11, True), (10_988, 11, False),
    ],
)  # fmt: skip
def test_the_bounds_of_the_law_hold_to_the_sample(tmp_path, remove, withhold, enough):
    settle(tmp_path / "run", 1, {"a": fates(3, remove, withhold)})
    before = files(tmp_path)
    if enough:
        assert publish(tmp_path / "run", tmp_path / "out")[1] == 3
        return
    with pytest.raises(MixingError) as refused:
        publish(tmp_path / "run", tmp_path / "out")
    assert "mixing set too small" in str(refused.value)
    assert not any(letter.isdigit() for letter in str(refused.value))
    assert files(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_publication_holds_the_kept_samples_and_no_word_of_the_others(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(5, 10), "b": fates(2)})
    publish(tmp_path / "run", tmp_path / "out", **BOUNDS)
    names = {path.relative_to(tmp_path / "out").as_posix() for path in files(tmp_path / "out")}
    assert names == {"manifest/a.parquet", "manifest/b.parquet", "summary.json", "uids.npy"}
    summary = json.loads((tmp_path / "out/summary.json").read_bytes())
    assert set(summary) == {"kept", "manifests", "note", "stamps"}
    assert (summary["kept"], summary["stamps"]) == (7, ["unsafe_stand_in_models"])
    release = tmp_path / "run/releases/0001/manifest/a.parquet"
    assert (tmp_path / "out/manifest/a.parquet").read_bytes() == release.read_bytes()
    wanted = sorted(content(shard, index)[:16] for shard, count in (("a", 5), ("b", 2)) for index in range(count))
    found = np.load(tmp_path / "out/uids.npy")
    assert [int(a).to_bytes(8, "big") + int(b).to_bytes(8, "big") for a, b in found] == wanted


def test_a_publication_is_recorded_and_the_next_is_held_against_it(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(40, 10)})
    publish(tmp_path / "run", tmp_path / "first", **BOUNDS)
    settle(tmp_path / "run", 2, {"a": fates(31, 19)})  # nine of forty are gone
    with pytest.raises(MixingError):
        publish(tmp_path / "run", tmp_path / "second", **BOUNDS)
    settle(tmp_path / "run", 3, {"a": fates(30, 20)})
    publish(tmp_path / "run", tmp_path / "third", **BOUNDS)
    records = Collection(tmp_path / "run").publications
    assert [path.name for path in sorted(records.iterdir())] == ["0001", "0002"]
    assert records.stat().st_mode & 0o077 == 0
    record = schema.read(records / "0001/manifest/a.parquet")
    assert record.column_names == ["index", "uid"]
    assert not {content("a", index)[:16] for index in range(40)} & {*record["uid"].to_pylist()}


def test_nothing_missing_against_an_earlier_publication_is_no_difference(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(5, 10)})
    publish(tmp_path / "run", tmp_path / "first", **BOUNDS)
    settle(tmp_path / "run", 2, {"a": fates(5, 10), "b": fates(5)})
    assert publish(tmp_path / "run", tmp_path / "second", **BOUNDS)[1] == 10


@pytest.mark.parametrize(
    ("withhold", "remove", "enough"), [(3, 9, True), (3, 8, False), (2, 8, True), (2, 7, False)]
)
def test_each_withheld_sample_of_an_earlier_publication_needs_its_share(tmp_path, withhold, remove, enough):
    settle(tmp_path / "run", 1, {"a": fates(40, 20)})
    publish(tmp_path / "run", tmp_path / "first", **BOUNDS)
    late = ("withhold",) * withhold + ("remove",) * remove
    settle(tmp_path / "run", 2, {"a": late + fates(40 - len(late), 20)})
    if enough:
        publish(tmp_path / "run", tmp_path / "second", **BOUNDS)
    else:
        with pytest.raises(MixingError):
            publish(tmp_path / "run", tmp_path / "second", **BOUNDS)


def test_many_copies_of_one_picture_are_one(tmp_path):
    one = lambda shard, index: content(shard, max(index, 20))  # noqa: E731
    settle(tmp_path / "run", 1, {"a": fates(40, 20)}, content=one)
    publish(tmp_path / "run", tmp_path / "first", **BOUNDS)
    settle(tmp_path / "run", 2, {"a": ("remove",) * 20 + fates(20, 20)}, content=one)
    with pytest.raises(MixingError):
        publish(tmp_path / "run", tmp_path / "second", **BOUNDS)


def test_a_publication_that_is_not_recorded_counts_when_it_is_named(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(40, 10)})
    publish(tmp_path / "run", tmp_path / "first", **BOUNDS)
    shutil.rmtree(tmp_path / "run/publications")
    settle(tmp_path / "run", 2, {"a": fates(39, 11)})
    with pytest.raises(MixingError):
        publish(tmp_path / "run", tmp_path / "second", previous=[tmp_path / "first"], **BOUNDS)
    with pytest.raises(PublishError, match="not a publication"):
        publish(tmp_path / "run", tmp_path / "second", previous=[tmp_path / "run"], **BOUNDS)
    settle(tmp_path / "other", 1, {"z": fates(40, 10)})
    with pytest.raises(PublishError, match="not of this input"):
        publish(tmp_path / "other", tmp_path / "second", previous=[tmp_path / "first"], **BOUNDS)


def test_a_lost_or_changed_record_is_refused(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(40, 10)})
    for name in ("first", "second"):
        publish(tmp_path / "run", tmp_path / name, **BOUNDS)
    records = tmp_path / "run/publications"
    (records / "0002/manifest/a.parquet").write_bytes((tmp_path / "first/manifest/a.parquet").read_bytes())
    with pytest.raises(schema.TableError, match="bytes differ"):
        publish(tmp_path / "run", tmp_path / "third", **BOUNDS)
    shutil.rmtree(records / "0001")
    with pytest.raises(PublishError, match="a record is missing"):
        publish(tmp_path / "run", tmp_path / "third", **BOUNDS)


def test_only_the_newest_settle_decides_what_may_be_handed_out(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(5, 10)})
    publish(tmp_path / "run", tmp_path / "named", number=1, **BOUNDS)
    settle(tmp_path / "run", 2, {"a": fates(4, 11)}, released=False)
    for number in (None, 1, 2):
        with pytest.raises(PublishError, match="the newest"):
            publish(tmp_path / "run", tmp_path / "out", number=number, **BOUNDS)


def test_nothing_is_written_over(tmp_path):
    settle(tmp_path / "run", 1, {"a": fates(5, 10)})
    (tmp_path / "out").mkdir()
    publish(tmp_path / "run", tmp_path / "out", **BOUNDS)  # an empty folder will do
    with pytest.raises(PublishError, match="exists already"):
        publish(tmp_path / "run", tmp_path / "out", **BOUNDS)
    assert [path.name for path in (tmp_path / "run/publications").iterdir()] == ["0001"]


def test_a_cover_drops_as_many_as_it_must_and_no_more(tmp_path, secret):
    settle(tmp_path / "run", 1, {"a": fates(40, 3), "b": fates(40, 0, 1)})
    for name in ("first", "again"):
        shutil.rmtree(tmp_path / "run/publications", ignore_errors=True)
        assert publish(tmp_path / "run", tmp_path / name, cover=secret, **BOUNDS)[1] == 74
    assert published(tmp_path / "first") == published(tmp_path / "again")
    secret.write_bytes(bytes(range(1, 33)))
    shutil.rmtree(tmp_path / "run/publications")
    publish(tmp_path / "run", tmp_path / "other", cover=secret, **BOUNDS)
    assert published(tmp_path / "other") != published(tmp_path / "first")
    assert len(np.load(tmp_path / "other/uids.npy")) == 74


def test_a_cover_hides_a_small_change_from_who_has_the_earlier_publication(tmp_path, secret):
    settle(tmp_path / "run", 1, {"a": fates(40, 10)})
    publish(tmp_path / "run", tmp_path / "first", **BOUNDS)
    settle(tmp_path / "run", 2, {"a": fates(38, 11, 1), "b": fates(40)})
    publish(tmp_path / "run", tmp_path / "second", cover=secret, **BOUNDS)
    assert len(published(tmp_path / "first") - published(tmp_path / "second")) == 10


def test_a_cover_that_cannot_be_large_enough_is_refused(tmp_path, secret):
    settle(tmp_path / "run", 1, {"a": fates(7, 3)})
    with pytest.raises(MixingError):
        publish(tmp_path / "run", tmp_path / "out", cover=secret, **BOUNDS)
    secret.chmod(0o640)
    with pytest.raises(PublishError, match="0600"):
        publish(tmp_path / "run", tmp_path / "out", cover=secret, **BOUNDS)
    assert not (tmp_path / "out").exists()


UIDS = np.array([number.to_bytes(16, "big") for number in range(1, 60)], "S16")


@given(
    gaps=st.lists(
        st.builds(
            lambda missing, least, chosen: Gap(missing > 0, missing, least, UIDS[sorted(chosen)]),
            st.integers(0, 12), st.integers(0, 25), st.sets(st.integers(0, 58)),
        ),
        max_size=4,
    ),
    seed=st.binary(min_size=32, max_size=32),
)  # fmt: skip
def test_after_any_cover_every_gap_is_empty_or_large_enough(gaps, seed):
    every = [Gap(True, 5, 15, UIDS), *gaps]
    try:
        dropped = draw_cover(every, seed)
    except MixingError:
        return
    assert len(dropped) < len(UIDS)
    found = [gap.missing + int(np.isin(dropped, gap.uids).sum()) for gap in every]
    assert all(count == 0 or count >= gap.least for gap, count in zip(every, found, strict=True))
    if len(dropped):  # one less would be too few
        less = [gap.missing + int(np.isin(dropped[:-1], gap.uids).sum()) for gap in every]
        assert any(0 < count < gap.least for gap, count in zip(every, less, strict=True))
