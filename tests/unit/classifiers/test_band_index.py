"""The two fast searches for codes against the plain one and faiss, on codes that were made to slip through."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from classifiers.blocklists import band_index
from classifiers.blocklists.band_index import band_masks, build_index, index_shapes, join_codes, search_index
from classifiers.blocklists.code_scan import scan_codes

FIELDS = ("query", "entry", "distance")
PACKAGE = Path(band_index.__file__).parents[1]


@pytest.fixture(autouse=True)
def sorting_is_free(monkeypatch):
    """So that a join for few queries sorts bands too."""
    monkeypatch.setattr(band_index, "_SORT_COST", 0)


def random_codes(random, count, width=32):
    return random.integers(0, 256, (count, width), dtype=np.uint8)


def skewed_codes(random, count):
    """Bits that agree with their neighbours and are mostly zero, so that many codes share a band."""
    small = random.random((count, 8, 8)) < 0.1
    bits = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    return np.packbits((bits ^ (random.random(bits.shape) < 0.01)).reshape(count, 256), axis=1)


def built(codes, threads=2):
    """Return an index in shared memory, as worker processes map it."""
    offsets_shape, records_shape = index_shapes(*codes.shape)
    records_size = int(np.prod(records_shape))
    memory = mmap.mmap(-1, records_size * 8 + int(np.prod(offsets_shape)) * 4)
    records = np.frombuffer(memory, np.uint64, records_size).reshape(records_shape)
    offsets = np.frombuffer(memory, np.uint32, offset=records_size * 8).reshape(offsets_shape)
    return build_index(codes, offsets, records, threads=threads)


def by_faiss(codes, queries, radius):
    index = faiss.IndexBinaryFlat(codes.shape[1] * 8)
    index.add(codes)
    limits, distance, entry = index.range_search(queries, radius + 1)  # faiss searches strictly below
    query = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
    order = np.lexsort((entry, query))
    return query[order], entry[order], distance[order].astype(int)


def assert_same(hits, expected):
    for name, column in zip(FIELDS, expected, strict=True):
        np.testing.assert_array_equal(getattr(hits, name), column)


def assert_all_agree(codes, queries, radii, index=None):
    index = index or built(codes)
    for radius in radii:
        plain = scan_codes(codes, queries, radius)
        columns = [getattr(plain, name) for name in FIELDS]
        assert_same(plain, by_faiss(codes, queries, radius))
        assert_same(search_index(index, codes, queries, radius), columns)
        assert_same(join_codes(codes, queries, radius, threads=2), columns)


def bit_groups(width):
    """Rows of 16 bits and the bands as they are: two ways of cutting a code, as lists of the bits of each part."""
    rows = np.arange(width * 8).reshape(-1, 16)
    masks = np.unpackbits(band_masks(width).view(np.uint8), axis=1)
    return rows, np.array([np.flatnonzero(mask) for mask in masks])


def differing_bits(random, width, distance):
    """Yield choices of so many bits: over all parts in turn, crowded into few, and at random."""
    for parts in bit_groups(width):
        shuffled = random.permuted(random.permutation(parts), axis=1)
        yield shuffled.T.ravel()[:distance]
        yield shuffled.ravel()[:distance]
    yield random.choice(width * 8, distance, replace=False)


def near(random, code, distances):
    """Return a code at each distance for each way of choosing the bits."""
    found = []
    for distance in distances:
        for bits in differing_bits(random, len(code), distance):
            flipped = np.unpackbits(code)
            flipped[bits] ^= 1
            found.append(np.packbits(flipped))
    return np.array(found)


@pytest.fixture(scope="module")
def planted():
    random = np.random.default_rng(0)
    codes = random_codes(random, 100_000)
    codes = codes[np.lexsort(codes.T[::-1])]
    queries = np.concatenate([near(random, codes[row], range(41)) for row in (0, 50_000, 99_999)])
    return codes, np.concatenate([queries, random_codes(random, 50)])


def test_neighbours_at_every_distance_are_found_just_within_the_radius(planted):
    codes, queries = planted
    assert_all_agree(codes, queries, (0, 15, 16, 31, 47))
    hits = join_codes(codes, queries, 31)
    assert sorted(set(hits.distance.tolist())) == list(range(32))
    assert len(hits) == 3 * 5 * 32  # three codes, five ways, 0 to 31 and not 32


def test_codes_of_64_bits_are_found_at_every_distance():
    random = np.random.default_rng(1)
    codes = random_codes(random, 100_000, 8)
    queries = np.concatenate([near(random, codes[row], range(12)) for row in (0, 7, 99_999)])
    assert_all_agree(codes, queries, (0, 3, 4, 8))


def test_every_band_takes_other_bits_and_one_of_each_column():
    for width in (32, 8):
        masks = band_masks(width)
        assert np.bitwise_count(masks).sum(axis=1).tolist() == [16] * (width // 2)
        assert (np.bitwise_or.reduce(masks, axis=0) == np.uint64(2**64 - 1)).all()


@pytest.mark.parametrize("count", [1, 2, 4, 16, 65_536])
def test_a_flood_of_near_duplicates_is_reported_whole(count):
    random = np.random.default_rng(count)
    centre = random_codes(random, 1)
    flips = np.zeros((count, 256), np.uint8)
    for row in range(count):
        flips[row, random.integers(0, 256, row % 32)] = 1
    codes = np.concatenate([random_codes(random, 40_000), centre ^ np.packbits(flips, axis=1)])
    hits = search_index(built(codes), codes, np.concatenate([centre, centre]), 31)
    assert np.array_equal(hits.entry, np.tile(np.arange(40_000, len(codes)), 2))
    assert_same(join_codes(codes, np.concatenate([centre, centre]), 31), [getattr(hits, name) for name in FIELDS])
    assert_same(hits, by_faiss(codes, np.concatenate([centre, centre]), 31))


def test_codes_that_share_many_bands_are_found_once_each():
    random = np.random.default_rng(2)
    codes = skewed_codes(random, 30_000)
    queries = np.concatenate([codes[:20], near(random, codes[77], range(0, 41, 4)), skewed_codes(random, 20)])
    assert_all_agree(codes, queries, (0, 15, 31))


def test_where_looking_up_costs_more_than_comparing_all_codes_the_answer_is_the_same(monkeypatch):
    random = np.random.default_rng(3)
    codes = random_codes(random, 3_000)
    queries = np.concatenate([near(random, codes[5], range(0, 130, 3)), codes[:3]])
    index = built(codes)
    assert_all_agree(codes, queries, (31, 63, 127, 256), index)
    monkeypatch.setattr(band_index, "_is_scan_cheaper", lambda *_: False)
    assert_all_agree(codes, queries, (31, 63), index)
    monkeypatch.setattr(band_index, "_is_scan_cheaper", lambda *_: True)
    assert_all_agree(codes, queries, (0, 31), index)


def test_many_threads_and_parts_give_what_one_does(planted, monkeypatch):
    codes, queries = planted
    expected = scan_codes(codes, queries, 31)
    monkeypatch.setattr(band_index, "_QUERIES_AT_ONCE", 37)
    for threads in (1, 3):
        found = join_codes(codes, queries, 31, threads=threads)
        assert_same(found, [getattr(expected, name) for name in FIELDS])


def test_more_queries_than_codes_give_the_same_hits_in_the_same_order(planted):
    codes, queries = planted
    many = np.concatenate([codes[:20_000], np.repeat(queries, 2, axis=0)])
    few = np.concatenate([codes[::50], codes[-1:]])
    expected = scan_codes(few, many, 31)
    assert len(expected) > 1000
    assert_same(join_codes(few, many, 31, threads=2), [getattr(expected, name) for name in FIELDS])


def test_an_index_is_the_same_for_any_number_of_threads(planted):
    codes, _ = planted
    one, three = built(codes, threads=1), built(codes, threads=3)
    np.testing.assert_array_equal(one.offsets, three.offsets)
    np.testing.assert_array_equal(one.records, three.records)


@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize(("count", "asked"), [(0, 0), (0, 3), (1, 0), (1, 3), (50_000, 0)])
def test_nothing_to_search_or_to_ask_is_no_trouble(count, asked, width):
    random = np.random.default_rng(4)
    codes = random_codes(random, count, width)
    queries = np.concatenate([codes[:1], random_codes(random, asked, width)])[:asked]
    assert_all_agree(codes, np.repeat(queries, 2, axis=0), (0, 4))


def test_arrays_that_do_not_fit_are_refused():
    codes = np.zeros((3, 32), np.uint8)
    index = built(codes)
    with pytest.raises(ValueError, match="one width"):
        scan_codes(codes, codes[:, :8], 31)
    with pytest.raises(ValueError, match="radius"):
        join_codes(codes, codes, -1)
    with pytest.raises(ValueError, match="index of codes"):
        search_index(index, codes[:2], codes, 31)
    with pytest.raises(ValueError, match="bytes"):
        index_shapes(3, 16)


def test_without_a_folder_to_keep_compiled_code_in_the_search_still_runs(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "classifiers", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "classifiers" / "blocklists" / "__pycache__").touch()  # a file where the folder would be
    program = (
        "import numpy as np\n"
        "from classifiers.blocklists import band_kernels\n"
        "from classifiers.blocklists.band_index import join_codes\n"
        "codes = np.zeros((2, 8), np.uint8)\n"
        "print(band_kernels.__file__, band_kernels.probe.stats.cache_path, len(join_codes(codes, codes, 0)))"
    )
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), "/dev/null/nowhere")
    ran = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env=os.environ | nowhere | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "classifiers/blocklists/band_kernels.py"), "None", "4"]
