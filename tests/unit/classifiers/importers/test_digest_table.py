from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_fixtures_plain import check_mutations, collect_fixture, make_values, write_parquet

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers import digest_table
from classifiers.blocklists.importers.digest_table import DigestTableImporter
from classifiers.blocklists.importers.protocol import ReadOptions

VALUES = make_values("sha256", 3, 6)


def read(tmp_path, table: dict[str, object]) -> Collected:
    path = tmp_path / "made.parquet"
    pq.write_table(pa.table(table), path)
    return collect(DigestTableImporter().read([path], ReadOptions()))


@pytest.mark.parametrize("records", [1, 40, 700])
def test_every_row_of_a_table_has_its_fate(tmp_path, monkeypatch, records):
    monkeypatch.setattr(digest_table, "BATCH_ROWS", 64)
    found = collect_fixture(DigestTableImporter(), write_parquet(tmp_path, records, records))
    assert found.places == {"rejected: no value in any column that holds values": (f"table.parquet:{records + 1}",)}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([value.hex().upper() for value in VALUES]),
        pa.array([value.hex() for value in VALUES], pa.large_string()),
        pa.array([value.hex() for value in VALUES]).dictionary_encode(),
        pa.array([value.hex().encode() for value in VALUES]),
        pa.array(VALUES),
        pa.array(VALUES, pa.binary(32)),
    ],
)
def test_a_column_may_be_text_or_bytes_of_any_type(tmp_path, column):
    found = read(tmp_path, {"SHA256": column, "category": pa.array(["A", None] * 3).dictionary_encode()})
    assert [row.tobytes() for row in found.rows["sha256"]] == sorted(VALUES)
    assert found.categories == ("(none)", "A")


def test_one_good_value_in_a_row_is_enough_and_the_wrong_one_is_noted(tmp_path):
    md5 = [value.hex() for value in make_values("md5", 1, 2)]
    found = read(tmp_path, {"md5": [*md5, "none"], "sha256": [None, VALUES[0].hex(), VALUES[1].hex()]})
    assert (found.taken, found.fates) == (3, {})
    assert found.places == {"rejected: not a value of md5": ("made.parquet:3",)}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"uid": VALUES}, "each named once, and among them md5"),
        ({"md5": [""], "MD5": [""]}, "each named once"),
        ({"md5": [1, 2]}, "text or bytes in column md5"),
        ({"md5": [["x"]]}, "text or bytes in column md5"),
        ({"md5": ["x"], "category": [1]}, "text or bytes in column category"),
    ],
)
def test_a_table_without_a_column_that_can_be_used_is_refused(tmp_path, table, said):
    with pytest.raises(ListError, match=f"made.parquet: .*{said}"):
        read(tmp_path, table)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "made.parquet"
    path.write_bytes(b"PAR1" + VALUES[0])
    with pytest.raises(ListError, match=r"made\.parquet: expected a whole"):
        collect(DigestTableImporter().read([path], ReadOptions()))
    with pytest.raises(FileNotFoundError):
        collect(DigestTableImporter().read([tmp_path / "absent"], ReadOptions()))


def test_no_damage_breaks_the_sum_or_tells_a_value(tmp_path):
    assert check_mutations(DigestTableImporter(), write_parquet(tmp_path, 1, 30), 1) > 100
