"""Which values of a metadata column count, and what a column is called."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.metadata import MetadataColumn

NUMBERS = MetadataColumn("punsafe")
TEXTS = MetadataColumn("NSFW", ("UNLIKELY", "UNSURE", "NSFW"), (0.0, 0.5, 1.0))
SMALLEST = 'collection = "c"\n[[input]]\nshards = "a.tar"\n[policy]\nprofile = "lists-only"\n'
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.floats()),
    st.dictionaries(st.text(), st.none()), st.decimals(), st.sampled_from(TEXTS.words),
)  # fmt: skip


@given(st.floats(0, 1) | st.integers(0, 1))
def test_a_number_from_0_to_1_is_the_score(value):
    assert NUMBERS.score(value) == value


@pytest.mark.parametrize(
    "value",
    [None, math.nan, math.inf, -math.inf, -1e-9, 1.000001, 2, 10**400, True, False, "0.5", b"1", [0], Decimal()],
)  # fmt: skip
def test_what_is_no_number_from_0_to_1_could_not_say(value):
    assert math.isnan(NUMBERS.score(value))


def test_words_have_the_scores_beside_them():
    assert [TEXTS.score(word) for word in TEXTS.words] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    "value", ["UNKNOWN", "nsfw", " NSFW", "", None, 0.5, 1, True, ["NSFW"], {"NSFW": 1}, b"NSFW"]
)
def test_a_word_without_a_score_could_not_say(value):
    assert math.isnan(TEXTS.score(value))


@given(ANYTHING, st.sampled_from([NUMBERS, TEXTS]))
def test_every_value_has_a_score_from_0_to_1_or_none(value, column):
    score = np.float32(column.score(value))
    assert np.isnan(score) or 0 <= score <= 1


def test_a_signal_is_the_lower_case_name_and_its_full_name_says_all_that_changes_it():
    others = [
        MetadataColumn("nsfw", TEXTS.words, TEXTS.scores),
        MetadataColumn("NSFW", TEXTS.words, (0.0, 0.6, 1.0)),
        MetadataColumn("NSFW", ("UNLIKELY", "UNKNOWN", "NSFW"), TEXTS.scores),
        MetadataColumn("NSFW"),
        TEXTS,
    ]
    assert {item.signal for item in others} == {"meta.nsfw"}
    assert len({item.full_name for item in others}) == len(others)
    assert all(item.full_name.startswith("meta.nsfw#") for item in others)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('column = ""', "column: expected letters"),
        ('column = "is safe"', "column: expected letters"),
        ('column = "a@1"', "column: expected letters"),
        ('column = "a"\nwords = ["x"]', "beside each word"),
        ('column = "a"\nscores = [1]', "beside each word"),
        ('column = "a"\nwords = ["x", "x"]\nscores = [0, 1]', "no word twice"),
        ('column = "a"\nwords = ["x"]\nscores = [1.5]', "from 0 to 1"),
        ('column = "a"\nwords = ["x"]\nscores = [nan]', "found nan"),
        ('colum = "a"', "did you mean 'column'"),
        ('column = "a"\n[[metadata]]\ncolumn = "A"', "two [[metadata]] tables give the signal 'meta.a'"),
    ],
)
def test_a_column_that_cannot_be_meant_is_refused(tmp_path, extra, message):
    path = tmp_path / "scrub.toml"
    path.write_text(f"{SMALLEST}[[metadata]]\n{extra}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert "scrub.toml" in str(caught.value)
