from __future__ import annotations

import base64

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_fixtures_plain import (
    check_mutations,
    check_silence,
    collect_fixture,
    make_values,
    spell_all,
    write_bare,
    write_plain,
)

from classifiers.blocklists.algorithms import WIDTHS, ListError
from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers import plain
from classifiers.blocklists.importers.plain import PlainImporter
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import decode_values

MD5 = [value.hex() for value in make_values("md5", 7, 8)]


def read(tmp_path, text: str | bytes, algorithm: str = "") -> Collected:
    path = tmp_path / "made.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return collect(PlainImporter().read([path], ReadOptions(algorithm)))


@pytest.mark.parametrize("write", [write_plain, write_bare])
@pytest.mark.parametrize("records", [1, 40, 3001])
def test_every_line_of_a_list_has_its_fate(tmp_path, write, records):
    collect_fixture(PlainImporter(), write(tmp_path, records, max(records, 2)))


def test_a_list_has_the_same_rows_whatever_the_size_of_its_blocks(tmp_path, monkeypatch):
    fixture = write_plain(tmp_path, 1, 200)
    whole = collect_fixture(PlainImporter(), fixture)
    monkeypatch.setattr(plain, "BLOCK_BYTES", 100)
    parts = collect_fixture(PlainImporter(), fixture)
    assert all((parts.rows[name] == whole.rows[name]).all() for name in whole.rows)
    assert parts.places == whole.places


@given(st.sampled_from(sorted(WIDTHS)), st.integers(0, 1000))
def test_every_spelling_of_a_value_is_that_value(algorithm, seed):
    value = make_values(algorithm, seed, 1)[0]
    spelled = spell_all(value)
    values, good = decode_values(algorithm, pa.array([*spelled, value], pa.binary()), raw=True)
    assert good.all()
    assert [row.tobytes() for row in values] == [value] * (len(spelled) + 1)


@given(st.sampled_from(sorted(WIDTHS)), st.binary(max_size=70))
def test_what_is_read_as_a_value_is_a_spelling_of_it(algorithm, text):
    values, good = decode_values(algorithm, pa.array([text], pa.binary()))
    exact = {spelled.encode() for spelled in spell_all(values[0].tobytes())}
    assert not good[0] or text in exact or text.lower() == values[0].tobytes().hex().encode()


def test_bits_that_are_left_over_must_be_zero():
    text = spell_all(bytes(15) + b"\x01")[3]
    assert text.endswith("Q")
    assert decode_values("md5", pa.array([text, text[:-1] + "R"]))[1].tolist() == [True, False]


@pytest.mark.parametrize("algorithm", sorted(WIDTHS))
def test_other_alphabets_than_the_documented_ones_are_no_spelling(algorithm):
    value = b"\xfb\xff" * (WIDTHS[algorithm] // 2)
    texts = [base64.urlsafe_b64encode(value), base64.b32encode(value).lower(), base64.b64encode(value)[:-1] + b"!"]
    assert not decode_values(algorithm, pa.array(texts, pa.binary()))[1].any()


def test_several_columns_of_hashes_and_others_that_are_not_read(tmp_path):
    sha1 = [value.hex() for value in make_values("sha1", 8, 3)]
    found = read(tmp_path, f"id\tSHA1\tMD5\n1\t{sha1[0]}\t{MD5[0]}\n2\t\t{MD5[1]}\n3\t{sha1[1]}\tnone\n4\t\t\n")
    assert {name: len(rows) for name, rows in found.rows.items()} == {"md5": 2, "sha1": 2}
    assert (found.taken, found.fates) == (3, {"rejected": 1})
    assert found.places == {
        "rejected: not a value of md5": ("made.csv:4",),
        "rejected: no value in any column that holds values": ("made.csv:5",),
    }


def test_numbers_of_lines_count_blank_lines_and_comments(tmp_path):
    found = read(tmp_path, f"\n# note\n\nmd5\r\n\r\n{MD5[0]}\r\n  \n#x,y\nbad\n  {MD5[1]} \n{MD5[2]},1")
    assert (found.records, found.taken) == (4, 2)
    assert found.places == {
        "rejected: not a value of md5": ("made.csv:9",),
        "rejected: not a line of as many columns as the first": ("made.csv:11",),
    }


def test_a_column_of_algorithms_without_one_of_values_is_not_read(tmp_path):
    assert list(read(tmp_path, f"md5,algorithm\n{MD5[0]},pdq\n").rows) == ["md5"]


def test_quoted_cells_are_read_as_csv_does(tmp_path):
    text = f'"note","md5","category"\n"a, b","{MD5[0]}","A ""1"""\nplain,{MD5[1]},\n"open,{MD5[2]},x\n'
    found = read(tmp_path, text)
    assert found.categories == ("(none)", 'A "1"')
    assert (found.taken, found.fates, len(found.rows["md5"])) == (2, {"rejected": 1}, 2)


def test_a_value_under_two_categories_is_one_entry_of_both(tmp_path):
    found = read(tmp_path, f"md5,category\n{MD5[0]},B\n{MD5[0].upper()},A\n{MD5[1]},{'x' * 300}\n")
    assert (found.categories, found.masks["md5"].tolist(), found.duplicates) == (("A", "B"), [3], 1)
    assert found.reasons == {"rejected: a category of more than 256 bytes": 1}


@pytest.mark.parametrize(("width", "name"), [(16, "md5"), (20, "sha1")])
def test_bare_hex_that_can_be_only_one_thing_says_itself_what_it_is(tmp_path, width, name):
    assert list(read(tmp_path, f"{bytes(range(width)).hex()}\n").rows) == [name]


@pytest.mark.parametrize("digits", [16, 64])
def test_bare_hex_that_can_be_several_things_needs_the_algorithm(tmp_path, digits):
    value = MD5[0][:16] * (digits // 16)
    with pytest.raises(ListError, match=r"made\.csv:1: .* --algorithm unless") as error:
        read(tmp_path, value)
    assert value not in str(error.value)
    algorithm = "phash" if digits == 16 else "sha256"
    assert list(read(tmp_path, value, algorithm).rows) == [algorithm]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\n# secret\n", "empty"),
        (b"\xff\xfem\x00d\x005\x00", r"made\.csv:1: expected UTF-8"),
        (f"md5\n{MD5[0]}\n\n".encode() + b"secret\xff\n", r"made\.csv:4: expected UTF-8"),
        (b"md5\nsecret\0\n", r"made\.csv:2: expected UTF-8"),
        (b"secret,words\n1,2\n", r"made\.csv:1: expected columns"),
        (b"algorithm,secret\n", r"made\.csv:1: expected columns"),
        (b"md5,secret,secret\n", r"made\.csv:1: expected columns, each named once"),
        (f"{MD5[0]},secret\n".encode(), r"made\.csv:1: expected columns"),
    ],
)
def test_a_file_that_is_no_list_is_refused_without_a_word_of_it(tmp_path, text, said):
    with pytest.raises(ListError, match=said) as error:
        read(tmp_path, text)
    assert "secret" not in str(error.value)
    assert MD5[0] not in str(error.value)


def test_an_unknown_algorithm_is_refused(tmp_path):
    with pytest.raises(ListError, match="--algorithm"):
        read(tmp_path, MD5[0], "photodna")


def test_a_line_larger_than_a_block_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "BLOCK_BYTES", 100)
    with pytest.raises(ListError, match=r"made\.csv:2: .* more than 100 bytes"):
        read(tmp_path, "md5\n" + "x" * 1000)


def test_a_list_of_no_values_is_a_list(tmp_path):
    assert read(tmp_path, "md5\n").records == 0


@pytest.mark.parametrize(
    ("head", "sure"),
    [
        ("md5,category\n", True),
        ("\ufeff# note\nalgorithm\tvalue\n", True),
        (f"{MD5[0]}\n", True),
        ("MD5;SHA1;PhotoDNA;Media Type;Baseline\n", False),
        (f"pdq {MD5[0]}{MD5[0]}\n", False),
        ("https://example.com/\n", False),
        ('{"value": []}', False),
        ("", False),
    ],
)
def test_a_plain_list_is_recognised_only_when_sure(head, sure):
    assert PlainImporter().recognises(head.encode()) is sure


def test_no_damage_breaks_the_sum_or_tells_a_value(tmp_path):
    assert check_mutations(PlainImporter(), write_plain(tmp_path, 1, 30), 1) < 100
    assert check_mutations(PlainImporter(), write_bare(tmp_path, 1, 30), 2) < 100


def test_a_value_that_would_match_by_accident_is_a_note(tmp_path):
    fixture = write_bare(tmp_path, 1, 3)
    with fixture.paths[0].open("a") as file:
        file.write("0" * 64 + "\n")
    found = collect(PlainImporter().read(fixture.paths, fixture.options))
    assert (found.taken, found.fates) == (3, {"rejected": 1})
    check_silence(repr(found), fixture)
    assert np.all(found.rows["sha256"][:, 0] >= 0)
