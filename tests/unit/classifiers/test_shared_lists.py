"""Lists in anonymous memory: what is attached is what was shared, nobody can write to it, and it has no name."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_lists import made_feeds, made_list, stored_list

from classifiers.blocklists.algorithms import WIDTHS
from classifiers.blocklists.code_scan import scan_codes
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import INDEX_FROM_CODES, join_column, search_column
from classifiers.blocklists.shared import attach_lists, read_about, share_indexes, share_lists

ARRAYS = ("rows", "numbers", "masks", "starts")
RANDOM = np.random.default_rng(5)
ROOT = Path(__file__).resolve().parents[3]


def codes(algorithm: str, count: int) -> list[tuple[str, bytes]]:
    return [(algorithm, RANDOM.bytes(WIDTHS[algorithm])) for _ in range(count)]


def near(rows: np.ndarray, distances) -> np.ndarray:
    """A code at each distance from rows of a list, one after the other."""
    queries = []
    for number, distance in enumerate(distances):
        bits = np.unpackbits(rows[number * 37 % len(rows)])
        bits[RANDOM.choice(len(bits), distance, replace=False)] ^= 1
        queries.append(np.packbits(bits))
    return np.array(queries)


@pytest.fixture(scope="module")
def lists() -> tuple[HashList, ...]:
    """Both feeds of one list with categories and canaries, a long one, and one just too short for an index."""
    effects = {f"c{number}": ("case", "remove")[number % 2] for number in range(20)}
    entries = [(*one, f"c{n % 20}") for name in ("md5", "sha256", "pdq") for n, one in enumerate(codes(name, 60))]
    both = made_feeds(
        stored_list(entries, effects, canaries=True), list_id="both", source="a hotline", radius=20, radius64=3
    )
    long = made_list([*codes("pdq", INDEX_FROM_CODES), *codes("phash", INDEX_FROM_CODES)], list_id="long")
    short = made_list(codes("pdq", INDEX_FROM_CODES - 1), list_id="short", feed="other")
    return (*both, long, short)


@pytest.fixture(scope="module")
def memory(lists):
    fds = share_lists(lists, {"plans": [1, "two"]}), share_indexes(lists, threads=2)
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture(scope="module")
def attached(memory) -> tuple[HashList, ...]:
    return attach_lists(*memory)


def test_what_is_attached_is_what_was_shared_in_every_field_and_array(lists, memory, attached):
    plain = [field.name for field in dataclasses.fields(HashList) if field.name != "columns"]
    for found in (attach_lists(memory[0]), attached):
        assert len(found) == len(lists) == 4
        for item, one in zip(lists, found, strict=True):
            assert [getattr(one, name) for name in plain] == [getattr(item, name) for name in plain]
            assert list(one.columns) == list(item.columns)
            for name, column in item.columns.items():
                assert one.columns[name].stored == column.stored
                for part in ARRAYS:
                    before, after = getattr(column, part), getattr(one.columns[name], part)
                    assert (after.dtype, after.shape) == (before.dtype, before.shape)
                    np.testing.assert_array_equal(after, before)
            assert repr(one) == repr(item)
    assert attached[0].canaries
    assert read_about(memory[0]) == {"plans": [1, "two"]}


def test_no_lists_can_be_shared_too():
    fd = share_lists([], "nothing")
    assert attach_lists(fd) == ()
    assert read_about(fd) == "nothing"
    os.close(fd)


def test_every_attached_array_refuses_writing(attached):
    arrays = [getattr(column, part) for item in attached for column in item.columns.values() for part in ARRAYS]
    indexes = [column.index for item in attached for column in item.columns.values() if column.index is not None]
    arrays += [array for index in indexes for array in (index.offsets, index.records)]
    assert len(indexes) == 2
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


@pytest.mark.parametrize("which", [0, 1], ids=["lists", "indexes"])
def test_sealed_memory_cannot_be_written_mapped_for_writing_or_resized(memory, which):
    fd = memory[which]
    before = os.pread(fd, 4096, 0)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"\xff" * 64, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, os.fstat(fd).st_size + 4096)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(again, b"\xff", 0)
    finally:
        os.close(again)
    assert os.pread(fd, 4096, 0) == before


def test_the_memory_has_no_name_and_ends_with_the_last_who_holds_it():
    before = set(os.listdir("/dev/shm"))
    fd = share_lists([made_list(codes("md5", 3))], None)
    assert os.readlink(f"/proc/self/fd/{fd}") == "/memfd:lists (deleted)"
    assert os.fstat(fd).st_nlink == 0
    assert not os.get_inheritable(fd)  # only who is handed it has it
    assert set(os.listdir("/dev/shm")) - before == set()
    (item,) = attach_lists(fd)
    os.close(fd)
    assert len(item.columns["md5"].rows) == 3


def test_another_process_that_is_handed_the_memory_finds_the_same_lists(memory, attached):
    program = (
        "import sys; from classifiers.blocklists.shared import attach_lists; from classifiers.blocklists.match "
        "import search_column; found = attach_lists(*map(int, sys.argv[1:])); column = found[2].columns['pdq']; "
        "print(repr(found), len(search_column(column, column.rows[:50], 31)), column.index is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, memory)],
        pass_fds=memory, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == f"{attached!r} 50 True\n"


def test_columns_that_are_long_enough_have_an_index_and_search_alike(lists, attached):
    indexed = {
        (item.list_id, name): column.index is not None
        for item in attached
        for name, column in item.columns.items()
        if name not in ("md5", "sha256")
    }
    assert [key for key, has_one in indexed.items() if has_one] == [("long", "pdq"), ("long", "phash")]
    for item, one in zip(lists, attached, strict=True):
        for name in item.columns.keys() - {"md5", "sha256"}:
            column, radius = item.columns[name], item.radius_of(name)
            distances = [*range(radius + 3)] * (2 if name == "pdq" else 20)
            queries = np.concatenate([near(column.rows, distances), column.rows[-2:]])
            expected = scan_codes(column.rows, queries, radius)
            assert set(range(radius + 1)) <= set(expected.distance.tolist())
            found = [search_column(where.columns[name], queries, radius) for where in (item, one)]
            found += [join_column(one.columns[name], queries, radius, threads=threads) for threads in (1, 2)]
            for hits in found:
                for part in ("query", "entry", "distance"):
                    np.testing.assert_array_equal(getattr(hits, part), getattr(expected, part))


def test_without_a_long_list_there_is_no_memory_for_indexes(lists):
    assert share_indexes(lists[:2] + lists[3:], threads=1) is None
    assert share_indexes([], threads=1) is None
