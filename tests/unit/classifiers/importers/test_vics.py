"""The JSON of Project VIC and CAID: its models, its fields, and reading it as a stream."""

from __future__ import annotations

import json
import random

import pytest
from list_fixtures import VICS_2, photo_dna, vics_record

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.pages import BATCH_RECORDS
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.vics import VicsImporter

MD5, SHA1 = "5F2C9D0A7B1E4836A5D4C3B2917F6E08", "A94A8FE5CCB19BA61C4C0873D391E987982FBBD3"
VICS_1 = "http://github.com/ICMEC/ProjectVic/DataModels/1.3.xml#"
PHOTO_DNA = photo_dna(random.Random(1))
NOT_MATCHED = "skipped: PhotoDNA and other alternative hashes are not matched"


def write(folder, *records, key="@odata.context", model=VICS_2):
    path = folder / "media.json"
    path.write_text(json.dumps({key: model, "value": list(records)}))
    return path


def read(path):
    return collect(VicsImporter().read([path], ReadOptions()))


@pytest.mark.parametrize(("key", "model"), [("@odata.context", VICS_2), ("odata.metadata", VICS_1 + "Media")])
def test_both_models_are_read_whatever_the_case_of_the_digits(tmp_path, key, model):
    path = write(tmp_path, vics_record(1, MD5=MD5, SHA1=SHA1.lower(), Category=1), key=key, model=model)
    collected = read(path)
    assert collected.rows["md5"].tobytes().hex().upper() == MD5
    assert collected.rows["sha1"].tobytes().hex().upper() == SHA1
    assert (collected.records, collected.taken, collected.categories) == (1, 1, ("1",))


def test_every_case_of_a_file_of_cases_is_read(tmp_path):
    cases = [{"CaseID": 1, "Media": [vics_record(1, MD5=MD5)]}, {"CaseID": 2, "Media": [vics_record(2, SHA1=SHA1)]}]
    assert read(write(tmp_path, *cases, key="odata.metadata", model=VICS_1 + "Cases")).taken == 2


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_escaped_slashes_do_no_harm(tmp_path, mark):
    path = write(tmp_path, vics_record(1, MD5=MD5))
    path.write_bytes(mark + path.read_bytes().replace(b"/", b"\\/"))
    assert VicsImporter().recognises(path.read_bytes())
    assert read(path).taken == 1


def test_photo_dna_is_counted_beside_an_entry_and_alone(tmp_path):
    others = [{"HashName": "PhotoDNA", "HashValue": PHOTO_DNA}]
    path = write(
        tmp_path,
        vics_record(1, MD5=MD5, PhotoDNA=PHOTO_DNA),
        vics_record(2, PhotoDNA=PHOTO_DNA),
        vics_record(3, AlternativeHashes=others),
        vics_record(4, SHA1=SHA1, AlternativeHashes=[]),
    )
    collected = read(path)
    assert (collected.taken, collected.fates) == (2, {"skipped": 2})
    assert collected.reasons == {NOT_MATCHED: 3}


@pytest.mark.parametrize(("category", "name"), [(0, "0"), (1, "1"), (17, "17"), (-1, "-1"), (None, "(none)")])
def test_a_category_is_its_number(tmp_path, category, name):
    assert read(write(tmp_path, vics_record(1, MD5=MD5, Category=category))).categories == (name,)


@pytest.mark.parametrize(
    "fields", [{"MimeType": "video/mp4"}, {"MimeType": None, "ContentType": "Video/x"}, {"MediaType": "Video"}]
)
def test_videos_are_skipped(tmp_path, fields):
    collected = read(write(tmp_path, vics_record(1, MD5=MD5, **fields)))
    assert (collected.taken, collected.reasons) == (0, {"skipped: not an image": 1})


@pytest.mark.parametrize("fields", [{"MimeType": "image/png"}, {"MimeType": ""}, {"MimeType": 3}, {"MediaType": 1}])
def test_what_is_not_surely_a_video_is_taken(tmp_path, fields):
    assert read(write(tmp_path, vics_record(1, MD5=MD5, **fields))).taken == 1


@pytest.mark.parametrize(
    "record",
    [
        17,
        None,
        [MD5],
        MD5,
        {},
        vics_record(1),
        vics_record(1, MD5="", SHA1=None),
        vics_record(1, MD5=5),
        vics_record(1, MD5=[MD5]),
        vics_record(1, MD5={"value": MD5}),
        vics_record(1, MD5=True),
        vics_record(1, MD5=MD5[1:]),
        vics_record(1, MD5=MD5 + " "),
        vics_record(1, MD5=MD5[1:] + "\uff11"),
        vics_record(1, MD5=MD5[2:] + " 1"),
        vics_record(1, MD5=SHA1),
        vics_record(1, MD5=MD5, Category="1"),
        vics_record(1, MD5=MD5, Category=1.5),
        vics_record(1, MD5=MD5, Category=True),
        vics_record(1, MD5=MD5, Category=[1]),
    ],
)
def test_a_malformed_record_is_rejected(tmp_path, record):
    collected = read(write(tmp_path, record, vics_record(2, SHA1=SHA1)))
    assert (collected.taken, collected.fates) == (1, {"rejected": 1})
    assert all(places == ("media.json:1",) for places in collected.places.values())


def test_one_malformed_value_does_not_cost_the_other(tmp_path):
    collected = read(write(tmp_path, vics_record(1, MD5=MD5[1:], SHA1=SHA1)))
    assert (collected.taken, list(collected.rows)) == (1, ["sha1"])
    assert collected.reasons == {"rejected: not a value of md5 in hexadecimal digits": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"value": []}',
        json.dumps({"@odata.context": VICS_2.replace("#Media", "#People"), "value": [{}]}),
        json.dumps({"context": VICS_2, "value": [{}]}),
    ],
)
def test_a_file_that_names_no_known_model_is_refused(tmp_path, text):
    path = tmp_path / "media.json"
    path.write_text(text)
    assert not VicsImporter().recognises(text.encode())
    with pytest.raises(ListError, match=r"^media\.json: expected JSON that begins with the name of a VICS model"):
        read(path)


def test_a_file_without_records_is_refused(tmp_path):
    path = write(tmp_path)
    with pytest.raises(ListError, match="found none where this format has them"):
        read(path)
    path.write_text(json.dumps({"@odata.context": VICS_2, "values": [vics_record(1, MD5=MD5)]}))
    with pytest.raises(ListError, match="found none where this format has them"):
        read(path)


@pytest.mark.parametrize(
    "damage",
    [b'{"MD5": NaN}', b'{"MD5": "\xff"}', b'{"MD5": 1' + b"0" * 30 + b"}", b"{]", b'{"MD5": "", "MD5": ""}'],
)
def test_damaged_json_is_refused_with_the_number_of_the_last_good_record(tmp_path, damage):
    path = write(tmp_path, vics_record(1, MD5=MD5), vics_record(2, SHA1=SHA1), {"here": 1})
    path.write_bytes(path.read_bytes().replace(b'{"here": 1}', damage))
    with pytest.raises(
        ListError, match=r"^media\.json: after record \d: (the file|an object) .*; get it anew$"
    ) as caught:
        read(path)
    assert caught.value.__cause__ is None


def test_records_are_read_as_a_stream_in_batches(tmp_path):
    records = [{"MD5": f"{number:032x}"} for number in range(1, BATCH_RECORDS + 2)]
    path = write(tmp_path, *records)
    path.write_bytes(path.read_bytes()[:-2])
    batches = VicsImporter().read([path], ReadOptions())
    first = next(batches)
    assert first.records.tolist() == list(range(1, BATCH_RECORDS + 1))
    with pytest.raises(ListError, match=rf"after record {BATCH_RECORDS + 1}: the file ends too early"):
        list(batches)
