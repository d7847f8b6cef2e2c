"""The list of Tech Against Terrorism; and which version of a record stands, by the obvious rule."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_fixtures import tat_record

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.tat import TatImporter

MD5 = "5f2c9d0a7b1e4836a5d4c3b2917f6e08"
OTHER = "c81e728d9d4c2f636f067f89cc14862c"


def md5(number=1, value=MD5, time_s=100.5, **fields):
    return tat_record(number, "MD5", value, time_s, **fields)


def read(folder, *files):
    paths = []
    for number, content in enumerate(files):
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(content if isinstance(content, str) else json.dumps(content))
    return collect(TatImporter().read(paths, ReadOptions()))


def values(collected):
    return {row.tobytes().hex() for rows in collected.rows.values() for row in rows}


def test_a_list_a_page_a_list_of_pages_and_lines_are_the_same_list(tmp_path):
    records = [md5(), md5(2, OTHER)]
    lines = "\n".join(map(json.dumps, records)) + "\n"
    page = {"count": 9, "next": None, "results": records}
    for content in (records, page, [page], lines, json.dumps(page) + "\n"):
        collected = read(tmp_path, content)
        assert (values(collected), collected.records) == ({MD5, OTHER}, 2)


def test_the_category_is_the_ideology(tmp_path):
    records = [md5(), md5(2, OTHER, ideology="far-right"), md5(3, OTHER, ideology=None)]
    assert read(tmp_path, records).categories == ("(none)", "far-right", "islamist")


def test_each_algorithm_is_taken_or_skipped(tmp_path):
    digits = MD5 * 4
    widths = {"MD5": 32, "SHA256": 64, "PDQ": 64, "SHA512": 128}
    records = [tat_record(n, name, digits[:width], 1) for n, (name, width) in enumerate(widths.items())]
    collected = read(tmp_path, records)
    assert {name: len(rows) for name, rows in collected.rows.items()} == {"md5": 1, "pdq": 1, "sha256": 1}
    assert collected.reasons == {"skipped: a kind of hash that is not matched": 1}


@pytest.mark.parametrize("medium", ["mp4", ".MOV", "webm", "video", "video/mp4"])
def test_videos_are_skipped(tmp_path, medium):
    collected = read(tmp_path, [md5(file_type=medium)])
    assert collected.reasons == {"skipped: not an image": 1}


@pytest.mark.parametrize("medium", ["jpg", "gif", "pdf", None, 3, ""])
def test_what_is_not_surely_a_video_is_taken(tmp_path, medium):
    assert read(tmp_path, [md5(file_type=medium)]).taken == 1


@pytest.mark.parametrize(
    "record",
    [
        7,
        [],
        {},
        md5(value=None),
        md5(value=MD5[1:]),
        md5(value=MD5[1:] + "z"),
        md5(number=None),
        md5(number=True),
        md5(time_s="soon"),
        md5(time_s=1e300),
        md5(deleted="false"),
        md5(deleted=None),
        md5(ideology=3),
        md5(ideology="x" * 65),
        md5(ideology="two\nlines"),
        md5() | {"algorithm": "MD6"},
        md5() | {"algorithm": None},
        md5() | {"algorithm": ["MD5"]},
    ],
)
def test_a_malformed_record_is_rejected(tmp_path, record):
    collected = read(tmp_path, [record, md5(2, OTHER)])
    assert (values(collected), collected.fates) == ({OTHER}, {"rejected": 1})


def test_a_record_without_a_mark_of_deletion_stands(tmp_path):
    record = md5()
    del record["deleted"]
    assert read(tmp_path, [record]).taken == 1


@pytest.mark.parametrize("content", ["", "[]", " \n", '{"results": []}{', '[{"id": 1]'])
def test_no_records_and_damaged_json_are_refused(tmp_path, content):
    with pytest.raises(ListError, match=r"^0\.json: "):
        read(tmp_path, content)


VERSIONS = st.tuples(st.integers(1, 4), st.integers(0, 3), st.booleans(), st.booleans())


@given(st.lists(st.lists(VERSIONS, max_size=8), min_size=1, max_size=3))
def test_which_version_stands_is_the_obvious_rule(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("versions")
    records, ranks = [], []
    for file, versions in enumerate(files):
        for position, (key, time_s, deleted, readable) in enumerate(versions):
            value = f"{len(ranks) + 1:032x}"
            records.append(md5(key if readable else None, value, time_s, deleted=deleted))
            ranks.append((key, (time_s, deleted, file, position), value, readable))
    last = {key: max(rank for k, rank, _, ok in ranks if ok and k == key) for key, _, _, ok in ranks if ok}
    fates, stands = Counter(), set()
    for key, rank, value, readable in ranks:
        if not readable:
            fates["rejected"] += 1
        elif rank == last[key] and not rank[1]:
            stands.add(value)
        else:
            fates["withdrawn" if rank == last[key] or (last[key][1] and not rank[1]) else "superseded"] += 1
    ends = [sum(map(len, files[: number + 1])) for number in range(len(files))]
    pages = [{"results": records[end - len(file) : end]} for end, file in zip(ends, files, strict=True)]
    collected = read(folder, *pages)
    assert values(collected) == stands
    assert +Counter(collected.fates) == fates
    assert collected.records == len(ranks)
