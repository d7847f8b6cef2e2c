"""From features to decisions: held against rules written out by hand, row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_features import PDQ, Row, key_of, make_features
from made_lists import decided, hits_of, made_list

from manifests.decisions import prove_conservation
from manifests.features import decode_features, encode_features
from manifests.records import Action, FaultKind, identities_digest
from pipeline.list_signals import list_signal_specs, signal_columns
from pipeline.policy import SignalSpec, load_policy
from pipeline.verdicts import blank_withheld

POLICY = """
name = "by-hand"
required = ["list.csam.exact", "list.csam.pdq_distance", "sexual@1", "minor@1"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1 or list.csam.pdq_distance <= 31"
action = "SEAL"
[[rule]]
id = "listed-other"
when = "list.other.exact >= 1 or list.other.pdq_distance <= 10"
action = "REMOVE"
[[rule]]
id = "sexual-minor"
when = "sexual@1 >= 0.10 and minor@1 >= 0.20"
action = "REMOVE"
[[rule]]
id = "sexual"
when = "sexual@1 >= 0.45"
action = "REMOVE"
[[rule]]
id = "featureless"
when = "pdq.usable < 1"
action = "QUARANTINE"
[sensitive]
rules = ["sexual-minor"]
[separation]
never_kept = ["sexual@1 >= 0.45", "sexual@1 >= 0.10 and minor@1 >= 0.20"]
"""
SCORES = ("sexual@1", "minor@1")
RULES = (("listed", Action.SEAL), ("listed-other", Action.REMOVE), ("sexual-minor", Action.REMOVE),
         ("sexual", Action.REMOVE), ("featureless", Action.QUARANTINE))  # fmt: skip

CSAM_CODE, OTHER_CODE, FREE_CODE = bytes(range(32)), bytes(range(64, 96)), b"\x5a\xc3" * 16


def flipped(code: bytes, bits: int) -> bytes:
    """The same code with its first `bits` bits turned over."""
    mask = ((1 << bits) - 1) << (256 - bits)
    return (int.from_bytes(code, "big") ^ mask).to_bytes(32, "big")


LISTS = (
    made_list([("md5", hashlib.md5(b"known").digest()), ("pdq", CSAM_CODE)], list_id="a", feed="csam"),
    made_list(
        [("sha1", hashlib.sha1(b"other").digest()), ("pdq", OTHER_CODE)], list_id="b", feed="other", radius=12
    ),
    made_list([("sha256", hashlib.sha256(b"known too").digest())], list_id="c", feed="csam"),
)
KNOWN = [*list_signal_specs(LISTS), *(SignalSpec(name, "high", (f"{name}#00",), None, True) for name in SCORES)]
LOADED = load_policy(POLICY, source="by-hand", known=KNOWN)


def kleene_or(*values: bool | None) -> bool | None:
    return True if True in values else None if None in values else False


def kleene_and(*values: bool | None) -> bool | None:
    return False if False in values else None if None in values else True


def at_least(value: float, bar: float) -> bool | None:
    return None if np.isnan(value) else bool(np.float32(value) >= np.float32(bar))


def distance(code: bytes, other: bytes) -> int:
    return (int.from_bytes(code, "big") ^ int.from_bytes(other, "big")).bit_count()


def rules_of(row: Row) -> list[bool | None]:
    """What each rule says of one row, by hand."""
    csam = other = None
    if row.content is not None:
        csam, other = row.content in (b"known", b"known too"), row.content == b"other"
    near_csam = near_other = usable = None
    if row.code is not None:
        near_csam = row.usable and distance(row.code, CSAM_CODE) <= 31
        near_other = row.usable and distance(row.code, OTHER_CODE) <= 10
        usable = row.usable
    sexual, minor = (row.scores.get(name, np.nan) for name in SCORES)
    return [
        kleene_or(csam, near_csam),
        kleene_or(other, near_other),
        kleene_and(at_least(sexual, 0.10), at_least(minor, 0.20)),
        at_least(sexual, 0.45),
        None if usable is None else not usable,
    ]


def action_of(row: Row) -> Action:
    said = rules_of(row)
    faulty = bool(row.fault or row.sample_fault)
    for (_, action), truth in zip(RULES, said, strict=True):
        if truth:
            return action
    if row.role == "copied" and not faulty:
        return Action.KEEP
    spoke = row.content is not None and row.code is not None and not any(
        np.isnan(row.scores.get(name, np.nan)) for name in SCORES
    )  # fmt: skip
    return Action.KEEP if row.role == "image" and spoke and not faulty and None not in said else Action.QUARANTINE


NUMBERS = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.9, 1.0, float("nan")]) | st.floats(0, 1, width=32)
CODES = st.sampled_from([FREE_CODE, None]) | st.builds(
    flipped, st.sampled_from([CSAM_CODE, OTHER_CODE]), st.sampled_from([0, 9, 10, 11, 12, 13, 31, 32])
)
CONTENTS = st.sampled_from([b"x"] * 5 + [b"known", b"other", b"known too"])
FAULTS = st.sampled_from([None] * 8 + [FaultKind.TRUNCATED, FaultKind.NO_SCORE])


@st.composite
def one_row(draw, index: int, role: str, sample_fault: FaultKind | None) -> Row:
    if role == "none":
        return Row(index, role=role, content=None, member=None, sample_fault=sample_fault, code=None)
    row = Row(index, role=role, content=draw(CONTENTS), sample_fault=sample_fault, code=None)
    if role == "copied":
        return row
    if role == "unjudged":
        return replace(row, fault=FaultKind.UNJUDGED_MEMBER)
    usable = draw(st.integers(0, 3)) > 0
    scores = {name: draw(NUMBERS) for name in SCORES}
    return replace(row, fault=draw(FAULTS), code=draw(CODES), usable=usable, scores=scores)


@st.composite
def rows_of_a_shard(draw) -> list[Row]:
    rows: list[Row] = []
    for index in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 9)) == 0:
            rows.append(Row(index, withheld=True))
            continue
        sample_fault = draw(st.sampled_from([None] * 6 + [FaultKind.AMBIGUOUS, FaultKind.UNJUDGED_MEMBER]))
        roles = draw(st.lists(st.sampled_from(["image", "image", "copied", "unjudged"]), max_size=4))
        if "image" not in roles:
            sample_fault = sample_fault or FaultKind.NO_IMAGE
        for role in roles or ["none"]:
            rows.append(draw(one_row(index, role, sample_fault)))
    return rows


def samples(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(group) for _, group in groupby(rows, key=lambda row: row.index)]


@settings(max_examples=400, deadline=None)
@given(rows_of_a_shard())
def test_the_strictest_row_decides_and_nothing_is_kept_that_was_not_judged_in_full(rows):
    features = make_features(rows, scores=SCORES)
    decisions = decided(features, LISTS, LOADED)
    found = decisions.table.to_pylist()
    assert [row["key"] for row in found] == [key_of(group[0].index) for group in samples(rows)]
    for group, made in zip(samples(rows), found, strict=True):
        if group[0].withheld:
            assert (made["withheld"], made["action"]) == (True, None)
            continue
        expected = max(action_of(row) for row in group)
        assert made["action"] == expected.name
        is_sensitive = any(rules_of(row)[2] for row in group)
        assert made["withheld"] == (expected is Action.SEAL or is_sensitive)
        if expected is Action.KEEP:
            assert made["reason"] is None
            assert any(row.role == "image" for row in group)
        else:
            assert made["reason"]
    blank = blank_withheld(decisions)
    identities = identities_digest((group[0].index, key_of(group[0].index)) for group in samples(rows))
    prove_conservation(blank, shard="s", samples=len(found), identities=identities)


@settings(max_examples=150, deadline=None)
@given(rows_of_a_shard())
def test_stored_features_are_decided_as_live_ones(rows):
    features = make_features(rows, scores=SCORES)
    stored = decode_features(encode_features(features))
    live, again = (decided(each, LISTS, LOADED) for each in (features, stored))
    assert live.table.equals(again.table)


@settings(max_examples=150, deadline=None)
@given(rows_of_a_shard(), st.data())
def test_a_fault_more_or_a_number_less_never_lets_a_sample_through(rows, data):
    plain = [row for row in rows if not row.withheld]
    if not plain:
        return
    at = data.draw(st.integers(0, len(plain) - 1))
    changes = {"fault": FaultKind.TRUNCATED, "scores": {}, "code": None, "content": None}
    name = data.draw(st.sampled_from(sorted(changes)))
    before = {row["index"]: row["action"] for row in decisions_of(plain)}
    worse = replace(plain[at], **{name: changes[name]})
    after = {row["index"]: row["action"] for row in decisions_of([*plain[:at], worse, *plain[at + 1 :]])}
    index = plain[at].index
    # A number that is gone can no longer make a rule true, but it can never let a sample through.
    assert after[index] != "KEEP" or before[index] == "KEEP"
    assert {key: value for key, value in after.items() if key != index} == {
        key: value for key, value in before.items() if key != index
    }


def decisions_of(rows: Sequence[Row]) -> list[dict[str, object]]:
    return decided(make_features(rows, scores=SCORES), LISTS, LOADED).table.to_pylist()


GOOD = {"sexual@1": 0.0, "minor@1": 0.9}

OPEN = [name for name, _ in RULES]
COPIED_ALONE = Row(0, role="copied", code=None, sample_fault="no_image")
LOST = Row(0, role="none", content=None, code=None, sample_fault="missing_from_shard")


def good(index: int = 0, **changes) -> Row:
    return Row(index, **{"code": FREE_CODE, "scores": GOOD, **changes})


@pytest.mark.parametrize(
    ("rows", "action", "reason", "open_rules"),
    [
        ([good()], "KEEP", None, []),
        ([good(fault="truncated")], "QUARANTINE", "fault:truncated", []),
        ([good(scores={})], "QUARANTINE", "unknown", ["sexual-minor", "sexual"]),
        ([good(scores={"sexual@1": 0.0})], "QUARANTINE", "unknown", []),
        ([good(scores={"minor@1": 0.0})], "QUARANTINE", "unknown", ["sexual"]),
        ([good(scores={"sexual@1": 0.9})], "REMOVE", "rule:sexual", ["sexual-minor"]),
        ([good(code=None)], "QUARANTINE", "unknown", ["listed", "listed-other", "featureless"]),
        ([good(code=None, content=b"other")], "REMOVE", "rule:listed-other", ["listed"]),
        ([good(code=None, content=b"known")], "SEAL", "rule:listed", []),
        ([good(usable=False)], "QUARANTINE", "rule:featureless", []),
        ([good(code=CSAM_CODE, usable=False)], "QUARANTINE", "rule:featureless", []),
        ([good(code=flipped(CSAM_CODE, 31))], "SEAL", "rule:listed", []),
        ([good(code=flipped(CSAM_CODE, 32))], "KEEP", None, []),
        ([good(content=b"known", fault="truncated", code=None, scores={})], "SEAL", "rule:listed", []),
        ([good(content=b"known", sample_fault="ambiguous")], "SEAL", "rule:listed", []),
        ([COPIED_ALONE], "QUARANTINE", "fault:no_image", OPEN),
        ([LOST], "QUARANTINE", "fault:missing_from_shard", OPEN),
    ],
)
def test_actions_reasons_and_open_rules(rows, action, reason, open_rules):
    (made,) = decisions_of(rows)
    assert (made["action"], made["reason"], made["open_rules"]) == (action, reason, open_rules)


def test_no_rows_give_no_decisions():
    decisions = decided(make_features([], scores=SCORES), LISTS, LOADED)
    assert (decisions.table.num_rows, len(decisions.index)) == (0, 0)
    assert blank_withheld(decisions).num_rows == 0


def test_a_withheld_sample_shows_its_identity_and_nothing_else():
    decisions = decided(make_features([good(0), good(1, content=b"known")], scores=SCORES), LISTS, LOADED)
    shown = blank_withheld(decisions).to_pylist()
    assert {name for name, value in shown[0].items() if value is not None} > {"action", "member"}
    assert {name: value for name, value in shown[1].items() if value is not None} == {
        "shard": "s", "index": 1, "key": key_of(1), "withheld": True,
    }  # fmt: skip


def test_signals_say_nan_only_where_nothing_could_be_searched():
    rows = [good(0), good(1, code=None), good(2, content=None), good(3, usable=False), good(4, code=CSAM_CODE)]
    features = make_features(rows, scores=SCORES)
    columns = signal_columns(features, hits_of(features, LISTS), LISTS, LOADED.signals)
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(columns["list.csam.pdq_distance"], np.float32([inf, nan, inf, inf, 0]))
    np.testing.assert_array_equal(columns["list.csam.exact"], np.float32([0, 0, nan, 0, 0]))
    np.testing.assert_array_equal(columns["pdq.usable"], np.float32([1, nan, 1, 0, 1]))
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float32)}


def test_list_signals_are_bound_to_the_lists_and_searchable_only_where_one_has_entries():
    specs = {spec.name: spec for spec in list_signal_specs(LISTS[1:])}
    assert specs["list.csam.exact"].searchable
    assert not specs["list.csam.pdq_distance"].searchable
    assert specs["list.other.pdq_distance"].radius == 12
    assert specs["list.other.exact"].full_names == (f"b#{LISTS[1].set_digest[:8]}",)
    assert PDQ.startswith(specs["pdq.usable"].full_names[0])
