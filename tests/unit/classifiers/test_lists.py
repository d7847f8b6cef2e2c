"""Lists as they are matched: which entry feeds what, how entries are numbered, and what is never shown."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_lists import made_feeds, made_list, stored_list

from classifiers.blocklists.algorithms import (
    CODE_WIDTHS,
    MAX_RADIUS,
    MAX_RADIUS_64,
    UID,
    URL_WIDTHS,
    WIDTHS,
    ListError,
)
from classifiers.blocklists.digest_join import find_digests
from classifiers.blocklists.lists import MATCHED

PURPOSES = ("csam", "ncii", "terrorism", "exploitative", "other")
EFFECTS = ("case", "remove", "ignore")
CATEGORIES = {"A1": "case", "B": "remove", "0": "ignore"}


def value(algorithm, seed=1):
    return np.random.default_rng([seed, *algorithm.encode()]).bytes(WIDTHS[algorithm])


def feeds_of(stored, purpose="csam", **changes):
    return {item.feed: item for item in made_feeds(stored, list_id="hotline", purpose=purpose, **changes)}


def entries_of(item, algorithm):
    """The entries that a feed holds, canaries left out, by number."""
    if item is None or algorithm not in item.columns:
        return {}
    column = item.columns[algorithm]
    pairs = zip(column.numbers.tolist(), column.rows, strict=True)
    return {number: row.tobytes() for number, row in pairs if number < column.stored}


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(
    "effects", [c for n in (1, 2, 3) for c in itertools.combinations(EFFECTS, n)], ids="+".join
)
def test_the_purpose_and_the_strictest_effect_say_which_feed_gets_an_entry(purpose, effects):
    names = {f"of {effect}": effect for effect in EFFECTS}
    entry, other = value("md5"), value("md5", 2)
    pairs = [("md5", entry, f"of {effect}") for effect in effects]
    # Another entry in each feed, so that there is a list whatever becomes of this one.
    stored = stored_list([*pairs, ("md5", other, "of case"), ("md5", value("md5", 3), "of remove")], names)
    found = feeds_of(stored, purpose)
    holding = [feed for feed, item in found.items() if entry in entries_of(item, "md5").values()]
    strictest = min(effects, key=EFFECTS.index)
    expected = {"case": ["csam"], "remove": ["other"], "ignore": []}[strictest]
    assert holding == (expected if purpose == "csam" else expected and ["other"])
    assert set(found) == ({"csam", "other"} if purpose == "csam" else {"other"})


@st.composite
def stored_lists(draw):
    categories = {f"c{number:02d}": draw(st.sampled_from(EFFECTS)) for number in range(draw(st.integers(1, 20)))}
    entry = st.tuples(st.sampled_from(["md5", "sha256", "pdq", "phash"]), st.integers(0, 12))
    drawn = draw(st.lists(st.tuples(entry, st.sampled_from(sorted(categories))), min_size=1, max_size=40))
    return [(name, value(name, seed), category) for (name, seed), category in drawn], categories


@settings(max_examples=150, deadline=None)
@given(stored_lists(), st.sampled_from(PURPOSES))
def test_every_entry_is_in_one_feed_under_its_number_with_its_categories(drawn, purpose):
    entries, effects = drawn
    stored = stored_list(entries, effects)
    try:
        found = feeds_of(stored, purpose)
    except ListError:
        assert all(effects[category] == "ignore" for _, _, category in entries)
        return
    for algorithm, rows in stored.rows.items():
        csam, other = (entries_of(found.get(feed), algorithm) for feed in ("csam", "other"))
        assert not csam.keys() & other.keys()
        for number, row in enumerate(rows):
            mine = {category for name, one, category in entries if (name, one) == (algorithm, row.tobytes())}
            said = {effects[category] for category in mine}
            feed = "csam" if purpose == "csam" and "case" in said else "other" if said != {"ignore"} else None
            in_feeds = [name for name, held in (("csam", csam), ("other", other)) if number in held]
            assert in_feeds == ([feed] if feed else [])
            if feed:
                assert (csam | other)[number] == row.tobytes()
                assert found[feed].categories_of(algorithm, number) == tuple(sorted(mine))


@settings(max_examples=60, deadline=None)
@given(stored_lists())
def test_canaries_are_sorted_in_and_numbered_past_the_last_stored_entry(drawn):
    entries, effects = drawn
    stored = stored_list(entries, effects)
    canaries = stored_list([(n, value(n), "x") for n in stored.rows], {"x": "case"}, canaries=True).canaries
    stored = dataclasses.replace(stored, canaries=canaries)
    if all(effects[category] == "ignore" for _, _, category in entries):
        return
    for item in feeds_of(stored).values():
        assert {one.algorithm for one in item.canaries} == item.columns.keys()
        for algorithm, column in item.columns.items():
            values = [row.tobytes() for row in column.rows]
            assert values == sorted(set(values))
            assert column.stored == len(stored.rows[algorithm])
            mine = sorted(one.entry for one in stored.canaries if one.algorithm == algorithm)
            numbers = range(column.stored, column.stored + len(mine))
            found = {values[place]: n for place, n in enumerate(column.numbers.tolist()) if n >= column.stored}
            assert found == dict(zip(mine, numbers, strict=True))
            assert all(item.categories_of(algorithm, number) == () for number in numbers)
            assert len(column.numbers) == len(column.masks) == len(values)
            if algorithm not in CODE_WIDTHS:
                listed, places = find_digests(column.rows, column.starts, column.rows)
                assert listed.all()
                assert places.tolist() == list(range(len(values)))


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 33, 64])
def test_masks_are_as_wide_as_the_categories_need_and_lose_none(count):
    names = {f"c{number:02d}": "case" for number in range(count)}
    entries = [("md5", value("md5", number), name) for number, name in enumerate(names)]
    stored = stored_list([*entries, *(("md5", value("md5"), name) for name in names)], names)
    (item,) = feeds_of(stored).values()
    column = item.columns["md5"]
    assert column.masks.dtype.itemsize == next(size for size in (1, 2, 4, 8) if 8 * size >= count)
    for place, row in enumerate(column.rows):
        mine = tuple(name for _, one, name in entries if one == row.tobytes())
        number = int(column.numbers[place])
        assert item.categories_of("md5", number) == (tuple(names) if row.tobytes() == value("md5") else mine)


def test_the_feeds_say_where_they_are_from():
    stored = stored_list([("md5", value("md5"), "A1"), ("pdq", value("pdq"), "B")], CATEGORIES)
    found = feeds_of(stored, source="the hotline", radius=9, radius64=2)
    for item in found.values():
        assert (item.list_id, item.version, item.purpose, item.source) == ("hotline", 1, "csam", "the hotline")
        assert (item.radius, item.radius64, item.categories) == (9, 2, ("0", "A1", "B"))
        assert [item.radius_of(name) for name in CODE_WIDTHS] == [9, 2, 2, 2, 2]
        digest = hashlib.sha256()
        for name in ("md5", "pdq"):
            digest.update(name.encode() + b"\0" + (1).to_bytes(8, "big") + value(name))
        assert item.set_digest == digest.hexdigest()
    assert {feed: set(item.columns) for feed, item in found.items()} == {"csam": {"md5"}, "other": {"pdq"}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"radius": -1}, "radius: expected 0 to 127 bits, found -1"),
        ({"radius": MAX_RADIUS + 1}, "radius: expected 0 to 127 bits, found 128"),
        ({"radius64": -1}, "radius64: expected 0 to 31 bits, found -1"),
        ({"radius64": MAX_RADIUS_64 + 1}, "radius64: expected 0 to 31 bits, found 32"),
    ],
)
def test_a_radius_that_would_match_anything_is_refused(changes, expected):
    with pytest.raises(ListError, match=f"^list 'hotline': {expected}$"):
        feeds_of(stored_list([("pdq", value("pdq"), "A1")], CATEGORIES), **changes)


@pytest.mark.parametrize("radius", [0, MAX_RADIUS])
@pytest.mark.parametrize("radius64", [0, MAX_RADIUS_64])
def test_the_least_and_the_greatest_radius_may_be_had(radius, radius64):
    found = feeds_of(stored_list([("pdq", value("pdq"), "A1")], CATEGORIES), radius=radius, radius64=radius64)
    assert (found["csam"].radius, found["csam"].radius64) == (radius, radius64)


def test_a_list_that_holds_nothing_of_the_algorithms_asked_is_refused_and_none_is_shown():
    stored = stored_list([(name, value(name), "A1") for name in URL_WIDTHS], CATEGORIES)
    with pytest.raises(ListError, match=r"^list 'hotline': expected entries of md5, sha1, .* found none") as caught:
        feeds_of(stored)
    assert not any(value(name).hex() in str(caught.value) for name in URL_WIDTHS)


def test_urls_beside_other_entries_make_no_case_whatever_their_list_is_for():
    stored = stored_list([(name, value(name), "A1") for name in WIDTHS], CATEGORIES)
    assert set(feeds_of(stored)["csam"].columns) == set(MATCHED) == WIDTHS.keys() - {*URL_WIDTHS, UID}
    found = feeds_of(stored, algorithms=tuple(WIDTHS))
    assert set(found["csam"].columns) == {*MATCHED, UID}
    assert set(found["other"].columns) == set(URL_WIDTHS)


def test_the_repr_holds_the_name_the_feed_and_counts_only():
    stored = stored_list([(name, value(name, n), "A1") for name in MATCHED for n in (1, 2)], CATEGORIES)
    item = feeds_of(stored)["csam"]
    assert repr(item) == (
        "HashList('hotline', csam, md5=2, sha1=2, sha256=2, pdq=2, phash=2, dhash=2, whash=2, ahash=2)"
    )
    shown = repr(stored) + repr(item.columns["md5"]) + repr(item.canaries)
    assert not any(value(name, n).hex() in shown for name in MATCHED for n in (1, 2))


@pytest.mark.parametrize("canaries", [False, True])
def test_a_list_cannot_be_changed(canaries):
    item = made_list([("pdq", value("pdq")), ("md5", value("md5"))], canaries=canaries)
    with pytest.raises(dataclasses.FrozenInstanceError):
        item.radius = 0
    for column in item.columns.values():
        for array in (column.rows, column.numbers, column.masks, column.starts):
            assert not array.flags.writeable
