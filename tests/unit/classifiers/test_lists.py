from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest

from classifiers.blocklists.lists import WIDTHS, HashList, ListError, build_list, load_list


def value(algorithm, seed=1):
    return np.random.default_rng(seed).bytes(WIDTHS[algorithm])


def line(algorithm, seed=1):
    return f"{algorithm},{value(algorithm, seed).hex()}"


def write(folder, *lines, header="algorithm,value"):
    path = folder / "list.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def load(path, **changes):
    return load_list(path, **({"list_id": "hotline", "purpose": "csam"} | changes))


def test_entries_of_all_algorithms_end_up_sorted_and_once(tmp_path):
    lines = [line(algorithm, seed) for seed in range(40) for algorithm in WIDTHS]
    loaded = load(write(tmp_path, *lines, *lines[:7]))
    assert set(loaded.digests) == {"md5", "sha1", "sha256"}
    for algorithm, rows in [*loaded.digests.items(), ("pdq", loaded.codes)]:
        expected = sorted(value(algorithm, seed) for seed in range(40))
        assert rows.dtype == np.uint8
        assert [row.tobytes() for row in rows] == expected
    assert (loaded.list_id, loaded.purpose, loaded.radius) == ("hotline", "csam", 31)


def test_an_algorithm_without_entries_has_no_rows_of_its_width(tmp_path):
    loaded = load(write(tmp_path, line("md5")))
    assert {name: rows.shape for name, rows in loaded.digests.items()} == {
        "md5": (1, 16),
        "sha1": (0, 20),
        "sha256": (0, 32),
    }
    assert loaded.codes.shape == (0, 32)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: (
            text.upper().replace("MD5", "md5").replace("PDQ", "pdq").replace("ALGORITHM,VALUE", "algorithm,value")
        ),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "  \n").replace(",", " ,\t "),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
    ],
    ids=["upper case", "windows line ends", "blanks", "blank lines", "byte order mark", "no last line end"],
)
def test_the_spelling_of_a_file_does_not_change_the_list(tmp_path, change):
    path = write(tmp_path, line("md5"), line("pdq"))
    plain = load(path)
    path.write_bytes(change(path.read_text()).encode())
    assert load(path).set_digest == plain.set_digest


def test_the_set_digest_is_over_names_counts_and_sorted_entries(tmp_path):
    loaded = load(write(tmp_path, line("sha256"), line("pdq", 2), line("pdq", 1), line("md5")))
    codes = sorted((value("pdq", 1), value("pdq", 2)))
    expected = hashlib.sha256(
        b"md5\0" + struct.pack(">Q", 1) + value("md5")
        + b"pdq\0" + struct.pack(">Q", 2) + b"".join(codes)
        + b"sha256\0" + struct.pack(">Q", 1) + value("sha256")
    )  # fmt: skip
    assert loaded.set_digest == expected.hexdigest()


def test_the_set_digest_tells_sets_apart(tmp_path):
    sets = [[line("md5")], [line("md5"), line("md5", 2)], [line("md5", 2)], [line("sha256")], [line("pdq")]]
    assert len({load(write(tmp_path, *lines)).set_digest for lines in sets}) == len(sets)


MD5, SHA1, SHA256, PDQ = (WIDTHS[name] for name in ("md5", "sha1", "sha256", "pdq"))


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("md5," + "ab" * 15, "expected 32 hex digits, found 30"),
        ("sha1," + "ab" * 32, "expected 40 hex digits, found 64"),
        ("pdq," + "ab" * 31, "expected 64 hex digits, found 62"),
        ("md5,", "expected 32 hex digits, found 0"),
        ("md5," + "ab" * 15 + "a", "in hex"),
        ("md5," + "ab" * 15 + "xy", "in hex"),
        ("md5," + "ab" * 7 + "  " + "ab" * 8, "in hex"),
        ('"md5","' + "ab" * 16 + '"', "in hex"),
        ("md5," + "ab" * 15 + "a\u00e9", "in hex"),
        ("MD5," + "ab" * 16, "unknown algorithm"),
        ("photodna," + "ab" * 144, "unknown algorithm"),
        ("," + "ab" * 16, "unknown algorithm"),
        ("md5," + "ab" * 16 + ",severe", "expected 2 cells, found 3"),
        ("ab" * 16, "expected 2 cells, found 1"),
        ("md5," + "00" * MD5, "equal bits"),
        ("pdq," + "00" * PDQ, "equal bits"),
        ("pdq," + "ff" * PDQ, "equal bits"),
        ("sha256," + "FF" * SHA256, "equal bits"),
        ("md5," + hashlib.md5(b"").hexdigest(), "empty file"),
        ("sha1," + hashlib.sha1(b"").hexdigest().upper(), "empty file"),
        ("sha256," + hashlib.sha256(b"").hexdigest(), "empty file"),
    ],
)
def test_one_bad_line_refuses_the_list_and_is_named_but_not_shown(tmp_path, bad, expected):
    path = write(tmp_path, line("md5"), "", bad, line("pdq"))
    with pytest.raises(ListError, match=expected) as caught:
        load(path)
    message = str(caught.value)
    assert f"{path}: line 4: " in message
    assert "ab" * 4 not in message
    for cell in bad.split(","):
        if len(cell.strip('"')) > 6:
            assert cell not in message


def test_a_line_that_is_not_utf8_refuses_the_list(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + b"md5," + b"a\xff" * 16 + b"\n")
    with pytest.raises(ListError, match="line 2: expected a value in hex"):
        load(path)


@pytest.mark.parametrize("content", ["", "\n", "algorithm,value\n", "algorithm,value\n\n\n"])
def test_an_empty_list_is_refused(tmp_path, content):
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises(ListError, match="expected entries, found none"):
        load(path)


@pytest.mark.parametrize(
    "header", ["value,algorithm", "Algorithm,Value", "algorithm;value", line("md5"), "algorithm"]
)
def test_another_header_is_refused(tmp_path, header):
    with pytest.raises(ListError, match="line 1: expected the header algorithm,value") as caught:
        load(write(tmp_path, line("md5"), header=header))
    assert value("md5").hex() not in str(caught.value)


@pytest.mark.parametrize("radius", [-1, 128])
def test_a_radius_outside_of_0_to_127_is_refused(tmp_path, radius):
    with pytest.raises(ListError, match="radius: expected 0 to 127 bits"):
        load(write(tmp_path, line("pdq")), radius=radius)


@pytest.mark.parametrize("radius", [0, 127])
def test_the_radius_may_be_0_or_127(tmp_path, radius):
    assert load(write(tmp_path, line("pdq")), radius=radius).radius == radius


def test_a_purpose_that_no_policy_knows_is_refused(tmp_path):
    with pytest.raises(ListError, match="purpose: expected csam or other, found 'spam'"):
        load(write(tmp_path, line("pdq")), purpose="spam")


def test_a_list_without_a_name_is_refused(tmp_path):
    with pytest.raises(ListError, match="list_id"):
        load(write(tmp_path, line("pdq")), list_id="")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.csv")


def test_a_list_built_from_values_is_the_list_loaded_from_a_file(tmp_path):
    built = build_list([("pdq", value("pdq")), ("md5", value("md5"))], list_id="hotline", purpose="csam")
    assert built.set_digest == load(write(tmp_path, line("md5"), line("pdq"))).set_digest


def test_a_built_list_keeps_the_same_rules():
    with pytest.raises(ListError, match="list 'canaries': entry 2: md5: expected 32 hex digits, found 40"):
        build_list([("md5", value("md5")), ("md5", value("sha1"))], list_id="canaries", purpose="other")
    with pytest.raises(ListError, match="found none"):
        build_list([], list_id="canaries", purpose="other")


def test_the_repr_holds_the_name_and_counts_only():
    entries = [(name, value(name)) for name in WIDTHS]
    assert repr(build_list(entries, list_id="hotline", purpose="csam")) == (
        "HashList('hotline', md5=1, sha1=1, sha256=1, pdq=1, phash=1, dhash=1, whash=1, ahash=1)"
    )


def test_a_list_cannot_be_changed():
    built: HashList = build_list([("pdq", value("pdq"))], list_id="hotline", purpose="csam")
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.radius = 0
    with pytest.raises(ValueError, match="read-only"):
        built.codes[0, 0] = 1
    with pytest.raises(TypeError):
        built.digests["md5"] = built.codes
