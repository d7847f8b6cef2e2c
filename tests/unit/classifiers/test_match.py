from __future__ import annotations

import numpy as np
import pytest

from classifiers.blocklists import match
from classifiers.blocklists.lists import WIDTHS, build_list
from classifiers.blocklists.match import Hit, find_hits, match_digests, nearest_codes

RANDOM = np.random.default_rng(7)
DIGESTS = ("md5", "sha1", "sha256")


def values(algorithm, count):
    return RANDOM.integers(0, 256, (count, WIDTHS[algorithm]), dtype=np.uint8)


def listing(*entries, list_id="a", purpose="csam", radius=31):
    pairs = [(algorithm, row.tobytes()) for algorithm, rows in entries for row in np.atleast_2d(rows)]
    return build_list(pairs, list_id=list_id, purpose=purpose, radius=radius)


def flipped(code, distance):
    """The code with that many of its bits changed."""
    bits = np.unpackbits(code)
    bits[RANDOM.choice(256, distance, replace=False)] ^= 1
    return np.packbits(bits)


def flags(*marks):
    return np.array(marks, bool)


def nearest(lists, codes, hashable=None, usable=None):
    every = np.ones(len(codes), bool)
    return nearest_codes(lists, codes, every if hashable is None else hashable, every if usable is None else usable)


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_a_listed_digest_is_found_whatever_its_algorithm(algorithm):
    digests = {name: values(name, 5) for name in DIGESTS}
    source = listing((algorithm, digests[algorithm][3]), (algorithm, values(algorithm, 50)))
    found = match_digests([source], digests, np.ones(5, bool))
    assert found.dtype == np.float32
    assert found.tolist() == [0, 0, 0, 1, 0]


def test_any_list_is_enough():
    digests = {name: values(name, 3) for name in DIGESTS}
    lists = [listing(("md5", digests["md5"][0])), listing(("sha1", digests["sha1"][2]), ("md5", values("md5", 9)))]
    assert match_digests(lists, digests, np.ones(3, bool)).tolist() == [1, 0, 1]


def test_a_digest_that_differs_in_one_bit_is_not_listed():
    row = values("sha256", 1)[0]
    near = np.stack([row ^ np.eye(1, 32, place, dtype=np.uint8)[0] for place in range(32)])
    rows = {"sha256": np.concatenate((near, row[None]))}
    assert match_digests([listing(("sha256", row))], rows, np.ones(33, bool)).tolist() == [0] * 32 + [1]


def test_digests_that_are_not_known_are_neither_listed_nor_free():
    digests = {"md5": values("md5", 3)}
    found = match_digests([listing(("md5", digests["md5"]))], digests, flags(True, False, True))
    np.testing.assert_array_equal(found, np.array([1, np.nan, 1], np.float32))


def test_without_lists_nothing_is_listed_and_nothing_is_near():
    codes = values("pdq", 8).reshape(2, 4, 32)
    known = flags(True, False)
    np.testing.assert_array_equal(match_digests([], {"md5": values("md5", 2)}, known), [0, np.nan])
    np.testing.assert_array_equal(nearest_codes([], codes, known, known), [np.inf, np.nan])


def test_an_algorithm_that_the_list_holds_and_the_samples_lack_is_an_error():
    source = listing(("sha1", values("sha1", 1)), list_id="hotline")
    with pytest.raises(ValueError, match=r"list 'hotline' holds sha1: expected digests \(2, 20\), found None"):
        match_digests([source], {"md5": values("md5", 2)}, np.ones(2, bool))
    with pytest.raises(ValueError, match="expected digests"):
        match_digests([source], {"sha1": values("sha1", 3)}, np.ones(2, bool))
    with pytest.raises(ValueError, match="expected digests"):
        find_hits([source], {"sha1": values("md5", 1)[0]}, None)


def test_a_distance_of_31_is_found_and_one_of_32_is_not():
    code = values("pdq", 1)[0]
    queries = np.stack([flipped(code, distance) for distance in (0, 1, 30, 31, 32, 33, 128)])[:, None]
    found = nearest([listing(("pdq", code))], queries)
    assert found.dtype == np.float32
    assert found.tolist() == [0, 1, 30, 31, np.inf, np.inf, np.inf]


@pytest.mark.parametrize("radius", [0, 1, 31, 127])
def test_the_radius_of_a_list_is_its_last_distance(radius):
    code = values("pdq", 1)[0]
    queries = np.stack([flipped(code, radius), flipped(code, radius + 1)])[:, None]
    assert nearest([listing(("pdq", code), radius=radius)], queries).tolist() == [radius, np.inf]


def test_each_list_has_its_own_radius():
    code = values("pdq", 1)[0]
    strict, wide = listing(("pdq", flipped(code, 20)), radius=10), listing(("pdq", flipped(code, 40)), radius=60)
    assert nearest([strict], code[None, None]).tolist() == [np.inf]
    assert nearest([strict, wide], code[None, None]).tolist() == [40]
    assert nearest([wide, listing(("pdq", flipped(code, 9)), radius=10)], code[None, None]).tolist() == [9]


@pytest.mark.parametrize("variant", range(8))
def test_the_nearest_of_all_variants_counts(variant):
    codes = values("pdq", 16).reshape(2, 8, 32)
    source = listing(("pdq", flipped(codes[1, variant], 12)), ("pdq", flipped(codes[1, (variant + 3) % 8], 20)))
    assert nearest([source], codes).tolist() == [np.inf, 12]


def test_a_code_that_is_not_usable_is_never_searched_and_one_that_is_not_there_is_unknown():
    codes = values("pdq", 4).reshape(4, 1, 32)
    source = listing(("pdq", codes[:, 0]))
    found = nearest([source], codes, flags(True, True, False, False), flags(True, False, False, True))
    np.testing.assert_array_equal(found, np.array([0, np.inf, np.nan, np.nan], np.float32))


def test_a_list_of_digests_only_is_near_to_nothing():
    codes = values("pdq", 2).reshape(2, 1, 32)
    assert nearest([listing(("md5", values("md5", 3)))], codes).tolist() == [np.inf, np.inf]


def test_empty_batches_have_empty_answers():
    source = listing(("pdq", values("pdq", 3)), ("md5", values("md5", 3)))
    assert nearest([source], np.zeros((0, 8, 32), np.uint8)).shape == (0,)
    assert match_digests([source], {"md5": np.zeros((0, 16), np.uint8)}, np.zeros(0, bool)).shape == (0,)


@pytest.mark.parametrize("shape", [(2, 32), (2, 8, 31), (3, 8, 32), (2, 0, 32)])
def test_codes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="codes: expected 2 x V x 32"):
        nearest_codes([], np.zeros(shape, np.uint8), np.ones(2, bool), np.ones(2, bool))


@pytest.mark.parametrize("shape", [(32,), (8, 31), (0, 32), (1, 8, 32)])
def test_one_code_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="codes of one sample: expected V x 32"):
        find_hits([listing(("pdq", values("pdq", 1)))], {}, np.zeros(shape, np.uint8))


def test_entries_and_queries_beyond_one_tile_are_searched_to_the_last(monkeypatch):
    monkeypatch.setattr(match, "_QUERIES_AT_ONCE", 3)
    monkeypatch.setattr(match, "_ENTRIES_AT_ONCE", 5)
    listed = values("pdq", 11)
    codes = np.stack([flipped(row, distance) for distance, row in enumerate(listed)])[:, None]
    assert nearest([listing(("pdq", listed))], codes).tolist() == list(range(11))
    hits = find_hits([listing(("pdq", listed))], {}, codes[10])
    assert [hit.distance for hit in hits] == [10]


def test_the_hits_of_a_sample_name_list_entry_distance_and_variant():
    digests = {name: values(name, 1)[0] for name in DIGESTS}
    codes = values("pdq", 8)
    near, nearer = flipped(codes[6], 31), flipped(codes[2], 5)
    csam = listing(("md5", digests["md5"]), ("md5", values("md5", 4)), ("pdq", near), ("pdq", nearer), list_id="a")
    other = listing(("sha256", digests["sha256"]), ("pdq", near), list_id="b", purpose="other", radius=30)

    def place(rows, row):
        return [entry.tobytes() for entry in rows].index(row.tobytes())

    hits = find_hits([csam, other], digests, codes)
    assert hits[0] == Hit(
        "a", "csam", "listed-exact", "md5", place(csam.digests["md5"], digests["md5"]), None, None
    )
    assert set(hits[1:3]) == {
        Hit("a", "csam", "listed-near", "pdq", place(csam.codes, near), 31, 6),
        Hit("a", "csam", "listed-near", "pdq", place(csam.codes, nearer), 5, 2),
    }
    assert [hit.entry for hit in hits[1:3]] == [0, 1]
    assert hits[3:] == (Hit("b", "other", "listed-exact", "sha256", 0, None, None),)


def test_an_entry_that_two_variants_match_is_one_hit_with_the_first_of_the_nearest():
    code = values("pdq", 1)[0]
    codes = np.stack([flipped(code, 9), flipped(code, 4), flipped(code, 4)])
    assert find_hits([listing(("pdq", code))], {}, codes) == (Hit("a", "csam", "listed-near", "pdq", 0, 4, 1),)


def test_a_sample_without_a_code_can_only_hit_exactly():
    digest, code = values("md5", 1)[0], values("pdq", 1)[0]
    source = listing(("md5", digest), ("pdq", code))
    assert [hit.basis for hit in find_hits([source], {"md5": digest}, None)] == ["listed-exact"]
    assert [hit.basis for hit in find_hits([source], {"md5": digest}, code[None])] == [
        "listed-exact",
        "listed-near",
    ]
