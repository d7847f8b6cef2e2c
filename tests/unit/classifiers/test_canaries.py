"""Canaries: what is drawn, that a worker's own path finds them, and that a run stops when one is missed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from made_lists import made_list
from PIL import Image

from classifiers.blocklists.algorithms import (
    CODE_WIDTHS,
    DEFAULT_RADIUS,
    DEFAULT_RADIUS_64,
    URL_WIDTHS,
    WIDTHS,
)
from classifiers.blocklists.band_index import band_masks
from classifiers.blocklists.canaries import make_canaries, picture_code
from classifiers.blocklists.checks import unusable
from classifiers.blocklists.digest_join import bucket_starts
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import CodeSearch, join_column, search_column
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from classifiers.hashes.registry import find_kind
from pipeline.canary_shard import CanaryShard, check_found, expected_hits
from pipeline.commit import Decider
from pipeline.config import VIEWS
from pipeline.decode import DecodeLimits, Decoder
from pipeline.errors import CanaryError, ExitCode
from pipeline.hash_pictures import PictureHashes
from pipeline.list_signals import list_signal_specs
from pipeline.matching import combine_queries, find_hits
from pipeline.overrides import NO_OVERRIDES
from pipeline.policy import load_policy
from pipeline.settle_matches import canary_queries
from pipeline.sheet import Models

MATCHED = [*DIGEST_WIDTHS, *CODE_WIDTHS]
HEX = re.compile("[0-9a-f]{8}")
POLICY = """
name = "short"
required = ["pdq.usable"]
[[rule]]
id = "unusable"
when = "pdq.usable < 1"
action = "QUARANTINE"
"""


def apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def test_a_digest_has_one_canary_a_code_two_and_a_url_none():
    made = make_canaries([*MATCHED, *URL_WIDTHS], 1)
    found = [(canary.algorithm, canary.distance) for canary in made]
    expected = [(name, 0) for name in DIGEST_WIDTHS]
    for name in CODE_WIDTHS:
        expected += [(name, 0), (name, DEFAULT_RADIUS if name == "pdq" else DEFAULT_RADIUS_64)]
    assert found == expected
    assert len({canary.image for canary in made}) == len(made)
    assert len({canary.entry for canary in made}) == len(made)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_picture_is_as_far_from_its_entry_as_it_says(seed):
    for canary in make_canaries(MATCHED, seed):
        assert len(canary.entry) == WIDTHS[canary.algorithm]
        if canary.algorithm in DIGEST_WIDTHS:
            assert getattr(take_digests(canary.image), canary.algorithm) == canary.entry
            continue
        kind = find_kind("pdq:fullres" if canary.algorithm == "pdq" else canary.algorithm)
        code = kind.encode(np.asarray(Image.open(io.BytesIO(canary.image)).convert("RGB")))
        assert code is not None
        assert code.usable
        assert picture_code(canary) == bytes(code.codes[0])
        assert apart(picture_code(canary), canary.entry) == canary.distance


@pytest.mark.parametrize(("algorithm", "expected"), [("pdq", [1] + [2] * 15), ("phash", [1] * 4)])
def test_the_far_canary_can_be_found_in_no_band_but_one_with_a_bit_less(algorithm, expected):
    (canary,) = (one for one in make_canaries([algorithm], 4) if one.distance)
    code, entry = (np.frombuffer(value, np.uint8) for value in (picture_code(canary), canary.entry))
    bits = np.unpackbits(band_masks(len(code)).view(np.uint8), axis=1) & np.unpackbits(code ^ entry)
    assert sorted(bits.sum(axis=1).tolist()) == expected


def test_another_seed_draws_other_pictures_and_the_same_seed_the_same():
    one, other = make_canaries(MATCHED, 1), make_canaries(MATCHED, 2)
    assert not {canary.image for canary in one} & {canary.image for canary in other}
    assert not {canary.entry for canary in one} & {canary.entry for canary in other}
    assert one == make_canaries(MATCHED, 1)
    assert not any(canary.entry.hex() in repr(one) for canary in one)


def test_a_canary_is_an_entry_that_an_import_would_take():
    for canary in make_canaries(MATCHED, 3):
        row = np.frombuffer(canary.entry, np.uint8)[None]
        assert unusable(canary.algorithm, row) == {}


def whole(name: str, *, radius: int = 31, radius64: int = 4, feed: str = "csam") -> HashList:
    """A list of a random entry of every algorithm, and its canaries."""
    random = np.random.default_rng(9)
    entries = [(algorithm, random.bytes(WIDTHS[algorithm])) for algorithm in MATCHED]
    return made_list(entries, list_id=name, radius=radius, radius64=radius64, feed=feed, canaries=True)


LISTS = (whole("first"), whole("second", feed="other"))


def without(item: HashList, algorithm: str, entry: bytes) -> HashList:
    """The same list, but its memory lacks an entry."""
    column = item.columns[algorithm]
    stays = np.array([row.tobytes() != entry for row in column.rows])
    assert stays.sum() == len(stays) - 1
    rows = np.ascontiguousarray(column.rows[stays])
    starts = bucket_starts(rows) if algorithm in DIGEST_WIDTHS else column.starts
    changed = replace(column, rows=rows, numbers=column.numbers[stays], masks=column.masks[stays], starts=starts)
    return replace(item, columns={**item.columns, algorithm: changed})


def decider(lists: tuple[HashList, ...], search: CodeSearch = search_column) -> Decider:
    policy = load_policy(POLICY, source="here", known=list_signal_specs(lists))
    return Decider(lists, policy, (), 1000, NO_OVERRIDES, search)


def models(*kinds: str) -> Models:
    return Models(PictureHashes(tuple(find_kind(name) for name in kinds), VIEWS), None, (), (), None, 8)


ALL_KINDS = models("pdq:fullres", "pdq:turned", "phash", "dhash", "whash", "ahash")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(DecodeLimits()) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def shard() -> Iterator[CanaryShard]:
    shard = CanaryShard(LISTS)
    yield shard
    shard.close()


def test_the_path_of_a_worker_finds_the_canaries_of_all_lists_again_and_again(shard, decoder):
    for _ in range(2):
        shard.check(ALL_KINDS, decoder, decider(LISTS))


def refused(lists: tuple[HashList, ...], check, algorithm: str, name: str) -> str:
    """Expect a CanaryError that names the list and the algorithm, and no entry; return it."""
    with pytest.raises(CanaryError) as caught:
        check(lists)
    message = str(caught.value)
    assert message.startswith(f"list {name!r}: its {algorithm} canary at a distance of ")
    assert not HEX.search(message)
    assert caught.value.exit_code is ExitCode.FAILED
    return message


def lacking(place: int, algorithm: str, which: int) -> tuple[HashList, ...]:
    canary = [one for one in LISTS[place].canaries if one.algorithm == algorithm][which]
    return tuple(without(item, algorithm, canary.entry) if n == place else item for n, item in enumerate(LISTS))


@pytest.mark.parametrize(("place", "algorithm"), [(0, "md5"), (1, "sha256"), (0, "pdq"), (1, "phash")])
def test_a_list_that_lacks_its_canary_stops_the_worker(shard, decoder, place, algorithm):
    refused(
        lacking(place, algorithm, -1),
        lambda lists: shard.check(ALL_KINDS, decoder, decider(lists)),
        algorithm,
        LISTS[place].list_id,
    )


@pytest.mark.parametrize("recipe", ["pdq:fullres", "pdq:turned", "pdq:c512"])
def test_any_recipe_of_pdq_finds_the_canaries_of_pdq(decoder, recipe):
    lists = (made_list([("pdq", bytes(range(32)))], canaries=True),)
    shard = CanaryShard(lists)
    shard.check(models(recipe), decoder, decider(lists))
    shard.close()


@pytest.mark.parametrize(
    "kinds", [["pdq:fullres"], ["phash", "dhash", "whash", "ahash"]], ids=["pdq", "the others"]
)
def test_a_worker_that_hashes_less_than_the_lists_hold_is_stopped(shard, decoder, kinds):
    with pytest.raises(CanaryError, match=r"its (phash|pdq) canary"):
        shard.check(models(*kinds), decoder, decider(LISTS))


def test_a_decoder_that_gives_no_pictures_stops_the_worker(shard):
    with Decoder(DecodeLimits(max_bytes=100)) as strict, pytest.raises(CanaryError, match="its pdq canary"):
        shard.check(ALL_KINDS, strict, decider(LISTS))


def check_settle(lists: tuple[HashList, ...], search: CodeSearch = search_column) -> None:
    """What a settle asks, whose lists were whole when its canaries were drawn."""
    queries = combine_queries(list(canary_queries(LISTS, 0, ("pdq:fullres.oriented",))))
    check_found(list(expected_hits(LISTS)), find_hits(queries, lists, search).canaries, LISTS)


@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("algorithm", MATCHED)
def test_a_list_that_lacks_its_canary_stops_the_settle(algorithm, place):
    for which in range(1 if algorithm in DIGEST_WIDTHS else 2):
        refused(lacking(place, algorithm, which), check_settle, algorithm, LISTS[place].list_id)


def test_a_canary_counts_in_its_own_list_alone():
    check_settle(LISTS)
    refused((LISTS[0], replace(LISTS[1], columns={})), check_settle, "md5", "second")


def near_only(column, queries, radius):
    return search_column(column, queries, min(radius, 15))


def off_by_one(column, queries, radius):
    hits = search_column(column, queries, radius)
    return replace(hits, distance=hits.distance + np.int16(1))


@pytest.mark.parametrize("search", [near_only, off_by_one])
def test_a_search_that_errs_is_found_out(search):
    message = refused(LISTS, lambda lists: check_settle(lists, search), "pdq", "first")
    assert f"a distance of {31 if search is near_only else 0} was missed" in message
    check_settle(LISTS, lambda column, queries, radius: join_column(column, queries, radius, threads=2))


@pytest.mark.parametrize(
    ("radius", "radius64", "far"),
    [(31, 4, [*CODE_WIDTHS]), (127, 31, [*CODE_WIDTHS]), (30, 4, [*CODE_WIDTHS][1:]), (0, 3, [])],
)
def test_a_canary_beyond_the_radius_of_its_list_is_not_expected(radius, radius64, far):
    item = whole("narrow", radius=radius, radius64=radius64)
    expected = list(expected_hits([item]))
    assert [canary.algorithm for _, _, canary in expected if canary.distance] == far
    assert {canary.algorithm for _, _, canary in expected if not canary.distance} == set(MATCHED)
    queries = combine_queries(list(canary_queries([item], 0, ("pdq:fullres.oriented",))))
    check_found(expected, find_hits(queries, [item], search_column).canaries, [item])


def test_lists_without_canaries_expect_none(decoder):
    bare = (made_list([("md5", bytes(range(16)))]),)
    assert list(expected_hits(bare)) == []
    shard = CanaryShard(bare)
    shard.check(ALL_KINDS, decoder, decider(bare))
    shard.close()
