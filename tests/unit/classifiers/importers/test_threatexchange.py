from __future__ import annotations

import pytest
from list_fixtures_plain import check_mutations, collect_fixture, make_values, write_threatexchange

from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.threatexchange import ThreatExchangeImporter

PDQ = [value.hex() for value in make_values("pdq", 7, 3)]
MD5 = [value.hex() for value in make_values("md5", 7, 3)]


def read(tmp_path, text: str) -> Collected:
    path = tmp_path / "made.txt"
    path.write_text(text)
    return collect(ThreatExchangeImporter().read([path], ReadOptions()))


@pytest.mark.parametrize("records", [1, 40, 600])
def test_every_line_has_its_fate(tmp_path, records):
    found = collect_fixture(ThreatExchangeImporter(), write_threatexchange(tmp_path, records, records))
    assert found.reasons == {
        "rejected: not a value of pdq": 1,
        "rejected: not a line of as many columns as the first": 1,
        "skipped: of an algorithm that is not matched": 3,
    }


def test_a_digest_of_a_url_is_an_entry_and_a_url_is_not(tmp_path):
    found = read(tmp_path, f"url_md5 {MD5[0]}\nurl http://example.com/\npdq  {PDQ[0]}\n")
    assert {name: len(rows) for name, rows in found.rows.items()} == {"pdq": 1, "url_md5": 1}
    assert found.fates == {"skipped": 1}


@pytest.mark.parametrize(
    ("head", "sure"),
    [(f"pdq {PDQ[0]}", True), ("raw_text a b", True), (PDQ[0], False), ("pdq", False), ("", False)],
)
def test_typed_lines_are_recognised(head, sure):
    assert ThreatExchangeImporter().recognises(head.encode()) is sure


def test_no_damage_breaks_the_sum_or_tells_a_value(tmp_path):
    assert check_mutations(ThreatExchangeImporter(), write_threatexchange(tmp_path, 1, 30), 1) < 100
