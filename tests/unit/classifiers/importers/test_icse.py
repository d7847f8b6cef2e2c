from __future__ import annotations

import pytest
from list_fixtures_plain import ICSE_HEADER, check_mutations, collect_fixture, make_values, write_icse

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.icse import IcseImporter
from classifiers.blocklists.importers.protocol import ReadOptions

MD5 = [value.hex() for value in make_values("md5", 7, 8)]


@pytest.mark.parametrize("records", [3, 40, 600])
def test_every_line_has_its_fate(tmp_path, records):
    found = collect_fixture(IcseImporter(), write_icse(tmp_path, records, records))
    assert found.categories == ("(none)", "Baseline=False", "Baseline=True")
    assert found.reasons == {
        "skipped: PhotoDNA is licensed and not matched": (records + 2) // 3 + 1,
        "skipped: not an image": 1,
        "rejected: not a line of as many columns as the first": 1,
    }


def test_one_digest_is_enough_and_a_line_with_none_is_malformed(tmp_path):
    path = tmp_path / "made.csv"
    rest = "7;False;False;False;;1;True;Image;True"
    path.write_text(f"{ICSE_HEADER}\n{MD5[0]};;;{rest}\n{MD5[1]};none;;{rest}\n;;;{rest}\n")
    found = collect(IcseImporter().read([path], ReadOptions()))
    assert (found.taken, found.fates, list(found.rows)) == (2, {"rejected": 1}, ["md5"])
    assert found.places == {
        "rejected: not a value of sha1": ("made.csv:3",),
        "rejected: no value in any column that holds values": ("made.csv:4",),
    }


def test_another_header_is_refused_without_a_word_of_it(tmp_path):
    path = tmp_path / "made.csv"
    path.write_text("MD5;SHA1;secret\n")
    with pytest.raises(ListError, match=r"made\.csv:1: expected columns.*photodna") as error:
        collect(IcseImporter().read([path], ReadOptions()))
    assert "secret" not in str(error.value)


def test_its_header_is_recognised():
    assert IcseImporter().recognises(b"\xef\xbb\xbf" + ICSE_HEADER.encode())
    assert not IcseImporter().recognises(b"md5,sha1\n")
    assert not IcseImporter().recognises(b"")


def test_no_damage_breaks_the_sum_or_tells_a_value(tmp_path):
    assert check_mutations(IcseImporter(), write_icse(tmp_path, 1, 30), 1) < 100
