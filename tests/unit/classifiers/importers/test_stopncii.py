"""Saved answers of StopNCII.org: pages, states and versions."""

from __future__ import annotations

import json

import pytest
from list_fixtures import stopncii_page, stopncii_record

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.stopncii import StopNciiImporter

PDQ = "2afc4a5c09628a7961c14d436493bba66b89b831453baa1d556ba385554daa82"
OTHER = "79e07de27d7295339435d63cd31cf35a7bfa29eb2885008500a588a5ea3ae75a"
MD5 = "5f2c9d0a7b1e4836a5d4c3b2917f6e08"


def pdq(value=PDQ, status="Active", time_s=100):
    return stopncii_record("ImagePDQ", value, status, time_s)


def read(folder, *files):
    paths = []
    for number, content in enumerate(files):
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(content if isinstance(content, str) else json.dumps(content))
    return collect(StopNciiImporter().read(paths, ReadOptions()))


def values(collected):
    return {row.tobytes().hex() for rows in collected.rows.values() for row in rows}


def test_a_page_a_list_of_pages_and_pages_in_a_row_are_the_same_list(tmp_path):
    pages = [stopncii_page([pdq()]), stopncii_page([pdq(OTHER)]), stopncii_page([])]
    together = "\n".join(map(json.dumps, pages))
    for files in (pages, [pages], [together]):
        collected = read(tmp_path, *files)
        assert values(collected) == {PDQ, OTHER}
        assert (collected.records, collected.categories) == (2, ("(none)",))


@pytest.mark.parametrize(("status", "counts"), [("Active", 1), ("Received", 1), ("Withdrawn", 0), ("Deleted", 0)])
def test_a_hash_counts_from_the_moment_it_is_handed_in_until_it_is_taken_back(tmp_path, status, counts):
    collected = read(tmp_path, stopncii_page([pdq(status=status)]))
    assert collected.taken == counts
    assert collected.fates.get("withdrawn", 0) == 1 - counts


@pytest.mark.parametrize("swap", [False, True])
def test_the_newest_state_of_a_hash_counts_in_either_order_and_any_case_of_digits(tmp_path, swap):
    old, new = pdq(time_s=100), pdq(PDQ.upper(), "Withdrawn", time_s=100.5)
    pages = [stopncii_page([old]), stopncii_page([new])]
    collected = read(tmp_path, *(reversed(pages) if swap else pages))
    assert (values(collected), collected.fates) == (set(), {"withdrawn": 2})
    old, new = pdq(status="Withdrawn", time_s=100), pdq(time_s=101)
    pages = [stopncii_page([old]), stopncii_page([new])]
    collected = read(tmp_path, *(reversed(pages) if swap else pages))
    assert (values(collected), collected.fates) == ({PDQ}, {"superseded": 1})


def test_md5_of_images_is_taken_and_other_kinds_are_skipped(tmp_path):
    kinds = ["VideoMD5", "VideoTMK", "Text", "URL", "Unknown", "ImageNew"]
    records = [stopncii_record("ImageMD5", MD5, "Active", 1)]
    records += [stopncii_record(kind, MD5, "Active", 1) for kind in kinds]
    collected = read(tmp_path, stopncii_page(records))
    assert (values(collected), collected.fates) == ({MD5}, {"skipped": len(kinds)})


@pytest.mark.parametrize(
    "record",
    [
        "text",
        {},
        pdq(PDQ[1:]),
        pdq(PDQ[1:] + "x"),
        pdq(PDQ[1:] + "x", "Withdrawn"),
        pdq(17),
        pdq(None),
        pdq(status="Unknown"),
        pdq(status=["Active"]),
        pdq(time_s="later"),
        pdq(time_s=None),
        pdq(time_s=True),
        pdq() | {"signalType": {}},
        pdq("00" * 32),
    ],
)
def test_a_malformed_record_is_rejected(tmp_path, record):
    collected = read(tmp_path, stopncii_page([record, pdq(OTHER)]))
    assert (values(collected), collected.fates) == ({OTHER}, {"rejected": 1})


@pytest.mark.parametrize("content", ["", "[]", "7", "{}", '{"hashRecords": {}}', '[{"hashRecords": []}, 3]'])
def test_what_is_no_page_is_refused(tmp_path, content):
    with pytest.raises(ListError, match=r"^0\.json: "):
        read(tmp_path, content)


def test_a_page_that_does_not_hold_its_count_is_refused(tmp_path):
    with pytest.raises(ListError, match=r"^0\.json: page 2: holds 1 records, not as many as it says"):
        read(tmp_path, [stopncii_page([]), stopncii_page([pdq()]) | {"count": 2}])


def test_pages_that_all_say_that_more_follow_are_refused(tmp_path):
    page = stopncii_page([pdq()]) | {"hasMoreRecords": True}
    assert values(read(tmp_path, page, stopncii_page([]))) == {PDQ}
    with pytest.raises(ListError, match="get the last page too"):
        read(tmp_path, page)


def test_a_file_that_is_nested_deeper_than_any_list_is_refused(tmp_path):
    with pytest.raises(ListError, match="nested deeper"):
        read(tmp_path, '{"hashRecords": ' + "[" * 200_000)
