"""The three searches for codes give one answer, on small sets whose codes share as many bands as can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.blocklists import band_index
from classifiers.blocklists.band_index import build_index, index_shapes, join_codes, search_index
from classifiers.blocklists.code_scan import scan_codes

SETTINGS = settings(max_examples=80, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(band_index, "_is_scan_cheaper", lambda *_: False)  # so few codes would never be looked up
        patch.setattr(band_index, "_QUERIES_AT_ONCE", 5)
        patch.setattr(band_index, "_HITS_AT_FIRST", 3)
        yield


@st.composite
def worlds(draw):
    """Codes of few distinct bytes, a radius, and queries just within it and just beyond it of some of them."""
    width = draw(st.sampled_from([32, 8]))
    radius = draw(st.sampled_from([0, 1, 3, 4, 5, 8, 14, 15, 16, 31, 32] + [46, 47, 48] * (width == 32)))
    letters = draw(st.lists(st.integers(0, 255), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = random.choice(np.array(letters, np.uint8), (draw(st.integers(0, 60)), width))
    queries = [random.choice(np.array(letters, np.uint8), width)]
    for _ in range(draw(st.integers(0, 12)) if len(codes) else 0):
        bits = np.unpackbits(codes[random.integers(len(codes))])
        distance = min(radius + draw(st.sampled_from([0, 1])), len(bits))
        first = draw(st.integers(0, len(bits) - 1))
        step = draw(st.sampled_from([1, 3, 5, 17, 61, 127]))  # odd, so that no bit comes twice
        bits[(first + step * np.arange(distance)) % len(bits)] ^= 1
        queries.append(np.packbits(bits))
    return codes, np.array(queries), radius


def as_set(hits):
    return list(zip(hits.query.tolist(), hits.entry.tolist(), hits.distance.tolist(), strict=True))


def by_hand(codes, queries, radius):
    """Count bits one pair at a time, with Python's own integers."""
    numbers = [int.from_bytes(code.tobytes(), "big") for code in codes]
    asked = [int.from_bytes(query.tobytes(), "big") for query in queries]
    pairs = (
        (row, at, (one ^ other).bit_count()) for row, one in enumerate(asked) for at, other in enumerate(numbers)
    )
    return [pair for pair in pairs if pair[2] <= radius]


@SETTINGS
@given(worlds())
def test_all_searches_give_what_counting_by_hand_gives(world):
    codes, queries, radius = world
    offsets_shape, records_shape = index_shapes(*codes.shape)
    index = build_index(codes, np.empty(offsets_shape, np.uint32), np.empty(records_shape, np.uint64))
    expected = by_hand(codes, queries, radius)
    assert as_set(scan_codes(codes, queries, radius)) == expected
    assert as_set(search_index(index, codes, queries, radius)) == expected
    assert as_set(join_codes(codes, queries, radius, threads=2)) == expected


@SETTINGS
@given(worlds(), st.data())
def test_a_wider_radius_only_adds(world, data):
    codes, queries, radius = world
    narrower = data.draw(st.integers(0, radius))
    wide = as_set(join_codes(codes, queries, radius))
    assert as_set(join_codes(codes, queries, narrower)) == [pair for pair in wide if pair[2] <= narrower]


@SETTINGS
@given(worlds())
def test_who_asks_whom_does_not_matter(world):
    codes, queries, radius = world
    there = {(query, entry, distance) for query, entry, distance in as_set(join_codes(codes, queries, radius))}
    back = {(query, entry, distance) for entry, query, distance in as_set(join_codes(queries, codes, radius))}
    assert there == back
