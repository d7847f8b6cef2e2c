"""Override records: who may sign what, what they cancel, and all that they can never cancel."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path

import pytest
from made_features import Row, key_of, make_features
from made_lists import made_feeds, made_list, stored_list

from classifiers.blocklists.match import search_column
from pipeline.errors import ConfigError
from pipeline.hits import entries_of
from pipeline.list_signals import list_signal_specs
from pipeline.matching import match_shard
from pipeline.overrides import NO_OVERRIDES, read_overrides
from pipeline.policy import SignalSpec, load_policy
from pipeline.verdicts import decide_samples

POLICY = """
name = "by-hand"
required = ["list.csam.exact", "list.csam.pdq_distance"]
[signal]
worst = { from = ["sexual@1", "minor@1"] }
anywhere = { from = ["list.csam.exact", "list.other.exact"] }
[[rule]]
id = "listed"
when = "list.csam.exact >= 1 or list.csam.pdq_distance <= 31"
action = "SEAL"
[[rule]]
id = "listed-and-scored"
when = "anywhere >= 1 and sexual@1 >= 0.2"
action = "REMOVE"
[[rule]]
id = "sexual"
when = "sexual@1 >= 0.45"
action = "REMOVE"
[[rule]]
id = "minor"
when = "minor@1 >= 0.45"
action = "REMOVE"
[[rule]]
id = "either"
when = "worst >= 0.9"
action = "QUARANTINE"
[separation]
never_kept = ["sexual@1 >= 0.45"]
"""
SCORES = ("sexual@1", "minor@1")
TODAY = date(2027, 6, 30)
CODE, OTHER_CODE = bytes(range(32)), bytes(range(64, 96))


# It feeds both. Sorted as bytes: entry 0 of pdq is CODE, entry 1 is OTHER_CODE; 2 and 3 are canaries.
BOTH = made_feeds(
    stored_list(
        [("pdq", CODE, "A"), ("pdq", OTHER_CODE, "B"), ("md5", hashlib.md5(b"known").digest(), "A")],
        {"A": "case", "B": "remove"},
        canaries=True,
    ),
    list_id="partner",
)
LISTS = (*BOTH, made_list([("pdq", CODE)], list_id="second"))
DIGEST = BOTH[0].set_digest
KNOWN = [*list_signal_specs(LISTS), *(SignalSpec(name, "high", (f"{name}#00",), None, True) for name in SCORES)]
LOADED = load_policy(POLICY, source="by-hand", known=KNOWN)

SIGNED = {"by": ["A. Name", "B. Name"], "reason": "a page of text", "expires": date(2027, 7, 1)}
NEAR = {**SIGNED, "list": "partner", "set_digest": DIGEST, "algorithm": "pdq", "entry": 0}
RULE = {**SIGNED, "sample": "s/k000", "rule": "sexual"}


def toml(value: object) -> str:
    return str(value) if isinstance(value, date) else json.dumps(value)


def write(folder: Path, *records: dict[str, object]) -> Path:
    lines = []
    for record in records:
        lines += ["[[override]]", *(f"{key} = {toml(value)}" for key, value in record.items())]
    path = folder / "overrides.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(folder: Path, *records: dict[str, object], lists=LISTS):
    return read_overrides(write(folder, *records), lists, LOADED, today=TODAY)


def test_no_file_means_no_overrides():
    assert read_overrides(None, LISTS, LOADED, today=TODAY) is NO_OVERRIDES
    assert entries_of(NO_OVERRIDES.near, LISTS) == frozenset()
    assert NO_OVERRIDES.cancelled(["s"], ["k"], LOADED) is None


def test_a_record_names_an_entry_in_every_feed_of_its_list_and_in_no_other(tmp_path):
    found = read(tmp_path, NEAR, {**NEAR, "entry": 1, "set_digest": DIGEST[:16]})
    assert found.near == {("partner", "pdq", 0), ("partner", "pdq", 1)}
    assert entries_of(found.near, LISTS) == {(0, "pdq", 0), (1, "pdq", 0), (0, "pdq", 1), (1, "pdq", 1)}
    assert entries_of(found.near, LISTS[2:]) == frozenset()


def test_what_was_signed_stands_in_the_record(tmp_path):
    (near, rule) = read(tmp_path, NEAR, RULE).record
    assert near == (
        "algorithm=pdq", "by=['A. Name', 'B. Name']", "entry=0", "expires=2027-07-01", "list=partner",
        "reason=a page of text", f"set_digest={DIGEST}",
    )  # fmt: skip
    assert rule[-2:] == ("rule=sexual", "sample=s/k000")


@pytest.mark.parametrize("kind", [NEAR, RULE], ids=["near hit", "rule"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"by": ["A. Name"]}, "by: expected the names of two different people"),
        ({"by": ["A. Name", "a. name "]}, "by: expected the names of two different people"),
        ({"by": ["STRASSE", "straße"]}, "by: expected the names of two different people"),
        ({"by": ["A. Name", " "]}, "by: expected the names of two different people"),
        ({"by": ["A. Name", 7]}, "by: expected the names of two different people"),
        ({"by": "A. Name, B. Name"}, "by: expected the names of two different people"),
        ({"by": None}, "by: expected the names of two different people"),
        ({"reason": None}, "reason: expected a text"),
        ({"reason": " \n"}, "reason: expected a text"),
        ({"reason": 1}, "reason: expected a text"),
        ({"expires": None}, "expires: expected a date"),
        ({"expires": "2027-07-01"}, "expires: expected a date"),
        ({"expires": date(2027, 6, 29)}, "expired on 2027-06-29; take it out, or have it signed anew"),
        ({"until": 1, **NEAR, **RULE}, "expected the keys by, reason"),
        ({"until": 1}, "expected the keys by, reason, expires and either list, set_digest, algorithm, entry or "),
    ],
)
def test_a_record_that_is_not_signed_by_two_for_a_reason_until_a_day_is_refused(tmp_path, kind, changes, expected):
    record = {key: value for key, value in {**kind, **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=f"overrides.toml: override 2: {expected}"):
        read(tmp_path, kind, record)


def test_a_time_of_day_is_no_end(tmp_path):
    path = write(tmp_path, NEAR)
    path.write_text(path.read_text().replace("2027-07-01", "2027-07-01T00:00:00Z"))
    with pytest.raises(ConfigError, match="override 1: expires: expected a date"):
        read_overrides(path, LISTS, LOADED, today=TODAY)


def test_the_last_day_is_still_in_force(tmp_path):
    assert read(tmp_path, {**NEAR, "expires": TODAY}).near == {("partner", "pdq", 0)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"list": "stranger"}, "list: expected the id of a list of this run, found 'stranger'"),
        ({"list": "Partner"}, "list: expected the id of a list of this run"),
        ({"list": ["partner"]}, "list: expected the id of a list of this run"),
        ({"set_digest": DIGEST[:15]}, "set_digest: expected at least 16 digits"),
        ({"set_digest": ""}, "set_digest: expected at least 16 digits"),
        ({"set_digest": DIGEST[1:]}, "set_digest: expected at least 16 digits"),
        ({"set_digest": DIGEST + "0"}, "set_digest: expected at least 16 digits"),
        ({"set_digest": LISTS[2].set_digest}, "set_digest: expected at least 16 digits"),
        ({"set_digest": 1234567890123456}, "set_digest: expected at least 16 digits"),
        ({"entry": -1}, "entry: expected the number of a pdq entry, from 0 and below 2,"),
        ({"entry": 2}, "entry: expected the number of a pdq entry, from 0 and below 2,"),  # a canary of ours
        ({"entry": True}, "entry: expected the number of a pdq entry"),
        ({"entry": 0.0}, "entry: expected the number of a pdq entry"),
        ({"entry": CODE.hex()}, "entry: expected the number of a pdq entry"),
        ({"algorithm": "md5"}, "algorithm: expected one of pdq, phash, dhash, whash, ahash; a hit on a digest is"),
        ({"algorithm": "PDQ"}, "algorithm: expected one of pdq"),
        ({"algorithm": ["pdq"]}, "algorithm: expected one of pdq"),
        ({"algorithm": "phash"}, "entry: expected the number of a phash entry"),
    ],
)
def test_a_near_hit_that_cannot_be_cancelled_is_refused_and_no_digest_but_the_users_own_is_told(
    tmp_path, changes, expected
):
    with pytest.raises(ConfigError, match=f"override 1: {expected}") as caught:
        read(tmp_path, {**NEAR, **changes})
    assert DIGEST[:8] not in str(caught.value)
    assert CODE.hex() not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rule": "sexy"}, "rule: expected the id of a rule of policy 'by-hand'"),
        ({"rule": ["sexual"]}, "rule: expected the id of a rule"),
        ({"rule": "listed"}, "rule 'listed' reads a list; an exact hit is never cancelled"),
        ({"rule": "listed-and-scored"}, "rule 'listed-and-scored' reads a list"),
        ({"sample": "k000"}, "sample: expected shard/key"),
        ({"sample": 7}, "sample: expected shard/key"),
    ],
)
def test_a_rule_that_cannot_be_cancelled_is_refused(tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=f"override 1: {expected}"):
        read(tmp_path, {**RULE, **changes})


@pytest.mark.parametrize(
    "text",
    ["", "override = 3", "override = [1]", "[override]\nby = 1", "x = 1\n[[override]]\nby = []", "[[", "\xff"],
)
def test_a_file_of_anything_else_is_refused(tmp_path, text):
    path = tmp_path / "overrides.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"overrides\.toml: expected"):
        read_overrides(path, LISTS, LOADED, today=TODAY)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_overrides(tmp_path / "absent", LISTS, LOADED, today=TODAY)


def decided(folder: Path, rows: list[Row], *records: dict[str, object], lists=BOTH):
    """Decide one shard of `rows`: (action, rule, withheld) of every sample."""
    features = make_features(rows, scores=SCORES)
    overrides = read(folder, *records, lists=lists) if records else NO_OVERRIDES
    hits = match_shard(features, lists, search_column, max_near_hits=9, cancelled=entries_of(overrides.near, lists))
    made = decide_samples(features, hits, lists, LOADED, overrides)
    return [(row["action"], row["rule"], row["withheld"]) for row in made.table.to_pylist()]


FREE = b"\x5a\xc3" * 16
CALM = dict.fromkeys(SCORES, 0.0)
SEALED, KEPT = ("SEAL", "listed", True), ("KEEP", None, False)


def row(index: int, content: bytes = b"unknown", code: bytes = FREE, **scores: float) -> Row:
    named = {f"{name}@1": value for name, value in scores.items()}
    return Row(index, content=content, code=code, scores=CALM | named)


def near(code: bytes) -> bytes:
    return bytes([code[0] ^ 0xFF]) + code[1:]


def test_a_cancelled_entry_is_near_to_nothing_and_exact_hits_stay(tmp_path):
    rows = [row(0, code=near(CODE)), row(1, b"known", near(CODE)), row(2, b"known"), row(3)]
    assert decided(tmp_path, rows) == [SEALED, SEALED, SEALED, KEPT]
    assert decided(tmp_path, rows, NEAR) == [KEPT, SEALED, SEALED, KEPT]


def test_another_entry_and_another_list_stand(tmp_path):
    rows = [row(0, code=near(CODE))]
    assert decided(tmp_path, rows, {**NEAR, "entry": 1}) == [SEALED]
    assert decided(tmp_path, rows, NEAR, lists=LISTS) == [SEALED]
    second = {**NEAR, "list": "second", "set_digest": LISTS[2].set_digest}
    assert decided(tmp_path, rows, second, lists=LISTS) == [SEALED]
    assert decided(tmp_path, rows, NEAR, second, lists=LISTS) == [KEPT]


def test_a_cancelled_hit_does_not_touch_what_a_model_says(tmp_path):
    rows = [row(0, code=near(CODE), sexual=0.9)]
    assert decided(tmp_path, rows, NEAR) == [("REMOVE", "sexual", False)]


def test_a_cancelled_rule_lets_every_other_rule_stand_and_other_samples_too(tmp_path):
    rows = [
        row(0, sexual=0.5),
        row(1, sexual=0.5),
        row(2, sexual=0.5, minor=0.5),
        row(3, sexual=0.95),
        row(4, b"known", sexual=0.5),
        row(5, code=near(CODE), sexual=0.5),
        Row(6, code=FREE, fault="truncated", scores={"sexual@1": 0.5, "minor@1": 0.0}),
    ]
    records = [{**RULE, "sample": f"s/{key_of(index)}"} for index in (0, 2, 3, 4, 5, 6)]
    assert decided(tmp_path, rows, *records) == [
        KEPT,  # although the promise speaks of such scores
        ("REMOVE", "sexual", False),
        ("REMOVE", "minor", False),
        ("QUARANTINE", "either", False),
        SEALED,
        SEALED,
        ("QUARANTINE", None, False),
    ]


def test_several_rules_of_one_sample_take_a_record_each(tmp_path):
    rows = [row(0, sexual=0.95, minor=0.5)]
    records = [{**RULE, "rule": name} for name in ("sexual", "minor", "either")]
    assert decided(tmp_path, rows, *records[:2]) == [("QUARANTINE", "either", False)]
    assert decided(tmp_path, rows, *records[1:]) == [("REMOVE", "sexual", False)]
    assert decided(tmp_path, rows, *records) == [KEPT]


def test_a_rule_that_could_not_say_is_cancelled_as_one_that_fired(tmp_path):
    rows = [Row(0, code=FREE, scores={"minor@1": 0.0})]
    assert decided(tmp_path, rows) == [("QUARANTINE", None, False)]
    both = [{**RULE, "rule": name} for name in ("sexual", "either")]
    assert decided(tmp_path, rows, both[0]) == [("QUARANTINE", None, False)]
    assert decided(tmp_path, rows, *both) == [KEPT]


def test_the_same_key_in_another_shard_is_another_sample(tmp_path):
    assert decided(tmp_path, [row(0, sexual=0.5)], {**RULE, "sample": "t/k000"}) == [("REMOVE", "sexual", False)]


def test_a_withheld_sample_stays_withheld(tmp_path):
    assert decided(tmp_path, [Row(0, withheld=True)], NEAR, RULE) == [(None, None, True)]
