"""The rounds of a settle against a slow fixpoint: the strictest action for the same bytes, in any order."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.keyed import Keyed, KnownKeys, make_keys
from manifests.records import Action
from pipeline.spread import Keys, Spread, find_spread, keyed_entries, merge
from pipeline.verdicts import RowMarks

SECRET = b"s" * 32
NOTHING = merge([])

# One sample: which picture, which URL (0: none), what its own rules say, and whether they withhold it.
SAMPLE = st.tuples(
    st.integers(0, 12),
    st.integers(0, 10),
    st.sampled_from([0, 0, 0, 1, 2, 3]),
    st.sampled_from([False] * 6 + [True]),
)
SHARDS = st.lists(st.lists(SAMPLE, min_size=1, max_size=6), min_size=1, max_size=50)


def ids(texts):
    known = np.array([text is not None for text in texts], np.bool_)
    digests = b"".join(hashlib.sha256(text or b"").digest()[:16] for text in texts)
    return np.frombuffer(digests, np.uint8).reshape(-1, 16), known


def keys_of(shard):
    return Keys(
        np.arange(len(shard), dtype=np.int32),
        make_keys(*ids([b"picture %d" % picture for picture, *_ in shard]), SECRET, "image"),
        make_keys(*ids([b"u%d" % url if url else None for _, url, *_ in shard]), SECRET, "url"),
    )


def own_of(shard):
    actions = np.array([max(action, Action.REMOVE if hidden else 0) for *_, action, hidden in shard], np.int8)
    hidden = np.array([hidden or action == Action.SEAL for *_, action, hidden in shard])
    return RowMarks(actions, hidden, np.full(len(shard), -1, np.int8))


def settle(shards):
    """As `settles` does it: rounds until nothing grows, then the outcome of each row."""
    keys, own = [keys_of(one) for one in shards], [own_of(one) for one in shards]
    judged = {str(n): key.judged(rows) for n, (key, rows) in enumerate(zip(keys, own, strict=True))}
    entries, hides = find_spread(list(judged), lambda shard: judged[shard].copy(), NOTHING)
    assert hides == any(rows.withheld.any() for rows in own)
    spread = Spread(entries)
    found = [mine.joined(key.marks(spread)) for key, mine in zip(keys, own, strict=True)]
    return [list(zip(rows.actions.tolist(), rows.withheld.tolist(), strict=True)) for rows in found]


def brute(shards):
    """One flat list, changed until nothing changes."""
    rows = [
        [picture, url, max(action, 2 if hidden else 0), hidden or action == 3]
        for shard in shards
        for picture, url, action, hidden in shard
    ]
    before = None
    while before != rows:
        before = [list(row) for row in rows]
        for row in rows:
            for picture, url, action, hidden in before:
                if picture == row[0]:
                    row[2] = max(row[2], min(2, action))
                    row[3] = row[3] or hidden
                if url and url == row[1] and (action >= 2 or hidden):
                    row[2] = max(row[2], 1)
    flat = iter(rows)
    return [[tuple(next(flat)[2:]) for _ in shard] for shard in shards]


@settings(max_examples=150, deadline=None)
@given(SHARDS, st.randoms(use_true_random=False))
def test_rounds_give_what_a_slow_fixpoint_gives_in_any_order(shards, random):
    expected = brute(shards)
    assert settle(shards) == expected
    order = list(range(len(shards)))
    random.shuffle(order)
    shuffled = settle([shards[place] for place in order])
    assert [shuffled[order.index(place)] for place in range(len(shards))] == expected


@settings(max_examples=50, deadline=None)
@given(SHARDS)
def test_what_was_withheld_before_is_known_by_its_keys_alone(shards):
    keys = [keys_of(one) for one in shards]
    own = [own_of(one) for one in shards]
    hidden = [key.withheld(rows) for key, rows in zip(keys, own, strict=True)]
    for entries in hidden:
        images = tuple(key.ljust(16, b"\0") for key in entries[~entries["url"]]["key"].tolist())
        urls = tuple(key.ljust(16, b"\0") for key in entries[entries["url"]]["key"].tolist())
        assert np.array_equal(keyed_entries(Keyed(images, urls)), entries)


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))),
)
def test_known_keys_are_found_as_a_dictionary_finds_them(known, asked):
    """Also where first halves are alike, and of the empty key."""

    def keys_from(pairs):
        return np.array([b"%08d%08d" % pair if pair != (0, 0) else b"" for pair in pairs], "S16")

    mine = np.sort(keys_from(known - {(0, 0)}))
    places = {key: place for place, key in enumerate(mine.tolist())}
    rows, found = KnownKeys(mine).find(keys_from(asked))
    expected = [(row, places[key]) for row, key in enumerate(keys_from(asked).tolist()) if key in places]
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == expected
