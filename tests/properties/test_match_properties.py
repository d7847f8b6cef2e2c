"""Hits of whole shards against a plain reading of what a hit is: every row, column, variant, list and entry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from made_features import Row, make_features
from made_lists import made_feeds, stored_list

from classifiers.blocklists.algorithms import CODE_WIDTHS
from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.lists import HashList, ListError
from classifiers.blocklists.match import search_column
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from manifests.features import HashColumn, ShardFeatures, decode_features, encode_features, withhold
from manifests.schema import algorithm_of
from pipeline.hits import (
    HITS_SCHEMA,
    cancel_hits,
    cap_hits,
    count_near,
    decode_hits,
    encode_hits,
    follow_rows,
    over_cap,
)
from pipeline.matching import find_hits, gather_queries, match_shard

SETTINGS = settings(max_examples=60, deadline=None)
COLUMNS = {"pdq:fullres.oriented": 8, "pdq:fullres.stored": 8, "phash:imagehash-4.3.2.oriented": 1,
           "dhash:imagehash-4.3.2.stripped": 1}  # fmt: skip
CONTENTS = [b"one", b"two", b"three"]
EFFECTS = {"A": "case", "B": "remove", "C": "ignore"}
RADII = {"pdq": [0, 1, 31, 32, 100], "64": [0, 3, 4, 31]}


def flip(code: bytes, places) -> bytes:
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    bits[places] ^= 1
    return np.packbits(bits).tobytes()


def apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


@dataclass(frozen=True)
class Written:
    """A list as its owner wrote it: (algorithm, value, category), and canaries (algorithm, value)."""

    entries: list[tuple[str, bytes, str]]
    canaries: list[tuple[str, bytes]]
    purpose: str
    radius: int
    radius64: int

    def feeds(self, name: str) -> tuple[HashList, ...]:
        stored = stored_list(self.entries, EFFECTS)
        canaries = tuple(Canary(b"", *one, 0) for one in self.canaries)
        try:
            return made_feeds(
                replace(stored, canaries=canaries),
                list_id=name, purpose=self.purpose, radius=self.radius, radius64=self.radius64,
            )  # fmt: skip
        except ListError:  # nothing but ignored entries
            return ()

    def of_feed(self, feed: str) -> dict[str, list[tuple[int, bytes, bool]]]:
        """Every (number, value, whether it is a canary) that a feed holds, by algorithm."""
        found = {}
        for algorithm in {name for name, _, _ in self.entries}:
            values = sorted({value for name, value, _ in self.entries if name == algorithm})
            mine = []
            for number, value in enumerate(values):
                said = {
                    EFFECTS[category] for name, one, category in self.entries if (name, one) == (algorithm, value)
                }
                to = "csam" if self.purpose == "csam" and "case" in said else "other" if said != {"ignore"} else ""
                mine += [(number, value, False)] * (to == feed)
            if mine:
                ours = sorted(value for name, value in self.canaries if name == algorithm)
                found[algorithm] = mine + [(len(values) + n, value, True) for n, value in enumerate(ours)]
        return found


@st.composite
def shards(draw):
    """Features whose rows lack codes or digests here and there, and the values that lists can be made near to."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for index in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 5)) == 0:
            rows.append(Row(index, withheld=True))
            continue
        for _ in range(draw(st.integers(1, 2))):
            rows.append(Row(index, content=draw(st.sampled_from([*CONTENTS, None]))))
    features = make_features(rows)
    known = np.array([not row.withheld for row in rows], bool)
    hashes = {}
    for name, variants in COLUMNS.items():
        column = HashColumn.empty(len(rows), variants, CODE_WIDTHS[algorithm_of(name)])
        column.codes[:] = random.integers(0, 256, column.codes.shape)
        # Rows, and variants of a row, that share a code but for a few bits.
        if rows and draw(st.integers(0, 3)):
            few = random.random((*column.codes.shape, 8)) < draw(st.sampled_from([0.03, 0, 0.1]))
            column.codes[:] = column.codes[0, 0] ^ np.packbits(few, axis=-1)[..., 0]
        column.hashable[:] = known & (random.random(len(rows)) < 0.8)
        column.usable[:] = column.hashable & (random.random(len(rows)) < 0.8)
        column.codes[~column.hashable] = 0
        hashes[name] = column
    table = features.table
    for name, width in DIGEST_WIDTHS.items():
        crawled = [
            getattr(take_digests(draw(st.sampled_from(CONTENTS))), name) if one and draw(st.booleans()) else None
            for one in known
        ]
        at = table.schema.get_field_index(f"crawl_{name}")
        table = table.set_column(at, f"crawl_{name}", pa.array(crawled, pa.binary(width)))
    return replace(features, table=table, hashes=hashes)


@st.composite
def worlds(draw):
    features = draw(shards())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def near(algorithm: str, radius: int) -> bytes:
        """A value around the radius of some code of the shard, or a digest that some row may have."""
        if algorithm in DIGEST_WIDTHS:
            digest = getattr(take_digests(CONTENTS[random.integers(len(CONTENTS))]), algorithm)
            return digest if random.random() < 0.7 else flip(digest, random.integers(8 * len(digest)))
        columns = [column for name, column in features.hashes.items() if algorithm_of(name) == algorithm]
        codes = np.concatenate([column.codes.reshape(-1, CODE_WIDTHS[algorithm]) for column in columns])
        code = codes[random.integers(len(codes))].tobytes() if len(codes) else bytes(CODE_WIDTHS[algorithm])
        distance = max(0, radius + int(random.integers(-1, 2)))
        return flip(code, random.choice(8 * len(code), min(distance, 8 * len(code)), replace=False))

    algorithms = [*DIGEST_WIDTHS, "pdq", "pdq", "phash", "dhash"]
    written = []
    for _ in range(draw(st.integers(0, 3))):
        radius, radius64 = draw(st.sampled_from(RADII["pdq"])), draw(st.sampled_from(RADII["64"]))
        names = draw(st.lists(st.sampled_from(algorithms), min_size=1, max_size=12))
        entries, canaries = [], []
        for name in names:
            value = near(name, radius if name == "pdq" else radius64)
            entries += [(name, value, category) for category in draw(st.sets(st.sampled_from("ABC"), min_size=1))]
        values = {(name, value) for name, value, _ in entries}
        for name in draw(st.sets(st.sampled_from(names))):
            value = near(name, radius if name == "pdq" else radius64)
            canaries += [(name, value)] * ((name, value) not in values)
        written.append(Written(entries, canaries, draw(st.sampled_from(["csam", "ncii"])), radius, radius64))
    lists = tuple(item for number, one in enumerate(written) for item in one.feeds(f"list {number}"))
    return features, written, lists


def by_hand(features: ShardFeatures, written: list[Written], lists) -> tuple[list, list]:
    """The hits on entries and those on canaries, as plain rows in the order of the table."""
    found: tuple[list, list] = ([], [])
    for place, item in enumerate(lists):
        source = written[int(item.list_id.removeprefix("list "))]
        for algorithm, entries in source.of_feed(item.feed).items():
            for row in range(features.table.num_rows):
                for number, value, is_canary in entries:
                    hits = []
                    if algorithm in DIGEST_WIDTHS:
                        taken = features.digests[algorithm][row].tobytes() if features.digested[row] else None
                        crawled = features.table[f"crawl_{algorithm}"][row].as_py()
                        hits += [("listed-exact", None, None, None)] * (taken == value)
                        hits += [("listed-exact", None, "crawl", None)] * (crawled == value)
                    for name, column in features.hashes.items():
                        if algorithm_of(name) == algorithm and column.hashable[row] and column.usable[row]:
                            codes = [code.tobytes() for code in column.codes[row]]
                            distance, variant = min((apart(code, value), n) for n, code in enumerate(codes))
                            if distance <= (source.radius if algorithm == "pdq" else source.radius64):
                                hits.append(("listed-near", distance, name, variant))
                    for basis, distance, view, variant in hits:
                        hit = (row, place, basis, algorithm, number, distance, view, variant, False)
                        found[is_canary].append(hit)
    for part in found:
        part.sort(key=lambda hit: (*hit[:4], hit[6] is None, hit[6] or "", hit[4]))
    return found


def as_rows(table: pa.Table) -> list[tuple]:
    assert table.schema.equals(HITS_SCHEMA)
    return [tuple(row.values()) for row in table.to_pylist()]


def hits_of(features, lists) -> pa.Table:
    return find_hits(gather_queries(features, lists), lists, search_column).hits


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_the_hits_are_those_of_reading_every_list_to_every_row(world):
    features, written, lists = world
    found = find_hits(gather_queries(features, lists), lists, search_column)
    entries, canaries = by_hand(features, written, lists)
    assert as_rows(found.hits) == entries
    assert as_rows(found.canaries) == canaries


@SETTINGS
@given(worlds(), st.integers(0, 3))
def test_an_entry_is_over_the_cap_when_more_samples_than_that_are_near_and_not_listed(world, cap):
    features, written, lists = world
    entries, _ = by_hand(features, written, lists)
    index = features.indices().tolist()
    exact = {index[hit[0]] for hit in entries if hit[2] == "listed-exact"}
    near = {(hit[1], hit[3], hit[4], index[hit[0]]) for hit in entries if index[hit[0]] not in exact}
    counts = Counter(hit[:3] for hit in near)
    expected = [(*hit[:-1], hit[2] == "listed-near" and counts[hit[1], hit[3], hit[4]] > cap) for hit in entries]
    table = match_shard(features, lists, search_column, max_near_hits=cap, cancelled=frozenset())
    assert as_rows(table) == expected


@SETTINGS
@given(worlds(), st.data())
def test_cancelled_entries_lose_their_near_hits_and_count_for_nothing(world, data):
    features, _, lists = world
    hits = hits_of(features, lists)
    entries = sorted({(hit[1], hit[3], hit[4]) for hit in as_rows(hits)})
    cancelled = frozenset(data.draw(st.sets(st.sampled_from(entries)))) if entries else frozenset()
    expected = [
        hit for hit in as_rows(hits) if hit[2] == "listed-exact" or (hit[1], hit[3], hit[4]) not in cancelled
    ]
    assert as_rows(cancel_hits(hits, cancelled)) == expected
    capped = match_shard(features, lists, search_column, max_near_hits=0, cancelled=cancelled)
    assert [hit[:-1] for hit in as_rows(capped)] == [hit[:-1] for hit in expected]


@SETTINGS
@given(worlds(), st.data())
def test_hits_follow_the_rows_that_a_withheld_sample_moves(world, data):
    before, _, lists = world
    clear = sorted(set(before.indices()[~before.withheld()].tolist()))
    gone = data.draw(st.sets(st.sampled_from(clear))) if clear else set()
    after = decode_features(withhold(encode_features(before), np.array(sorted(gone), np.int32))[0])
    assert after.table.num_rows - before.table.num_rows == len(gone) - np.isin(before.indices(), list(gone)).sum()
    assert follow_rows(hits_of(before, lists), before, after).equals(hits_of(after, lists))
    # Marks of the cap were made over a whole collection, and stay with their entries.
    samples = before.indices().astype(np.int64)
    over = over_cap(count_near(hits_of(before, lists), samples), 0)
    marked = cap_hits(hits_of(before, lists), over)
    assert follow_rows(marked, before, after).equals(cap_hits(hits_of(after, lists), over))


@SETTINGS
@given(worlds())
def test_stored_features_are_matched_as_live_ones_and_hits_pass_through_a_pipe(world):
    features, _, lists = world
    hits = hits_of(features, lists)
    assert hits_of(decode_features(encode_features(features)), lists).equals(hits)
    text = encode_hits(hits)
    assert text.isascii()
    assert bool(text) == bool(hits.num_rows)
    assert decode_hits(text).equals(hits)
