from __future__ import annotations

import numpy as np
import pytest
import torch

from classifiers.blocklists import torch_search
from classifiers.blocklists.torch_search import Tile, TorchCodes

WIDTHS = [32, 8]
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_CUDA)])
def device(request):
    return request.param


@pytest.fixture(params=["highest", "medium"])
def precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def random_codes(count, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


def flipped(code, distance, random):
    bits = np.unpackbits(code)
    bits[random.choice(len(bits), distance, replace=False)] ^= 1
    return np.packbits(bits)


def by_counting(codes, queries, radius):
    distances = np.bitwise_count(queries[:, None] ^ codes[None]).sum(axis=2, dtype=np.int16)
    query, entry = np.nonzero(distances <= radius)
    return query, entry, distances[query, entry]


def assert_as_counted(codes, queries, radius, device, tile=None):
    hits = TorchCodes(codes, device, tile=tile).search(queries, radius)
    query, entry, distance = by_counting(codes, queries, radius)
    assert (hits.query.dtype, hits.entry.dtype, hits.distance.dtype) == (np.int64, np.int64, np.int16)
    np.testing.assert_array_equal(hits.query, query)
    np.testing.assert_array_equal(hits.entry, entry)
    np.testing.assert_array_equal(hits.distance, distance)
    return hits


def planted(width, count=2500, centres=3):
    """Listed codes and queries, so that every distance from 0 to all bits is there for every query."""
    random = np.random.default_rng(width)
    codes, queries = random_codes(count, width), random_codes(centres, width, seed=1)
    near = [flipped(query, distance, random) for query in queries for distance in range(width * 8 + 1)]
    places = random.choice(np.arange(1, count - 1), len(near), replace=False)
    codes[places] = near
    codes[[0, -1]] = queries[0]
    return codes, queries


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tile", [None, Tile(2, 1), Tile(100, 2)])
@pytest.mark.parametrize("radius", [0, 1, 15, 16, 31, 32, 47])
def test_every_pair_within_the_radius_is_found_and_no_other(device, width, tile, radius):
    codes, queries = planted(width)
    hits = assert_as_counted(codes, queries, radius, device, tile)
    assert set(hits.distance.tolist()) == set(range(radius + 1))


@pytest.mark.parametrize("width", WIDTHS)
def test_distances_are_exact_to_the_last_bit_that_two_codes_have(device, precision, width):
    codes, queries = planted(width, count=1500)
    hits = assert_as_counted(codes, queries, width * 8, device)
    assert len(hits) == len(codes) * len(queries)
    assert hits.distance.max() == width * 8


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 2048])
@pytest.mark.parametrize("asked", [1, 7, 8, 9])
def test_neither_codes_nor_queries_need_to_fill_a_tile(device, count, asked):
    codes = random_codes(count, 32)
    queries = random_codes(asked, 32, seed=1)
    queries[-1] = codes[-1]
    assert_as_counted(codes, queries, 100, device, Tile(8, 1))


@pytest.mark.parametrize("width", WIDTHS)
def test_what_fills_the_last_tile_is_never_a_hit(device, width):
    codes, zeros = random_codes(5, width), np.zeros((2, width), np.uint8)
    assert len(TorchCodes(codes, device).search(zeros, 0)) == 0
    assert len(TorchCodes(codes, device).search(zeros, width * 8)) == 10


@pytest.mark.parametrize("width", WIDTHS)
def test_without_codes_or_queries_there_are_no_hits(device, width):
    some, none = random_codes(3, width), random_codes(0, width)
    for codes, queries in ((some, none), (none, some), (none, none)):
        assert_as_counted(codes, queries, width * 8, device)


def test_a_flood_of_hits_is_reported_in_full(device, monkeypatch):
    monkeypatch.setattr(torch_search, "_GROUPS_AT_ONCE", 3)
    codes = np.repeat(random_codes(1, 32), 5000, axis=0)
    hits = assert_as_counted(codes, codes[:20], 0, device, Tile(8, 2))
    assert len(hits) == 100_000


def test_codes_are_taken_from_memory_that_cannot_be_written_to_and_from_any_order(device):
    codes, queries = planted(32, count=1000)
    codes.flags.writeable = queries.flags.writeable = False
    assert_as_counted(codes, queries, 31, device)
    assert_as_counted(codes[::-2], queries[::-1], 31, device)


def test_a_search_can_be_repeated(device):
    codes, queries = planted(32)
    listed = TorchCodes(codes, device)
    first, second = listed.search(queries, 47), listed.search(queries, 47)
    for name in ("query", "entry", "distance"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("codes", [random_codes(4, 16), random_codes(4, 32)[0], np.zeros((4, 32), np.int8)])
def test_anything_but_rows_of_32_or_8_bytes_is_refused(codes):
    with pytest.raises(ValueError, match="codes: expected uint8 N x 8 or 32"):
        TorchCodes(codes, "cpu")


@pytest.mark.parametrize("radius", [-1, 257])
def test_a_radius_that_no_two_codes_can_have_is_refused(radius):
    with pytest.raises(ValueError, match="radius: expected 0 to 256 bits"):
        TorchCodes(random_codes(4, 32), "cpu").search(random_codes(1, 32), radius)


def test_queries_of_another_width_than_the_codes_are_refused():
    with pytest.raises(ValueError, match="queries: expected uint8 N x 32"):
        TorchCodes(random_codes(4, 32), "cpu").search(random_codes(4, 8), 1)
