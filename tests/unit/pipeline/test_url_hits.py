"""URLs, domains and uids among the hits of a shard: what they say, and what they do not."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from made_features import Row, make_features
from made_lists import hits_of, made_feeds, stored_list

from classifiers.blocklists.algorithms import UID, WIDTHS
from pipeline.around import exact_rows
from pipeline.list_signals import list_signal_specs, signal_columns
from pipeline.matching import combine_queries, find_hits, gather_queries
from pipeline.policy import PolicyError, load_policy

URLS = ["https://one.example/a", None, "http://sub.two.example/b", "no url"]
SEALS = """
name = "p"
required = ["list.csam.exact"]
[signal.any]
from = ["list.csam.exact", "list.other.exact"]
[[rule]]
id = "r"
when = "any >= 1"
action = "SEAL"
"""


def sha256(data: str | bytes) -> bytes:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).digest()


def features(urls=URLS):
    contents = [f"content {row}".encode() for row in range(len(urls))]
    contents[-1] = None  # nothing was read
    made = make_features([Row(row, content=content) for row, content in enumerate(contents)])
    at = made.table.schema.get_field_index("url")
    return replace(made, table=made.table.set_column(at, "url", pa.array(urls, pa.string())))


def lists_of(*entries, purpose="erasure", list_id="names"):
    stored = stored_list([(*entry, "all") for entry in entries], {"all": "case"})
    return made_feeds(stored, list_id=list_id, purpose=purpose, algorithms=tuple(WIDTHS))


NAMES = lists_of(("url", sha256("http://one.example/a")), ("domain", sha256("two.example")),
                 (UID, sha256(b"content 1")[:16]))  # fmt: skip


def signal(found, name, lists=NAMES):
    return signal_columns(found, hits_of(found, lists), lists, [name])[name].tolist()


def test_each_is_an_exact_hit_of_its_feed_and_a_row_that_says_nothing_is_unknown():
    found = signal(features(), "list.other.exact")
    assert found[:3] == [1, 1, 1]
    assert np.isnan(found[3])
    assert signal(features([None] * 4), "list.other.exact")[:3] == [0, 1, 0]


def test_the_url_of_a_row_without_bytes_is_found():
    assert signal(features([None, None, None, "http://two.example/"]), "list.other.exact")[3] == 1


def test_a_place_is_no_seed_and_no_voice_and_a_uid_is_both():
    hits = hits_of(features(), NAMES)
    assert hits["basis"].to_pylist() == ["listed-url", "listed-exact", "listed-url"]
    assert exact_rows(hits).tolist() == [1]
    assert signal(features(), "list.other.lists")[:3] == [0, 1, 0]


def test_shards_that_are_asked_together_have_the_hits_of_each():
    shards, first = [features(), features(URLS[::-1])], [0, 4]
    queries = [gather_queries(one, NAMES, first_row=row) for one, row in zip(shards, first, strict=True)]
    together = find_hits(combine_queries(queries), NAMES, lambda *_: None).hits
    alone = [find_hits(gather_queries(one, NAMES), NAMES, lambda *_: None).hits for one in shards]
    rows = [row + start for hits, start in zip(alone, first, strict=True) for row in hits["row"].to_pylist()]
    assert together["row"].to_pylist() == rows
    assert together.drop_columns("row").equals(pa.concat_tables(alone).drop_columns("row"))


def test_lists_without_names_ask_for_no_url():
    (digests,) = lists_of(("md5", bytes(range(16))))
    assert gather_queries(features(), [digests]).urls == ()


def test_a_place_never_feeds_cases_and_no_seal_rule_reads_what_it_feeds():
    mixed = lists_of(("url", sha256("http://one.example/a")), (UID, sha256(b"content 1")[:16]), purpose="csam")
    assert [(item.feed, set(item.columns)) for item in mixed] == [("csam", {UID}), ("other", {"url"})]
    assert signal(features(), "list.csam.exact", mixed)[:3] == [0, 1, 0]
    with pytest.raises(PolicyError, match="names a place and no content"):
        load_policy(SEALS, source="p", known=list_signal_specs(mixed))
    load_policy(SEALS, source="p", known=list_signal_specs(lists_of((UID, bytes(range(16))), purpose="csam")))
