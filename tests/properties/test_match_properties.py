"""The plain matcher against two others: faiss for distances, Python sets for digests."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.blocklists import match
from classifiers.blocklists.lists import build_list
from classifiers.blocklists.match import find_hits, match_digests, nearest_codes

SETTINGS = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "_QUERIES_AT_ONCE", 7)
        patch.setattr(match, "_ENTRIES_AT_ONCE", 16)
        yield


@st.composite
def worlds(draw):
    """Queries N x V x 32 and lists of codes with radii, many of them at distances around the radii."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, variants = draw(st.integers(1, 12)), draw(st.sampled_from([1, 3, 8]))
    codes = random.integers(0, 256, (count, variants, 32), dtype=np.uint8)
    lists = []
    for place in range(draw(st.integers(0, 3))):
        radius = draw(st.sampled_from([0, 1, 15, 31, 32, 47, 100, 127]))
        entries = [random.bytes(32)]
        for _ in range(draw(st.integers(0, 40))):
            bits = np.unpackbits(codes[random.integers(count), random.integers(variants)])
            distance = int(np.clip(radius + random.integers(-2, 3), 0, 256))
            bits[random.choice(256, distance, replace=False)] ^= 1
            entries.append(np.packbits(bits).tobytes())
        pairs = [("pdq", entry) for entry in entries]
        lists.append(build_list(pairs, list_id=f"list {place}", purpose="other", radius=radius))
    return codes, lists


def by_faiss(source, codes):
    """(query, entry, distance) of every pair within the radius; faiss searches strictly below its argument."""
    index = faiss.IndexBinaryFlat(256)
    index.add(np.array(source.codes))
    limits, distances, entries = index.range_search(codes.reshape(-1, 32), source.radius + 1)
    queries = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
    return list(zip(queries.tolist(), entries.tolist(), distances.astype(int).tolist(), strict=True))


@SETTINGS
@given(worlds(), st.data())
def test_the_nearest_distance_is_that_of_faiss(world, data):
    codes, lists = world
    count, variants = codes.shape[:2]
    hashable = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    expected = np.full(count, np.inf, np.float32)
    for source in lists:
        for query, _, distance in by_faiss(source, codes):
            expected[query // variants] = min(expected[query // variants], distance)
    expected[~usable] = np.inf
    expected[~hashable] = np.nan
    np.testing.assert_array_equal(nearest_codes(lists, codes, hashable, usable), expected)


@SETTINGS
@given(worlds())
def test_the_hits_are_the_entries_that_faiss_finds_with_their_nearest_variant(world):
    codes, lists = world
    for row in codes:
        expected = []
        for source in lists:
            nearest: dict[int, tuple[int, int]] = {}
            for variant, entry, distance in by_faiss(source, row):
                nearest[entry] = min(nearest.get(entry, (256, 0)), (distance, variant))
            expected += [(source.list_id, entry, *nearest[entry]) for entry in sorted(nearest)]
        hits = find_hits(lists, {}, row)
        assert [(hit.list_id, hit.entry, hit.distance, hit.variant) for hit in hits] == expected


@SETTINGS
@given(worlds())
def test_a_sample_has_a_distance_just_when_it_has_hits(world):
    codes, lists = world
    every = np.ones(len(codes), bool)
    for row, distance in zip(codes, nearest_codes(lists, codes, every, every), strict=True):
        hits = find_hits(lists, {}, row)
        assert min((hit.distance for hit in hits), default=np.inf) == distance


# Few letters, so that prefixes, zero bytes and repeats are common.
md5_values = st.lists(st.sampled_from([0, 1, 127, 128, 255]), min_size=16, max_size=16).map(bytes)
entries = st.lists(md5_values.filter(lambda entry: len(set(entry)) > 1), min_size=1, max_size=20)


@SETTINGS
@given(st.lists(entries, max_size=3), st.lists(md5_values, max_size=10), st.data())
def test_a_digest_is_listed_just_when_it_is_in_one_of_the_sets(listed, others, data):
    lists = [build_list([("md5", entry) for entry in each], list_id="x", purpose="csam") for each in listed]
    values = [*others, *(entry for each in listed for entry in each)]
    known = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))), bool)
    rows = {"md5": np.frombuffer(b"".join(values), np.uint8).reshape(-1, 16)}
    expected = [float(any(value in each for each in listed)) for value in values]
    found = match_digests(lists, rows, known)
    np.testing.assert_array_equal(found, np.where(known, expected, np.nan).astype(np.float32))
    for value, is_listed in zip(values, expected, strict=True):
        hits = find_hits(lists, {"md5": np.frombuffer(value, np.uint8)}, None)
        assert bool(hits) == is_listed
        assert all(lists[0].digests["md5"].shape[1] == len(value) for _ in hits)
