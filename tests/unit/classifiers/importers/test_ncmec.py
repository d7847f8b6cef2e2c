"""Saved answers of NCMEC: versions, deletions, completeness, and what XML must not do."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
from list_fixtures import NCMEC_NAMESPACE, ncmec_page, ncmec_record

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.ncmec import NcmecImporter
from classifiers.blocklists.importers.protocol import ReadOptions

FIRST, SECOND = "5f2c9d0a7b1e4836a5d4c3b2917f6e08", "c81e728d9d4c2f636f067f89cc14862c"
NOON = "2021-06-01T12:00:00Z"


def image(value=FIRST, time=NOON, number=1, **fields):
    return ncmec_record("image", number, time, [("md5", value)], **fields)


def deletion(time=NOON, number=1):
    return ncmec_record("deletedImage", number, time)


def read(folder, *pages):
    paths = []
    for number, page in enumerate(pages):
        paths.append(folder / f"{number}.xml")
        paths[-1].write_bytes(page if isinstance(page, bytes) else page.encode())
    return collect(NcmecImporter().read(paths, ReadOptions()))


def values(collected):
    return {row.tobytes().hex() for rows in collected.rows.values() for row in rows}


@pytest.mark.parametrize(
    ("time", "stands"),
    [
        ("2021-06-01T11:59:59Z", True),
        (NOON, False),
        ("2021-06-01T12:00:00.001Z", False),
        ("2021-06-01T13:30:00+02:00", True),
        ("2021-06-01T11:30:00-01:00", False),
        ("2021-06-01T12:30:00+01:00", True),
        ("2021-06-01T12:00:00", False),
    ],
)
def test_a_deletion_counts_if_it_is_not_older_in_utc_whatever_the_order_of_files(tmp_path, time, stands):
    for pages in permutations([ncmec_page([image()]), ncmec_page([deletion(time)])]):
        collected = read(tmp_path, *pages)
        assert values(collected) == ({FIRST} if stands else set())
        assert collected.fates == ({"superseded": 1} if stands else {"withdrawn": 2})


def test_the_newest_of_several_versions_stands(tmp_path):
    versions = [image(FIRST, "2021-01-01T00:00:00Z"), deletion("2021-01-02T00:00:00Z"), image(SECOND)]
    for pages in permutations(versions):
        collected = read(tmp_path, *(ncmec_page([page]) for page in pages))
        assert values(collected) == {SECOND}
        assert collected.fates == {"superseded": 2}


def test_all_versions_before_a_deletion_are_withdrawn(tmp_path):
    versions = [image(FIRST, "2021-01-01T00:00:00Z"), image(SECOND, "2021-01-02T00:00:00Z"), deletion()]
    collected = read(tmp_path, ncmec_page(versions))
    assert not collected.rows
    assert collected.fates == {"withdrawn": 3}
    assert collected.places["withdrawn: taken back by its owner"] == ("0.xml:1", "0.xml:2", "0.xml:3")


def test_of_versions_of_one_moment_the_later_in_the_file_stands(tmp_path):
    assert values(read(tmp_path, ncmec_page([image(FIRST), image(SECOND)]))) == {SECOND}


def test_members_ids_and_kinds_are_kept_apart(tmp_path):
    other = image(SECOND).replace('id="42"', 'id="43"')
    film = ncmec_record("deletedVideo", 1, "2022-01-01T00:00:00Z")
    collected = read(tmp_path, ncmec_page([image(), deletion(number=2), other], [film]))
    assert values(collected) == {FIRST, SECOND}
    assert collected.taken == 2


def test_a_missing_classification_is_a_category_of_its_own(tmp_path):
    collected = read(tmp_path, ncmec_page([image(), image(SECOND, number=2, classification="")]))
    assert collected.categories == ("(none)", "A1")


@pytest.mark.parametrize(
    "tag", ["pdna", "netclean", "videntifier", "tmk-pdqf", "TMK_PDQF", "SSVH_PDNA", "SSVH_SAFER_HASH", "new"]
)
def test_fingerprints_that_are_not_matched_are_counted(tmp_path, tag):
    record = ncmec_record("image", 1, NOON, [(tag, "00"), ("md5", FIRST)])
    collected = read(tmp_path, ncmec_page([record]))
    assert collected.taken == 1
    assert collected.reasons == {"skipped: a kind of fingerprint that is not matched": 1}


def test_a_reference_to_the_server_is_counted_and_never_kept(tmp_path):
    record = image().replace("<md5>", '<md5 rel="self" href="/v2/entries/1/fingerprints/MD5">')
    collected = read(tmp_path, ncmec_page([record]))
    assert not collected.rows
    assert collected.fates == {"skipped": 1}


@pytest.mark.parametrize(
    "record",
    [
        image().replace("<id>1</id>", ""),
        image().replace("<id>1</id>", "<id> </id>"),
        image().replace(' id="42"', ""),
        image().replace(NOON, "yesterday"),
        image().replace("image>", "drawing>"),
        image().replace("<md5>", "<!--").replace("</md5>", "-->"),
        image(FIRST[1:]),
        image(FIRST[1:] + " 0"),
        image(FIRST[1:] + "g"),
        image(""),
        image(classification="A" * 65),
        image(classification="A&#9;1"),
    ],
)
def test_a_malformed_record_is_rejected(tmp_path, record):
    collected = read(tmp_path, ncmec_page([record, image(SECOND, number=2)]))
    assert values(collected) == {SECOND}
    assert collected.fates == {"rejected": 1}


@pytest.mark.parametrize("count", ["0", "2", "x", "", "1.0"])
def test_a_page_that_does_not_hold_its_count_is_refused(tmp_path, count):
    page = ncmec_page([image()]).replace('count="1"', f'count="{count}"')
    with pytest.raises(ListError, match=r"^0\.xml: images: holds 1 records, not as many as its count; get it"):
        read(tmp_path, page)


def test_a_page_without_a_count_is_refused_unless_it_is_empty(tmp_path):
    assert read(tmp_path, ncmec_page().replace('count="0"', "")).records == 0
    with pytest.raises(ListError, match="not as many as its count"):
        read(tmp_path, ncmec_page([image()]).replace('count="1"', ""))


def test_a_page_cut_short_is_refused_with_its_line_and_no_word_of_it(tmp_path):
    page = ncmec_page([image()])
    cut = page[: page.index("</md5>") - 3]
    with pytest.raises(ListError, match=r"^0\.xml: line 6: not well-formed XML") as caught:
        read(tmp_path, cut)
    assert FIRST[:6] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "prolog",
    [
        '<!DOCTYPE queryResult SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE queryResult [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE queryResult [<!ENTITY % remote SYSTEM "file:///etc/passwd"> %remote;]>',
        "<!DOCTYPE queryResult>",
    ],
)
def test_document_types_and_entities_are_refused(tmp_path, prolog):
    page = ncmec_page([image()]).replace("<queryResult", prolog + "<queryResult")
    with pytest.raises(ListError, match="document type") as caught:
        read(tmp_path, page)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["UTF-7", "made-up", "utf-32"])
def test_unknown_encodings_are_refused(tmp_path, encoding):
    with pytest.raises(ListError, match=r"^0\.xml: "):
        read(tmp_path, ncmec_page([image()]).replace("UTF-8", encoding))


def test_other_documents_and_sections_are_refused(tmp_path):
    with pytest.raises(ListError, match="found another document"):
        read(tmp_path, f'<status xmlns="{NCMEC_NAMESPACE}"/>')
    with pytest.raises(ListError, match="found another section"):
        read(tmp_path, re.sub("images", "pictures", ncmec_page([image()])))


def test_a_namespace_may_have_a_prefix(tmp_path):
    page = ncmec_page([image()])
    prefixed = re.sub("<(/?)([a-zA-Z0-9]+)", r"<\1n:\2", page).replace("xmlns=", "xmlns:n=")
    assert values(read(tmp_path, page)) == values(read(tmp_path, prefixed)) == {FIRST}


def test_pages_that_all_say_that_another_follows_are_refused(tmp_path):
    last = ncmec_page([image(SECOND, number=2)])
    page = ncmec_page([image()]).replace("</videos>", "</videos><paging><next>/v2/entries?start=2</next></paging>")
    assert values(read(tmp_path, page, last)) == {FIRST, SECOND}
    with pytest.raises(ListError, match="get the last page too"):
        read(tmp_path, page)
