"""Hits of a shard, case by case; `properties/test_match_properties.py` reads every list to every row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_features import PDQ, Row, make_features
from made_lists import hits_of, made_list

from classifiers.blocklists.hits import CodeHits, join_hits
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import INDEX_FROM_CODES, join_column, search_column
from classifiers.blocklists.shared import attach_lists, share_indexes, share_lists
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from manifests.features import HashColumn, ShardFeatures
from pipeline.hits import HITS_SCHEMA, cancel_hits, count_near, decode_hits, encode_hits, over_cap
from pipeline.matching import combine_queries, find_hits, gather_queries, searched

RANDOM = np.random.default_rng(8)
STORED, PHASH = "pdq:fullres.stored", "phash:imagehash-4.3.2.oriented"
CODE, CODE64 = bytes(range(100, 132)), bytes(range(100, 108))


def flipped(code: bytes, distance: int) -> bytes:
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    bits[RANDOM.choice(len(bits), distance, replace=False)] ^= 1
    return np.packbits(bits).tobytes()


def column(rows: Sequence[Sequence[bytes]], *, usable=True, hashable=True) -> HashColumn:
    codes = np.array([[list(code) for code in variants] for variants in rows], np.uint8)
    count = len(rows)
    marks = [np.broadcast_to(np.asarray(value, np.bool_), count).copy() for value in (usable, hashable)]
    return HashColumn(codes, np.full(count, 90, np.float32), *marks)


def shard(**columns: HashColumn) -> ShardFeatures:
    """A shard of nothing but hash columns, one row a sample; `pdq`, `stored` and `phash` name them."""
    names = {"pdq": PDQ, "stored": STORED, "phash": PHASH}
    count = len(next(iter(columns.values())).codes)
    features = make_features([Row(index, content=None, code=None) for index in range(count)])
    return replace(features, hashes={names[name]: one for name, one in columns.items()})


def brief(table: pa.Table, *names: str) -> list[tuple[object, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def near_of(features: ShardFeatures, *lists: HashList) -> list[tuple[object, ...]]:
    return brief(hits_of(features, lists), "row", "list", "entry", "distance", "view", "variant")


@pytest.mark.parametrize("radius", [0, 1, 31, 127])
def test_the_radius_of_a_list_is_its_last_distance_for_pdq(radius):
    features = shard(pdq=column([[flipped(CODE, radius)], [flipped(CODE, radius + 1)]]))
    assert near_of(features, made_list([("pdq", CODE)], radius=radius)) == [(0, 0, 0, radius, PDQ, 0)]


@pytest.mark.parametrize("radius64", [0, 4, 31])
def test_codes_of_64_bits_have_a_radius_of_their_own(radius64):
    features = shard(phash=column([[flipped(CODE64, radius64)], [flipped(CODE64, radius64 + 1)]]))
    found = near_of(features, made_list([("phash", CODE64)], radius=127, radius64=radius64))
    assert found == [(0, 0, 0, radius64, PHASH, 0)]


def test_each_list_has_its_own_radius():
    features = shard(pdq=column([[CODE]]))
    strict = made_list([("pdq", flipped(CODE, 20))], radius=10, list_id="strict")
    wide = made_list([("pdq", flipped(CODE, 40))], radius=60, list_id="wide")
    assert near_of(features, strict, wide) == [(0, 1, 0, 40, PDQ, 0)]
    assert near_of(features, wide, made_list([("pdq", flipped(CODE, 9))], radius=10)) == [
        (0, 0, 0, 40, PDQ, 0),
        (0, 1, 0, 9, PDQ, 0),
    ]


def test_an_entry_that_several_variants_match_is_one_hit_with_the_first_of_the_nearest():
    variants = [flipped(CODE, 9), flipped(CODE, 4), flipped(CODE, 4), flipped(CODE, 40)]
    assert near_of(shard(pdq=column([variants])), made_list([("pdq", CODE)])) == [(0, 0, 0, 4, PDQ, 1)]


@pytest.mark.parametrize("variant", range(8))
def test_every_variant_is_asked_and_every_entry_is_a_hit_of_its_own(variant):
    codes = [RANDOM.bytes(32) for _ in range(8)]
    entries = sorted([flipped(codes[variant], 12), flipped(codes[(variant + 3) % 8], 20)])
    found = near_of(shard(pdq=column([codes])), made_list([("pdq", entry) for entry in entries]))
    assert [hit[2] for hit in found] == [0, 1]
    assert {(hit[3], hit[5]) for hit in found} == {(12, variant), (20, (variant + 3) % 8)}


def test_every_view_that_comes_near_is_a_hit():
    features = shard(pdq=column([[flipped(CODE, 31)]]), stored=column([[flipped(CODE, 2)]]))
    assert near_of(features, made_list([("pdq", CODE)])) == [(0, 0, 0, 31, PDQ, 0), (0, 0, 0, 2, STORED, 0)]


def test_codes_that_are_not_usable_or_not_there_are_not_asked():
    marks = {"usable": [True, False, False, True], "hashable": [True, True, False, False]}
    features = shard(pdq=column([[CODE]] * 4, **marks), phash=column([[CODE64]] * 4))
    queries = gather_queries(features, [made_list([("pdq", CODE), ("phash", CODE64)])])
    assert queries.count == 1 + 4
    assert not queries.digests
    assert queries.codes["pdq"].rows.tolist() == [0]
    assert near_of(features, made_list([("pdq", CODE)])) == [(0, 0, 0, 0, PDQ, 0)]
    assert searched(features)["pdq"].tolist() == [True, True, False, False]
    assert searched(features)["phash"].tolist() == [True] * 4
    assert not searched(features)["dhash"].any()


def crawled(features: ShardFeatures, name: str, values: list[bytes | None]) -> ShardFeatures:
    at = features.table.schema.get_field_index(f"crawl_{name}")
    array = pa.array(values, pa.binary(DIGEST_WIDTHS[name]))
    return replace(features, table=features.table.set_column(at, f"crawl_{name}", array))


@pytest.mark.parametrize("name", DIGEST_WIDTHS)
def test_a_digest_is_looked_up_as_it_is_and_as_the_crawl_recorded_it(name):
    digest = getattr(take_digests(b"known"), name)
    rows = [Row(0, content=b"known", code=None), Row(1, content=b"new", code=None), Row(2, content=None, code=None)]
    features = crawled(
        make_features([*rows, Row(3, content=b"known", code=None)]), name, [None, digest, digest, digest]
    )
    found = hits_of(features, [made_list([(name, digest), (name, bytes(range(DIGEST_WIDTHS[name])))])])
    entry = int(digest > bytes(range(DIGEST_WIDTHS[name])))
    expected = [(0, None), (1, "crawl"), (2, "crawl"), (3, "crawl"), (3, None)]
    assert brief(found, "row", "view") == expected
    assert set(brief(found, "basis", "algorithm", "entry", "distance", "variant", "capped")) == {
        ("listed-exact", name, entry, None, None, False)
    }


@pytest.mark.parametrize("name", DIGEST_WIDTHS)
def test_a_digest_that_differs_in_one_bit_is_not_listed(name):
    digest = getattr(take_digests(b"known"), name)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)) ^ np.eye(8 * len(digest), dtype=np.uint8)
    near = [(name, np.packbits(row).tobytes()) for row in bits]
    assert hits_of(make_features([Row(0, content=b"known")]), [made_list(near)]).num_rows == 0


def test_without_lists_or_rows_or_columns_there_are_no_hits():
    features = make_features([Row(0, code=CODE)])
    whole = made_list([("pdq", CODE), ("md5", take_digests(b"picture").md5)], canaries=True)
    only_64 = made_list([("phash", CODE64)])
    for rows, lists in ((features, []), (make_features([]), [whole]), (features, [only_64])):
        found = find_hits(gather_queries(rows, lists), lists, search_column)
        for table in (found.hits, found.canaries):
            assert table.equals(HITS_SCHEMA.empty_table())
    assert hits_of(features, [whole]).num_rows == 2


def test_hits_on_canaries_are_kept_apart_and_never_counted():
    source = made_list([("pdq", CODE)], canaries=True)
    (canary,) = (one for one in source.canaries if not one.distance)
    features = shard(pdq=column([[canary.entry], [CODE]]))
    found = find_hits(gather_queries(features, [source]), [source], search_column)
    assert brief(found.hits, "row", "entry") == [(1, 0)]
    assert brief(found.canaries, "row", "distance") == [(0, 0)]
    assert found.canaries["entry"].to_pylist()[0] in (1, 2)
    assert hits_of(features, [source], cap=0)["row"].to_pylist() == [1]


@pytest.mark.parametrize(("cap", "marked"), [(3, False), (2, True), (0, True)])
def test_the_cap_counts_samples_and_not_rows_views_or_those_that_are_listed(cap, marked):
    known = take_digests(b"known").md5
    rows = [Row(index // 2, content=b"new", code=flipped(CODE, 7)) for index in range(6)]
    # Two samples that are listed exactly: one of them by another member than the one that is near.
    rows += [Row(3, content=b"known", code=flipped(CODE, 7)), Row(4, content=b"known", code=None)]
    features = make_features([*rows, Row(4, content=b"new", code=flipped(CODE, 7))])
    features = replace(features, hashes={PDQ: features.hashes[PDQ], STORED: features.hashes[PDQ]})
    other = made_list([("pdq", flipped(CODE, 20)), ("md5", known)], list_id="b", radius=0, feed="other")
    found = hits_of(features, [made_list([("pdq", CODE)]), other], cap=cap)
    assert set(brief(found, "basis", "capped")) == {("listed-exact", False), ("listed-near", marked)}
    assert found.num_rows == 2 + 2 * 8
    assert count_near(found, features.indices().astype(np.int64)) == {(0, "pdq", 0): 3}


def test_only_the_entry_over_the_cap_is_marked_in_its_own_list_and_algorithm():
    codes = [[flipped(CODE, 3)], [flipped(CODE, 3)], [RANDOM.bytes(32)]]
    features = shard(pdq=column(codes), phash=column([[CODE64]] * 2 + [[flipped(CODE64, 1)]]))
    lists = [
        made_list([("pdq", CODE), ("pdq", codes[2][0]), ("phash", CODE64)], list_id="a", radius64=0),
        made_list([("pdq", codes[0][0])], list_id="b", radius=0),
    ]
    found = hits_of(features, lists, cap=1)
    capped = {hit[:3] for hit in brief(found, "list", "algorithm", "entry", "capped") if hit[3]}
    entry = int(codes[2][0] < CODE)
    assert capped == {(0, "pdq", entry), (0, "phash", 0)}
    assert over_cap(count_near(found, np.arange(3)), 1) == capped


def test_a_cancelled_entry_is_not_counted_and_its_exact_hits_stay():
    rows = [Row(index, content=b"known", code=CODE) for index in range(3)]
    found = hits_of(make_features(rows), [made_list([("pdq", CODE), ("md5", take_digests(b"known").md5)])])
    left = cancel_hits(found, frozenset({(0, "pdq", 0), (0, "md5", 0)}))
    assert brief(left, "row", "basis") == [(row, "listed-exact") for row in range(3)]
    assert cancel_hits(found, frozenset({(1, "pdq", 0), (0, "pdq", 1)})).equals(found)
    assert cancel_hits(found, frozenset()) is found
    assert not count_near(left, np.arange(3))


def test_queries_of_several_shards_are_asked_at_once_by_rows_counted_through():
    parts = [make_features([Row(n, content=b"known", code=flipped(CODE, n)) for n in range(k)]) for k in (2, 0, 3)]
    lists = [made_list([("pdq", CODE), ("md5", take_digests(b"known").md5)])]
    starts = [0, 2, 2]
    queries = combine_queries(
        [gather_queries(one, lists, first_row=at) for one, at in zip(parts, starts, strict=True)]
    )
    found = find_hits(queries, lists, search_column).hits
    alone = []
    for one, at in zip(parts, starts, strict=True):
        hits = hits_of(one, lists)
        alone.append(hits.set_column(0, "row", pa.array(hits["row"].to_numpy() + at, pa.int64())))
    assert found.equals(pa.concat_tables(alone).combine_chunks())
    assert queries.count == 5 * 8


@pytest.fixture(scope="module")
def long_lists() -> Iterator[tuple[tuple[HashList, ...], ShardFeatures]]:
    """Lists that are long enough for an index, with it, and a shard whose codes lie on both sides of the radius."""
    entries = [("pdq", RANDOM.bytes(32)) for _ in range(INDEX_FROM_CODES)]
    entries += [("phash", RANDOM.bytes(8)) for _ in range(INDEX_FROM_CODES)]
    lists = (made_list(entries, canaries=True), made_list(entries[100:], list_id="b", radius=32, radius64=5))
    fds = share_lists(lists, None), share_indexes(lists, threads=2)
    around = [entries[70 * n][1] for n in range(36)]
    pdq = [[RANDOM.bytes(32)] * 3 + [flipped(code, n)] + [RANDOM.bytes(32)] * 4 for n, code in enumerate(around)]
    phash = [[flipped(entries[INDEX_FROM_CODES + 50 * n][1], n % 7)] for n in range(36)]
    yield attach_lists(*fds), shard(pdq=column(pdq), phash=column(phash))
    for fd in fds:
        os.close(fd)


def test_all_ways_of_searching_give_one_table(long_lists):
    lists, features = long_lists
    queries = gather_queries(features, lists)
    assert lists[0].columns["pdq"].index is not None
    bare = [
        replace(one, columns={name: replace(col, index=None) for name, col in one.columns.items()}) for one in lists
    ]
    expected = find_hits(queries, bare, search_column)
    for which, search in (
        (lists, search_column),
        (lists, partial(join_column, threads=1)),
        (bare, partial(join_column, threads=2)),
    ):
        found = find_hits(queries, which, search)
        assert found.hits.equals(expected.hits)
        assert found.canaries.equals(expected.canaries)
    near = expected.hits.filter(pc.equal(expected.hits["algorithm"], "pdq"))
    first = [hit for hit in brief(near, "row", "list", "distance", "variant") if hit[1] == 0]
    assert first == [(n, 0, n, 3) for n in range(32)]
    second = [hit[:3] for hit in brief(near, "row", "list", "distance") if hit[1] == 1]
    assert second == [(n, 1, n) for n in range(2, 33)]


def test_no_hits_pass_through_a_pipe_as_no_text():
    none = HITS_SCHEMA.empty_table()
    assert encode_hits(none) == ""
    assert decode_hits("").equals(none)


def test_joined_hits_are_sorted_and_each_pair_is_there_once():
    parts = [
        CodeHits(np.array([3, 1]), np.array([0, 5]), np.array([7, 2], np.int16)),
        CodeHits(np.array([1, 1]), np.array([5, 2]), np.array([2, 9], np.int16)),
    ]
    hits = join_hits(parts)
    assert (hits.query.tolist(), hits.entry.tolist(), hits.distance.tolist()) == ([1, 1, 3], [2, 5, 0], [9, 2, 7])
    assert (hits.query.dtype, hits.entry.dtype, hits.distance.dtype) == (np.int64, np.int64, np.int16)
    assert len(join_hits([])) == 0


def test_nothing_that_is_printed_holds_a_code_or_a_digest():
    features = make_features([Row(0, content=b"known", code=CODE)])
    queries = gather_queries(features, [made_list([("pdq", CODE), ("md5", CODE[:16])])])
    shown = (
        repr(queries) + repr(queries.codes) + repr(queries.digests) + repr(find_hits(queries, [], search_column))
    )
    values = [CODE, take_digests(b"known").md5]
    assert not any(value.hex() in shown or "".join(f"{b}, " for b in value[:6]) in shown for value in values)
