from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.decisions import ConservationError, prove_conservation
from manifests.records import identities_digest

OUTCOMES = st.lists(st.sampled_from(["KEEP", "REMOVE", "QUARANTINE", None]), max_size=40)


def table(outcomes, keys=None) -> pa.Table:
    return pa.table(
        {
            "index": pa.array(range(len(outcomes)), pa.int32()),
            "key": pa.array(keys or [f"k{n}" for n in range(len(outcomes))], pa.string()),
            "withheld": pa.array([action is None for action in outcomes], pa.bool_()),
            "action": pa.array(outcomes, pa.string()),
            "reason": pa.array([None] * len(outcomes), pa.string()),
        }
    )


def identities(count: int) -> str:
    return identities_digest((n, f"k{n}") for n in range(count))


@given(OUTCOMES)
def test_counts_add_up_to_the_samples(outcomes):
    tally = prove_conservation(
        table(outcomes), shard="s", samples=len(outcomes), identities=identities(len(outcomes))
    )
    assert tally.keep + tally.remove + tally.quarantine + tally.withheld == tally.samples == len(outcomes)


@given(OUTCOMES.filter(bool), st.data())
def test_a_lost_a_doubled_or_a_renamed_sample_is_found(outcomes, data):
    good = table(outcomes)
    place = data.draw(st.integers(0, len(outcomes) - 1))
    keys = good["key"].to_pylist()
    keys[place] += "x"
    broken = [
        pa.concat_tables([good.slice(0, place), good.slice(place + 1)]),
        pa.concat_tables([good, good.slice(place, 1)]),
        table(outcomes, keys),
    ]
    for each in broken:
        with pytest.raises(ConservationError, match="do not stand for"):
            prove_conservation(each, shard="s", samples=len(outcomes), identities=identities(len(outcomes)))


@pytest.mark.parametrize("action", ["SEAL", "keep", ""])
def test_an_action_outside_the_vocabulary_is_refused(action):
    with pytest.raises(ConservationError, match="neither withheld nor one of"):
        prove_conservation(table([action]), shard="s", samples=1, identities=identities(1))


def test_a_withheld_sample_that_shows_its_action_is_refused():
    shown = table(["REMOVE"]).set_column(2, "withheld", pa.array([True]))
    with pytest.raises(ConservationError, match="neither withheld nor one of"):
        prove_conservation(shown, shard="s", samples=1, identities=identities(1))
