"""Named thresholds, includes and sources of a policy."""

import numpy as np
import pytest
from policy_kit import HEAD, KNOWN, POLICY, column_set

from manifests.records import Action
from pipeline.policy import PolicyError, decide, load_policy

BASE = POLICY
MINE = """
name = "mine"
include = ["base.toml"]
required = ["minor"]
[[rule]]
id = "mine"
when = "minor >= 0.9"
action = "REMOVE"
"""


def load(text, files=(("base.toml", BASE),)):
    texts = dict(files)
    return load_policy(text, source="mine.toml", known=KNOWN, read=lambda name: texts[name])


def action_of(policy, **values):
    return Action(int(decide(policy, column_set(**values)).action[0]))


def test_an_included_policy_holds_whole_and_the_own_rules_beside_it():
    policy = load(MINE)
    assert [rule.id for rule in policy.rules] == ["listed", "mine", "both", "sexual", "plain"]
    assert policy.required == ("minor", "sexual")
    assert (policy.sensitive, len(policy.never_kept)) == (("both",), 1)
    assert BASE in policy.text
    assert MINE in policy.text


def test_an_include_cannot_be_loosened_below_what_it_promises():
    text = MINE + "[threshold]\nbar = 0.9\n"
    base = BASE.replace('sexual >= 0.45"\naction', 'sexual >= bar"\naction') + "[threshold]\nbar = 0.45\n"
    with pytest.raises(PolicyError, match="does not follow from the rules"):
        load(text, (("base.toml", base),))


def test_a_named_threshold_is_the_number_it_names_in_text_digest_and_decision():
    named = BASE.replace('sexual >= 0.45"\naction', 'sexual >= bar"\naction') + "[threshold]\nbar = 0.45\n"
    plain, other = load(BASE), load(named)
    assert other.digest == plain.digest
    assert [rule.when for rule in other.rules] == [rule.when for rule in plain.rules]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + "[threshold]\nbar = 0.45\n", ["no rule and no promise names it"]),
        (BASE.replace("0.45", "bar") + "[threshold]\nbar = true\n", ["expected a finite number"]),
        (BASE.replace("0.45", "sexual") + "[threshold]\nsexual = 0.45\n", ["no signal's"]),
        (BASE.replace("0.45", "baar") + "[threshold]\nbar = 0.45\n", ["a named threshold", "baar"]),
        (MINE.replace("base.toml", "mine2.toml"), ["more than 8 policies", "circle"]),
        (MINE.replace('"mine"\nwhen', '"both"\nwhen'), ["two rules have this id"]),
        (MINE.replace('["base.toml"]', "[]"), ["include"]),
    ],
)
def test_what_is_wrong_is_told(text, words):
    with pytest.raises(PolicyError) as caught:
        load(text, (("base.toml", BASE), ("mine2.toml", MINE.replace("base.toml", "mine2.toml"))))
    for word in words:
        assert word in str(caught.value)


SOURCES = (
    BASE.replace('sexual >= 0.45"\naction', 'sexual >= bar"\naction')
    .replace('never_kept = ["sexual >= 0.45"]', "")
    .replace("[separation]", "")
    + """
[threshold]
bar = 0.45
[[source]]
shards = ["museum-*"]
threshold = { bar = 0.8 }
"""
)


def test_a_source_has_thresholds_of_its_own():
    policy = load(SOURCES)
    values = {HEAD: 0.6}
    assert action_of(policy.of_shard("web-000"), **values) is Action.REMOVE
    assert action_of(policy.of_shard("museum-000"), **values) is Action.KEEP
    assert policy.digest != load(SOURCES.replace("0.8", "0.7")).digest


def test_a_source_must_keep_the_promises_too():
    text = SOURCES + '[separation]\nnever_kept = ["sexual >= 0.45"]\n'
    with pytest.raises(PolicyError, match=r"source 1.*does not follow"):
        load(text)


def test_a_source_cannot_name_a_threshold_that_is_not_there():
    with pytest.raises(PolicyError, match="did you mean 'bar'"):
        load(SOURCES.replace("{ bar =", "{ barr ="))


def test_every_signal_may_be_raised_under_every_source():
    policy = load(SOURCES)
    bars = np.linspace(0, 1, 21, dtype=np.float32)
    for shard in ("web", "museum-1"):
        actions = [action_of(policy.of_shard(shard), **{HEAD: bar}) for bar in bars]
        assert actions == sorted(actions)
