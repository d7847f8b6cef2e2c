"""Reviews: what a person's decision does to rows, and what is recorded of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_features import Row, key_of, make_features

from manifests.collection import Collection
from manifests.commits import RecordError
from manifests.lifetime import append
from manifests.records import Action
from pipeline.errors import ConfigError
from pipeline.reviews import read_reviews, record_reviews, review_marks, reviews_digest
from pipeline.verdicts import SPREAD_REASONS, RowMarks

REVIEW = SPREAD_REASONS.index("review")
FEATURES = make_features([Row(0), Row(0, content=b"second"), Row(1), Row(2)])


def entry(key, action, why="looked at"):
    return {"key": key, "action": action, "by": "A", "why": why, "on": "2027-01-31"}


def test_every_row_of_a_reviewed_sample_is_marked_and_no_other():
    marks = review_marks("s", FEATURES, {f"s/{key_of(0)}": Action.REMOVE, f"t/{key_of(1)}": Action.REMOVE})
    assert marks.actions.tolist() == [Action.REMOVE, Action.REMOVE, Action.KEEP, Action.KEEP]
    assert marks.why.tolist() == [REVIEW, REVIEW, -1, -1]
    assert not marks.withheld.any()


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.booleans()), min_size=4, max_size=4))
def test_a_review_only_tightens_and_withholds_nothing(others):
    actions = np.array([action for action, _ in others], np.int8)
    hidden = np.array([hide for _, hide in others])
    before = RowMarks(actions, hidden, np.zeros(4, np.int8))
    after = review_marks("s", FEATURES, {f"s/{key_of(1)}": Action.QUARANTINE}).joined(before)
    assert (after.actions >= actions).all()
    assert (after.withheld == hidden).all()
    assert after.actions[2] == max(actions[2], Action.QUARANTINE)


def test_the_strictest_review_of_a_sample_holds_in_whatever_order_they_came(tmp_path):
    home = Collection(tmp_path)
    for action in ("QUARANTINE", "REMOVE", "QUARANTINE"):
        append(home.reviews, [entry("s/a", action, why=action)])
    append(home.reviews, [entry("s/b", "QUARANTINE")])
    assert read_reviews(home) == {"s/a": Action.REMOVE, "s/b": Action.QUARANTINE}


def test_every_record_changes_the_digest_and_none_is_empty(tmp_path):
    home, digests = Collection(tmp_path), [""]
    assert reviews_digest(home) == ""
    for number in range(3):
        append(home.reviews, [entry(f"s/{number}", "REMOVE")])
        digests.append(reviews_digest(home))
    assert len(set(digests)) == 4


def test_a_broken_record_is_refused(tmp_path):
    home = Collection(tmp_path)
    append(home.reviews, [entry("s/a", "REMOVE"), entry("s/b", "REMOVE")])
    home.reviews.write_bytes(home.reviews.read_bytes().split(b"\n", 1)[1])
    for read in (read_reviews, reviews_digest):
        with pytest.raises(RecordError, match="line 1"):
            read(home)


@pytest.mark.parametrize("action", ["KEEP", "SEAL", "remove"])
def test_no_other_action_can_be_asked_for(tmp_path, action):
    with pytest.raises(ConfigError, match=r"\[policy\] overrides"):
        record_reviews(Collection(tmp_path), ["s/a"], action=action, by="A", why="B", on="2027-01-31")


@pytest.mark.parametrize("key", ["s", "/", "../secret", "s/a"])
def test_a_key_of_no_sample_is_told_by_its_position_alone(tmp_path, key):
    with pytest.raises(ConfigError) as error:
        record_reviews(Collection(tmp_path), [key], action="REMOVE", by="A", why="B", on="2027-01-31")
    assert str(error.value) == "KEY 1: no sample of this collection; a KEY is written shard/key"
    assert not Collection(tmp_path).reviews.exists()
