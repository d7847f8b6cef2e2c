"""A whole collection against the lists at once: the hits that each shard has by itself, and floods."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from in_process import call
from made_lists import made_list
from scrapes import Scrape, draw, encode, jpeg, write_list, write_tar

from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import CodeSearch, join_column, search_column
from classifiers.hashes.digests import take_digests
from manifests.collection import Collection
from manifests.commits import ExamineCommit, Flood
from manifests.features import ShardFeatures
from pipeline import settle_matches
from pipeline.commit import Decider
from pipeline.errors import CanaryError
from pipeline.executors.protocol import WorkerOptions
from pipeline.overrides import NO_OVERRIDES
from pipeline.settle import load_features, read_commit
from pipeline.settle_matches import CollectionHits, match_collection
from pipeline.setup import load_setup

SHARDS = ("00000", "00001", "00002", "00003")
TWICE = 500  # the picture that stands twice in every shard, and once more with other bytes that are listed
LISTED = encode(draw(TWICE), "PNG")
HITS = ("list", "basis", "algorithm", "entry", "distance")


def flipped(code: bytes, distance: int) -> bytes:
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    bits[np.random.default_rng(distance).choice(256, distance, replace=False)] ^= 1
    return np.packbits(bits).tobytes()


class Examined:
    """A collection whose shards were examined with one list, and are settled with others."""

    def __init__(self, root: Path) -> None:
        scrape = Scrape.make(root, hashes={"kinds": ["pdq:fullres"]}, list=[{"id": "known"}, {"id": "other"}])
        for number, shard in enumerate(SHARDS):
            members = [(f"{n}.jpg", jpeg(10 * number + n)) for n in range(3)]
            members += [("twice_a.jpg", jpeg(TWICE)), ("twice_b.jpg", jpeg(TWICE))]
            members += [("listed.png", LISTED)]
            write_tar(scrape.shards / f"{shard}.tar", [] if shard == SHARDS[2] else members)
        far = [("pdq", bytes(range(32)))]
        sealed = [("md5", take_digests(jpeg(1)).md5)]
        write_list(root / "lists/known.csv", far + sealed)
        write_list(root / "lists/other.csv", far)
        done = call("examine", scrape.config, "--workers", 1)
        assert done.code == 0, done.err
        self.collection = Collection(scrape.collection)
        before = load_setup(WorkerOptions(scrape.config))
        self.commits = [read_commit(self.collection, shard, before.plan) for shard in SHARDS]
        codes = {shard: self.codes(shard) for shard in SHARDS}
        known = [("pdq", flipped(codes[SHARDS[0]][0], 31)), ("pdq", flipped(codes[SHARDS[1]][1], 32))]
        known += [("pdq", flipped(codes[SHARDS[0]][-2], 3)), ("md5", take_digests(LISTED).md5)]
        other = [("pdq", codes[SHARDS[3]][2]), ("sha1", take_digests(jpeg(31)).sha1), ("pdq", bytes(range(32)))]
        write_list(root / "lists/known.csv", known + sealed)
        write_list(root / "lists/other.csv", other)
        self.decider = load_setup(WorkerOptions(scrape.config)).decider
        self.flooded = sorted(value for name, value in known if name == "pdq").index(known[2][1])

    def features(self, shard: str) -> ShardFeatures:
        return load_features(self.collection, self.commits[SHARDS.index(shard)])

    def codes(self, shard: str) -> list[bytes]:
        column = self.features(shard).hashes["pdq:fullres.oriented"]
        return [code.tobytes() for code in column.codes[column.usable, 0]]

    def match(self, search: CodeSearch = search_column, **changes: object) -> CollectionHits:
        return match_collection(self.collection, self.commits, self.changed(**changes), search)

    def changed(self, **changes: object) -> Decider:
        return replace(self.decider, **changes)


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    return Examined(tmp_path_factory.mktemp("examined"))


@pytest.fixture(
    params=[{}, {"MAX_QUERIES": 1}, {"MAX_QUERIES": 100}, {"MAX_ROWS": 1}],
    ids=["at once", "shard by shard", "in parts", "few rows"],
)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in request.param.items():
        monkeypatch.setattr(settle_matches, name, value)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("search", [search_column, partial(join_column, threads=2)], ids=["search", "join"])
def test_each_shard_has_the_hits_that_it_has_by_itself(examined, search):
    found = examined.match(search)
    alone = {shard: examined.decider.match(examined.features(shard)) for shard in SHARDS}
    assert set(found.hits) == {shard for shard, hits in alone.items() if hits.num_rows} == {*SHARDS} - {SHARDS[2]}
    for shard, hits in found.hits.items():
        assert hits.equals(alone[shard])
    assert found.flooded == ()


def test_the_hits_are_those_that_were_planted(examined):
    shown = {
        shard: {
            (hit["row"], hit["list"], hit["basis"], hit["algorithm"], hit["distance"])
            for hit in hits.to_pylist()
            if hit["view"] in (None, "pdq:fullres.oriented")
            # How far the same picture in another format is does not matter here.
            and not (hit["row"] == 5 and hit["basis"] == "listed-near")
        }
        for shard, hits in examined.match().hits.items()
    }
    ends = {(3, 0, "listed-near", "pdq", 3), (4, 0, "listed-near", "pdq", 3), (5, 0, "listed-exact", "md5", None)}
    assert shown[SHARDS[0]] == {(0, 0, "listed-near", "pdq", 31), *ends}
    assert shown[SHARDS[1]] == ends
    assert shown[SHARDS[3]] == {(1, 1, "listed-exact", "sha1", None), (2, 1, "listed-near", "pdq", 0), *ends}
    assert examined.features(SHARDS[0]).withheld().tolist() == [False, True, False, False, False, False]
    for hits in examined.match().hits.values():
        near = [hit["row"] for hit in hits.to_pylist() if (hit["list"], hit["entry"]) == (0, examined.flooded)]
        assert set(near) >= {3, 4, 5}


def capped(hits: pa.Table) -> set[tuple[object, ...]]:
    return {tuple(hit[name] for name in HITS) for hit in hits.to_pylist() if hit["capped"]}


def test_an_interrupted_attempt_goes_on_with_the_entries_that_it_found_flooded(examined):
    counted = (Flood("known", 3, "pdq", examined.flooded, 6), Flood("stranger", 1, "pdq", 0, 9))
    found = match_collection(
        examined.collection, examined.commits, examined.decider, search_column, flooded=counted
    )
    again = examined.match(max_near_hits=5)
    assert found.flooded == counted
    assert found.hits.keys() == again.hits.keys()
    assert all(hits.equals(again.hits[shard]) for shard, hits in found.hits.items())
    none = match_collection(
        examined.collection, examined.commits, examined.changed(max_near_hits=0), search_column, flooded=()
    )
    assert not any(capped(hits) for hits in none.hits.values())


@pytest.mark.usefixtures("parts")
def test_floods_are_counted_over_all_shards_and_marked_in_each(examined):
    entry = examined.flooded
    assert examined.match(max_near_hits=6).flooded == ()
    found = examined.match(max_near_hits=5)
    assert found.flooded == (Flood("known", examined.decider.lists[0].version, "pdq", entry, 6),)
    for shard, hits in found.hits.items():
        assert {hit[:4] for hit in capped(hits)} == {(0, "listed-near", "pdq", entry)}
        assert not capped(examined.changed(max_near_hits=5).match(examined.features(shard)))
        unmarked = hits.set_column(8, "capped", pa.array([False] * hits.num_rows))
        assert unmarked.equals(examined.decider.match(examined.features(shard)))
    every = examined.match(max_near_hits=0)
    assert sorted(flood.samples for flood in every.flooded) == [1, 1, 6]
    assert {flood.list_id for flood in every.flooded} == {"known", "other"}


def test_a_cancelled_entry_floods_nothing(examined):
    overrides = replace(NO_OVERRIDES, near=frozenset({("known", "pdq", examined.flooded)}))
    found = examined.match(max_near_hits=1, overrides=overrides)
    assert found.flooded == ()
    near = [hit for hits in found.hits.values() for hit in hits.to_pylist() if hit["basis"] == "listed-near"]
    assert sorted(hit["distance"] for hit in near) == [0, 31]
    assert examined.changed(overrides=overrides).match(examined.features(SHARDS[1])).equals(found.hits[SHARDS[1]])


def missing_far(column, queries, radius):
    return search_column(column, queries, min(radius, 30))


@pytest.mark.usefixtures("parts")
def test_a_missed_canary_stops_the_settle(examined):
    with pytest.raises(CanaryError, match="list 'known': its pdq canary at a distance of 31 was missed"):
        examined.match(missing_far)


def test_nothing_is_matched_where_nothing_was_examined(examined):
    commits: list[ExamineCommit] = []
    found = match_collection(examined.collection, commits, examined.decider, search_column)
    assert (dict(found.hits), found.flooded) == ({}, ())


def test_a_collection_of_samples_that_cannot_be_searched_asks_the_canaries_all_the_same(examined):
    empty = [commit for commit in examined.commits if commit.shard == SHARDS[2]]
    assert not match_collection(examined.collection, empty, examined.decider, search_column).hits
    with pytest.raises(CanaryError):
        match_collection(examined.collection, empty, examined.decider, missing_far)


def test_lists_of_the_setup_are_read_only_memory(examined):
    lists: tuple[HashList, ...] = examined.decider.lists
    assert [item.list_id for item in lists] == ["known", "other"]
    assert not any(column.rows.flags.writeable for item in lists for column in item.columns.values())


def test_a_list_of_digests_alone_does_not_gather_a_whole_collection(examined, monkeypatch):
    monkeypatch.setattr(settle_matches, "MAX_ROWS", 1)
    only = [made_list([("md5", bytes(range(16)))])]
    sizes = [len(part.shards) for part in settle_matches._parts(examined.collection, examined.commits, only)]
    assert sizes == [1, 1, 2]  # the third shard holds no sample


def test_only_canaries_that_were_asked_are_counted_and_none_without_a_list(examined):
    lists = (made_list([("md5", bytes(range(16))), ("pdq", b"\x35" * 32)], radius=10, canaries=True),)
    bare = examined.changed(lists=lists)
    found = match_collection(examined.collection, examined.commits, bare, search_column)
    assert found.canaries == 2  # the one at a distance of 31 bits is outside the radius
    none = match_collection(examined.collection, examined.commits, examined.changed(lists=()), search_column)
    assert (none.canaries, dict(none.hits), none.flooded) == (0, {}, ())
