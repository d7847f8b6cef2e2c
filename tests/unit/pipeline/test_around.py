"""The searches around exact hits against brute force."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_features import PDQ, Row, make_features

from classifiers.blocklists.match import search_column
from manifests.records import Action
from pipeline.around import AroundSearch, Seeds, around_marks, join_seeds, take_seeds
from pipeline.policy import Around
from pipeline.verdicts import SPREAD_REASONS

NEAR_COPY, NEIGHBOUR = SPREAD_REASONS.index("near-copy"), SPREAD_REASONS.index("neighbour")
NONE = np.zeros(0, np.int64)


def unit(random, rows, dims=16):
    found = random.normal(size=(rows, dims)).astype(np.float32)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def embedded_features(embeddings, codes=None):
    """One row a sample, with these embeddings and PDQ codes."""
    rows = [
        Row(index, content=b"%d" % index, code=bytes(32) if codes is None else codes[index].tobytes())
        for index in range(len(embeddings))
    ]
    made = make_features(rows)
    embedded = ~np.isnan(embeddings).any(axis=1)
    assert PDQ in made.hashes
    return dataclasses.replace(made, embedding=embeddings, embedded=embedded)


def seeds_of(embeddings, hidden=None):
    count = len(embeddings)
    hidden = np.zeros(count, np.bool_) if hidden is None else hidden
    return Seeds(np.zeros((count, 32), np.uint8), np.zeros(count, np.bool_), embeddings.astype(np.float32), hidden)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 1.0), st.integers(1, 12))
def test_neighbours_are_those_of_brute_force_and_stop_at_the_cap(seed, cosine, most):
    random = np.random.default_rng(seed)
    seeds = unit(random, 5)
    shards = {}
    for name in ("a", "b"):
        rows = unit(random, 30)
        rows[:10] = unit(random, 5).repeat(2, axis=0) * 0 + seeds.repeat(2, axis=0)
        noise = random.normal(scale=0.1, size=rows.shape).astype(np.float32)
        moved = rows.astype(np.float32) + noise * random.random((len(rows), 1)).astype(np.float32)
        shards[name] = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float16)
    search = AroundSearch(seeds_of(seeds), Around(None, cosine, most), search_column)
    expected: dict[str, set[int]] = {}
    near = {
        name: rows.astype(np.float32) @ seeds.astype(np.float32).T >= np.float32(cosine)
        for name, rows in shards.items()
    }
    for name, rows in shards.items():
        search.add(name, embedded_features(rows), np.array([0], np.int64))
    for place in range(len(seeds)):
        found = [(name, int(row)) for name in shards for row in np.flatnonzero(near[name][:, place]) if row != 0]
        if len(found) <= most:
            for name, row in found:
                expected.setdefault(name, set()).add(row)
        assert (place in search.stopped()) == (len(found) > most)
    marks = search.marks()
    assert {name: {sample for sample, *_ in items} for name, items in marks.items()} == expected
    assert all(why == NEIGHBOUR and not hidden for items in marks.values() for _, why, hidden in items)


@pytest.mark.parametrize(("bits", "found"), [(0, True), (31, True), (32, False)])
@pytest.mark.parametrize("hidden", [False, True])
def test_near_copies_lie_within_the_distance_and_are_hidden_where_the_seed_is(bits, found, hidden):
    random = np.random.default_rng(3)
    code = random.integers(0, 256, 32, dtype=np.uint8)
    flips = np.zeros(256, np.uint8)
    flips[random.permutation(256)[:bits]] = 1
    features = embedded_features(unit(random, 2), codes=np.stack([code, code ^ np.packbits(flips)]))
    seeds = take_seeds(features, np.array([0]), np.array([hidden]))
    search = AroundSearch(join_seeds([seeds]), Around(31, None), search_column)
    search.add("a", features, np.array([0]))
    assert search.marks() == ({"a": [(1, NEAR_COPY, hidden)]} if found else {})
    marks = around_marks(features, search.marks().get("a", ()))
    assert marks.actions.tolist() == [0, Action.REMOVE if found else 0]
    assert marks.withheld.tolist() == [False, found and hidden]


def test_a_sample_without_an_embedding_is_nobodys_neighbour():
    features = embedded_features(np.full((3, 16), np.nan, np.float16))
    search = AroundSearch(seeds_of(np.zeros((1, 16), np.float16)), Around(None, 0.5), search_column)
    search.add("a", features, NONE)
    assert search.marks() == {}
