"""Entries of the log: read only in the one form that this version writes."""

from __future__ import annotations

import pytest

from manifests.audit.entries import COMMITTED, decode_entry, encode_entry
from manifests.audit.tiles import LogError

COUNTS = {"in": 3, "kept": 2, "not_kept": 1}
WRITTEN = [
    ("run-open", {"at": "t", "decide_plan": "d", "examine_plan": "e", "settle": 1, "tool": "0"}),
    *((kind, {"settle": 1, "value": "v"}) for kind in COMMITTED),
    ("key-rotation", {"statement": "s"}),
    (
        "shard-commit",
        {**COUNTS, "details": "d", "input": None, "manifest": None, "records": "r", "settle": 1, "shard": "0"},
    ),
    (
        "settle",
        {
            **COUNTS, "close": "c", "decide_plan": "d", "examine_plan": "e", "faults": 0, "settle": 1, "shards": 1,
            "stamps": [], "summary": None, "uids": "u",
        },
    ),
    ("run-close", {"at": "t", "evidence": "e", "files": {}, "settle": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields"), WRITTEN)
def test_an_entry_with_a_field_less_or_more_or_of_another_type_is_refused(kind, fields):
    assert decode_entry(encode_entry(kind, **fields), 7) == {"v": 1, "kind": kind, **fields}
    for name, value in fields.items():
        fewer = {key: one for key, one in fields.items() if key != name}
        other = {} if isinstance(value, str | None) else "text"
        for changed in (fewer, {**fields, name: other}, {**fields, name: True}, {**fields, "more": "text"}):
            with pytest.raises(LogError, match="entry 7 of the log"):
                decode_entry(encode_entry(kind, **changed), 7)
