"""The signals that lists give, against rules written out by hand; and what the hit cap does to a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_features import Row, make_features
from made_lists import hits_of, made_list

from classifiers.hashes.digests import take_digests
from manifests.features import HashColumn, ShardFeatures
from pipeline.hits import cap_hits
from pipeline.list_signals import list_signal_specs, signal_columns
from pipeline.policy import SignalSpec, load_policy
from pipeline.verdicts import decide_samples

PHASH = "phash:imagehash-4.3.2.oriented"
STORED = "pdq:fullres.stored"
CODE, CODE64 = bytes(range(100, 132)), bytes(range(100, 108))
NAN, INF = float("nan"), float("inf")


def flipped(code: bytes, bits: int) -> bytes:
    return (int.from_bytes(code, "big") ^ ((1 << bits) - 1)).to_bytes(len(code), "big")


def md5(content: bytes) -> bytes:
    return take_digests(content).md5


def with_columns(rows: list[Row], **codes: list[bytes | None]) -> ShardFeatures:
    """Features with a second hash column: its code for every row, None where there is none."""
    features = make_features(rows)
    hashes = dict(features.hashes)
    for short, values in codes.items():
        name, width = {"phash": (PHASH, 8), "stored": (STORED, 32)}[short]
        hashes[name] = HashColumn.empty(len(rows), 1, width)
        for row, value in enumerate(values):
            if value is not None:
                hashes[name].codes[row, 0] = np.frombuffer(value, np.uint8)
                hashes[name].usable[row] = hashes[name].hashable[row] = True
    return replace(features, hashes=hashes)


def crawled(features: ShardFeatures, values: list[bytes | None]) -> ShardFeatures:
    at = features.table.schema.get_field_index("crawl_md5")
    table = features.table.set_column(at, "crawl_md5", pa.array(values, pa.binary(16)))
    return replace(features, table=table)


def assert_signal(features, lists, name: str, expected: list[float], *, cap: int = 1000) -> None:
    column = signal_columns(features, hits_of(features, lists, cap=cap), lists, [name])[name]
    assert column.dtype == np.float32
    np.testing.assert_array_equal(column, expected)


def test_exact_speaks_where_the_bytes_or_the_crawl_gave_a_digest():
    rows = [Row(n, content=content) for n, content in enumerate([b"a", b"b", None, None, b"b"])]
    features = crawled(make_features(rows), [None, None, None, md5(b"a"), md5(b"a")])
    lists = [made_list([("md5", md5(b"a"))]), made_list([("md5", md5(b"b"))], list_id="b", feed="other")]
    assert_signal(features, lists, "list.csam.exact", [1, 0, NAN, 1, 1])
    assert_signal(features, lists, "list.other.exact", [0, 1, NAN, 0, 1])
    other = crawled(make_features(rows), [None, None, md5(b"c"), None, None])
    assert_signal(other, lists, "list.csam.exact", [1, 0, 0, NAN, 0])


def test_a_distance_is_the_least_over_views_and_lists_of_its_feed_and_algorithm():
    rows = [Row(0, code=flipped(CODE, 20)), Row(1, code=None), Row(2, code=flipped(CODE, 9), usable=False), Row(3)]
    features = with_columns(
        rows,
        stored=[flipped(CODE, 12), flipped(CODE, 31), None, None],
        phash=[flipped(CODE64, 3), None, CODE64, None],
    )
    lists = [
        made_list([("pdq", CODE)]),
        made_list([("pdq", flipped(CODE, 14)), ("phash", CODE64)], list_id="b", radius=5),
        made_list([("pdq", flipped(CODE, 19))], list_id="c", feed="other", radius=3),
    ]
    assert_signal(features, lists, "list.csam.pdq_distance", [2, 31, INF, INF])
    assert_signal(features, lists, "list.other.pdq_distance", [1, INF, INF, INF])
    assert_signal(features, lists, "list.csam.phash_distance", [3, NAN, 0, NAN])
    assert_signal(features, lists, "list.other.phash_distance", [INF, NAN, INF, NAN])
    assert_signal(features, lists, "list.csam.dhash_distance", [NAN] * 4)


def test_without_a_list_of_a_feed_its_signals_never_fire():
    rows = [Row(0, content=b"a"), Row(1, content=None, code=None)]
    for lists in ([], [made_list([("md5", md5(b"a")), ("pdq", CODE)])]):
        assert_signal(make_features(rows), lists, "list.other.exact", [0, NAN])
        assert_signal(make_features(rows), lists, "list.other.pdq_distance", [INF, NAN])
        assert_signal(make_features(rows), lists, "list.other.lists", [0, 0])


def listing(name: str, source: str, *entries: tuple[str, bytes], feed: str = "csam"):
    return made_list(entries, list_id=name, source=source, feed=feed)


def test_lists_of_one_source_count_as_one_voice():
    lists = [
        listing("a", "hotline", ("md5", md5(b"a"))),
        listing("b", "hotline", ("sha1", take_digests(b"a").sha1)),
        listing("c", "partner", ("md5", md5(b"a"))),
        listing("d", "stranger", ("md5", md5(b"a")), feed="other"),
        listing("e", "nobody", ("md5", md5(b"c"))),
    ]
    rows = [Row(0, content=b"a"), Row(1, content=b"b"), Row(2, content=None), Row(3, content=b"c")]
    assert_signal(make_features(rows), lists, "list.csam.lists", [2, 0, NAN, 1])
    assert_signal(make_features(rows), lists, "list.other.lists", [1, 0, NAN, 0])
    assert_signal(make_features(rows), lists[::-1], "list.csam.lists", [2, 0, NAN, 1])


def test_a_source_counts_once_whether_by_digest_by_code_or_by_both():
    lists = [listing("a", "", ("md5", md5(b"a")), ("pdq", CODE)), listing("b", "", ("pdq", flipped(CODE, 4)))]
    rows = [Row(0, content=b"a", code=CODE), *(Row(n, content=b"b", code=flipped(CODE, 34 - n)) for n in (1, 2))]
    assert_signal(make_features(rows), lists, "list.csam.lists", [2, 1, 1])


def test_agreement_is_unknown_where_somebody_could_not_be_asked_and_could_still_say_so():
    lists = [
        listing("a", "", ("md5", md5(b"a"))),
        listing("b", "", ("phash", CODE64)),
        listing("c", "", ("pdq", CODE)),
    ]
    rows = [Row(n, content=content, code=code) for n, (content, code) in enumerate(
        [(b"a", CODE), (b"a", CODE), (b"b", CODE), (b"b", None), (None, CODE), (b"a", None)]
    )]  # fmt: skip
    features = with_columns(rows, phash=[CODE64, None, CODE64, CODE64, CODE64, None])
    assert_signal(features, lists, "list.csam.lists", [3, NAN, 2, NAN, NAN, NAN])
    assert_signal(features, lists[:1], "list.csam.lists", [1, 1, 0, 0, NAN, 1])
    assert_signal(features, lists[1:2], "list.csam.lists", [1, NAN, 1, 1, 1, NAN])
    assert_signal(features, [lists[0], lists[2]], "list.csam.lists", [2, 2, 1, NAN, NAN, NAN])


def test_near_hits_over_the_cap_leave_the_distance_and_the_agreement_unknown():
    near = flipped(CODE, 7)
    codes = [near, near, flipped(near, 20), near, bytes(reversed(CODE))]
    rows = [Row(n, content=b"a" if n == 3 else b"x", code=code) for n, code in enumerate(codes)]
    lists = [
        listing("a", "", ("pdq", CODE)),
        listing("b", "", ("md5", md5(b"a"))),
        listing("c", "", ("pdq", flipped(CODE, 40))),
    ]
    features = make_features(rows)
    # Row 2 is 13 from the first entry and 27 from the last, which is 33 from rows 0 and 1. Row 3 is listed exactly.
    assert_signal(features, lists, "list.csam.pdq_distance", [7, 7, 13, 7, INF], cap=3)
    assert_signal(features, lists, "list.csam.pdq_distance", [NAN, NAN, 27, NAN, INF], cap=2)
    assert_signal(features, lists, "list.csam.pdq_distance", [NAN, NAN, NAN, NAN, INF], cap=0)
    assert_signal(features, lists, "list.csam.lists", [1, 1, 2, 2, 0], cap=3)
    assert_signal(features, lists, "list.csam.lists", [NAN, NAN, NAN, NAN, 0], cap=2)
    assert_signal(features, lists, "list.csam.exact", [0, 0, 0, 1, 0], cap=0)


CONTENTS = [None, b"a", b"b", b"c"]
SOURCES = ["one", "two", ""]


@st.composite
def worlds(draw):
    """Rows, their PDQ and phash codes, what the crawl recorded, lists of few entries, and a cap."""
    code = st.sampled_from([flipped(CODE, bits) for bits in (0, 10, 31, 32, 60)])
    code64 = st.sampled_from([flipped(CODE64, bits) for bits in (0, 4, 5, 9)])
    count = draw(st.integers(1, 5))
    rows = [
        Row(
            number, content=draw(st.sampled_from(CONTENTS)), code=draw(st.none() | code), usable=draw(st.booleans())
        )
        for number in range(count)
    ]
    phash = draw(st.lists(st.none() | code64, min_size=count, max_size=count))
    crawl = draw(st.lists(st.sampled_from([None, md5(b"a"), md5(b"d")]), min_size=count, max_size=count))
    entry = st.one_of(
        st.tuples(st.just("pdq"), code),
        st.tuples(st.just("phash"), code64),
        st.tuples(st.just("md5"), st.sampled_from([md5(one) for one in (b"a", b"b", b"d")])),
    )
    lists = [
        made_list(
            draw(st.lists(entry, min_size=1, max_size=3)),
            list_id=f"list {number}",
            source=draw(st.sampled_from(SOURCES)),
            feed=draw(st.sampled_from(["csam", "other"])),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    return rows, phash, crawl, lists, draw(st.sampled_from([0, 1, 2, 1000]))


def apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def by_hand(world, feed: str) -> dict[str, list[float]]:
    """The signals of one feed, one row a sample."""
    rows, phash, crawl, lists, cap = world

    def digests(number: int) -> set[bytes]:
        content = rows[number].content
        return ({crawl[number]} - {None}) | ({md5(content)} if content is not None else set())

    def listed(number: int, item) -> bool:
        column = item.columns.get("md5")
        return column is not None and not digests(number).isdisjoint(row.tobytes() for row in column.rows)

    def code(number: int, name: str) -> bytes | None:
        return phash[number] if name == "phash" else rows[number].code

    def near(number: int, item, name: str) -> list[tuple[int, bytes]]:
        mine = code(number, name)
        if name not in item.columns or mine is None or (name == "pdq" and not rows[number].usable):
            return []
        found = [(apart(mine, row.tobytes()), row.tobytes()) for row in item.columns[name].rows]
        return [hit for hit in found if hit[0] <= item.radius_of(name)]

    free = [n for n in range(len(rows)) if not any(listed(n, item) for item in lists)]

    def is_flood(item, name: str, entry: bytes) -> bool:
        return sum(entry in [hit[1] for hit in near(n, item, name)] for n in free) > cap

    mine = [item for item in lists if item.feed == feed]
    used = {name for item in mine for name in item.columns}
    found: dict[str, list[float]] = {"exact": [], "pdq_distance": [], "phash_distance": [], "lists": []}
    for number in range(len(rows)):
        found["exact"].append(float(any(listed(number, item) for item in mine)) if digests(number) else NAN)
        voices = {item.source for item in mine if listed(number, item)}
        doubt = ("md5" in used and not digests(number)) or any(
            name in used and code(number, name) is None for name in ("pdq", "phash")
        )
        for name in ("pdq", "phash"):
            hits = [(item, *hit) for item in mine for hit in near(number, item, name)]
            sure = [hit for hit in hits if not is_flood(hit[0], name, hit[2])]
            voices |= {item.source for item, _, _ in sure}
            doubt |= len(sure) < len(hits)
            least = min((distance for _, distance, _ in sure), default=NAN if hits else INF)
            found[f"{name}_distance"].append(NAN if code(number, name) is None else least)
        everyone = len(voices) == len({item.source for item in mine})
        found["lists"].append(NAN if doubt and not everyone else len(voices))
    return found


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_every_signal_of_a_list_is_what_its_rule_says(world):
    rows, phash, crawl, lists, cap = world
    features = crawled(with_columns(rows, phash=phash), crawl)
    for feed in ("csam", "other"):
        for name, expected in by_hand(world, feed).items():
            assert_signal(features, lists, f"list.{feed}.{name}", expected, cap=cap)


POLICY = """
name = "by-hand"
required = ["list.csam.pdq_distance"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1 or list.csam.pdq_distance <= 31"
action = "SEAL"
[[rule]]
id = "agreed"
when = "list.csam.lists >= 2"
action = "SEAL"
[[rule]]
id = "sexual"
when = "sexual@1 >= 0.45"
action = "REMOVE"
"""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("QUARANTINE", None, "hit_cap", ["listed", "agreed"])),
        ({"code": b"\x5a\xc3" * 16}, ("KEEP", None, None, [])),
        ({"content": b"known"}, ("SEAL", "listed", "rule:listed", [])),
        ({"scores": {"sexual@1": 0.9}}, ("REMOVE", "sexual", "rule:sexual", ["listed", "agreed"])),
        ({"fault": "truncated"}, ("QUARANTINE", None, "fault:truncated", ["listed", "agreed"])),
        ({"code": flipped(CODE, 29)}, ("SEAL", "listed", "rule:listed", [])),
    ],
)
def test_a_sample_near_to_nothing_but_entries_over_the_cap_is_quarantined_and_not_sealed(changes, expected):
    lists = [
        made_list([("pdq", CODE), ("md5", md5(b"known"))]),
        made_list([("pdq", flipped(CODE, 60))], list_id="far"),
    ]
    known = [*list_signal_specs(lists), SignalSpec("sexual@1", "high", ("sexual@1#00",), None, True)]
    policy = load_policy(POLICY, source="here", known=known)
    plain = {"content": b"x", "code": flipped(CODE, 7), "scores": {"sexual@1": 0.0}}
    features = make_features([Row(0, **plain | changes), Row(1, **plain), Row(2, **plain)], scores=("sexual@1",))
    hits = hits_of(features, lists, cap=1)
    made = decide_samples(features, hits, lists, policy).table.to_pylist()
    assert tuple(made[0][name] for name in ("action", "rule", "reason", "open_rules")) == expected
    assert {(row["action"], row["reason"]) for row in made[1:]} == {("QUARANTINE", "hit_cap")}
    uncapped = decide_samples(features, hits_of(features, lists), lists, policy).table["action"].to_pylist()
    assert uncapped[1:] == ["SEAL", "SEAL"]


def test_a_row_near_a_capped_entry_is_never_kept_though_another_entry_is_farther_than_any_rule_asks():
    near, far = flipped(CODE, 5), flipped(CODE, 25)
    features = make_features([Row(n, code=CODE) for n in range(3)])
    lists = [made_list([("pdq", near)]), made_list([("pdq", far)], list_id="b")]
    hits = cap_hits(hits_of(features, lists), frozenset({(0, "pdq", 0)}))
    text = """
name = "near"
required = ["list.csam.pdq_distance"]
[[rule]]
id = "listed"
when = "list.csam.pdq_distance <= 10"
action = "SEAL"
"""
    policy = load_policy(text, source="near", known=list_signal_specs(lists))
    decided = decide_samples(features, hits, lists, policy).table
    assert decided["signal.list.csam.pdq_distance"].to_pylist() == [25.0] * 3
    assert decided["action"].to_pylist() == ["QUARANTINE"] * 3
    assert decided["reason"].to_pylist() == ["hit_cap"] * 3
