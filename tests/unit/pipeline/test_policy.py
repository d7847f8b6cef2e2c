import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from policy_kit import CHILD, HARMLESS, HEAD, INF, KNOWN, METADATA, NAN, POLICY

import pipeline
from manifests.records import Action
from pipeline.policy import (
    SHIPPED_POLICIES,
    PolicyError,
    SignalSpec,
    decide,
    explain_expression,
    load_policy,
    shipped_policy,
    thresholds,
)
from pipeline.policy_language import comparisons, parse_expression


def load(text=POLICY, known=KNOWN):
    return load_policy(text, source="drawn.toml", known=known)


def changed(old, new):
    assert POLICY.count(old) >= 1
    return POLICY.replace(old, new, 1)


def decide_one(policy, **changes):
    """Decide one sample that is harmless but for the changes."""
    values = HARMLESS | changes
    return decide(policy, {name: np.array([value], np.float32) for name, value in values.items()})


def act(policy, **changes):
    found = decide_one(policy, **changes)
    return Action(found.action[0]), policy.rules[found.rule[0]].id if found.rule[0] >= 0 else None


def up(value):
    return np.nextafter(np.float32(value), np.float32(INF))


def down(value):
    return np.nextafter(np.float32(value), np.float32(-INF))


def refused(text, *words, known=KNOWN):
    with pytest.raises(PolicyError) as caught:
        load(text, known)
    message = str(caught.value)
    assert message.startswith("drawn.toml: ")
    for word in words:
        assert word in message
    return message


# Deciding.


def test_the_first_true_rule_decides():
    policy = load()
    assert act(policy) == (Action.KEEP, None)
    assert act(policy, **{"list.csam.exact": 1, HEAD: 0.9}) == (Action.SEAL, "listed")
    assert act(policy, **{HEAD: 0.2, CHILD: 0.3}) == (Action.REMOVE, "both")
    assert act(policy, **{HEAD: 0.9}) == (Action.REMOVE, "sexual")
    assert act(policy, **{"pdq.usable": 0}) == (Action.QUARANTINE, "plain")


def test_a_score_on_the_bar_fires_and_one_float32_below_it_does_not():
    policy = load()
    assert act(policy, **{HEAD: np.float32(0.45)}) == (Action.REMOVE, "sexual")
    assert act(policy, **{HEAD: down(0.45)}) == (Action.KEEP, None)
    assert act(policy, **{"pdq.usable": 1}) == (Action.KEEP, None)
    assert act(policy, **{"pdq.usable": down(1)}) == (Action.QUARANTINE, "plain")


@pytest.mark.parametrize(
    ("when", "fires", "spares"),
    [
        ("sexual > 0.3", {HEAD: up(0.3)}, {HEAD: np.float32(0.3)}),
        ("sexual >= 1e-3", {HEAD: np.float32(1e-3)}, {HEAD: down(1e-3)}),
        ("list.csam.pdq_distance <= 31", {"list.csam.pdq_distance": 31}, {"list.csam.pdq_distance": up(31)}),
        ("list.csam.pdq_distance < 32", {"list.csam.pdq_distance": 31}, {"list.csam.pdq_distance": 32}),
        ("list.csam.pdq_distance<=0", {"list.csam.pdq_distance": 0}, {"list.csam.pdq_distance": 1}),
        ("sexual >= +.5", {HEAD: INF}, {HEAD: -INF}),
    ],
)
def test_every_operator_is_exact_at_its_bar(when, fires, spares):
    text = f'name="n"\nrequired=["list.csam.exact"]\n[signal.sexual]\nfrom=["{HEAD}"]\n'
    policy = load(f'{text}[[rule]]\nid="r"\nwhen="{when}"\naction="REMOVE"')
    assert act(policy, **fires) == (Action.REMOVE, "r")
    assert act(policy, **spares) == (Action.KEEP, None)


def test_a_bar_and_a_score_are_both_rounded_to_float32():
    stored = np.float32(0.45)
    assert float(stored) < 0.45
    assert act(load(), **{HEAD: stored}) == (Action.REMOVE, "sexual")


def test_an_unknown_rule_without_a_true_one_means_quarantine():
    policy = load()
    found = decide_one(policy, **{"list.csam.exact": NAN})
    assert found.action[0] == Action.QUARANTINE
    assert found.rule[0] == -1
    assert found.open_rules.tolist() == [[True, False, False, False]]
    assert not found.missing[0]


def test_a_true_rule_below_an_unknown_one_acts_and_the_open_rule_is_recorded():
    found = decide_one(load(), **{"list.csam.exact": NAN, HEAD: 0.9, "pdq.usable": NAN})
    assert found.action[0] == Action.REMOVE
    assert found.rule[0] == 2
    assert found.open_rules.tolist() == [[True, False, False, False]]


def test_a_required_signal_that_no_rule_needs_still_stops_a_keep():
    text = changed('required = ["sexual"]', 'required = ["sexual", "list.csam.pdq_distance"]')
    found = decide_one(load(text), **{"list.csam.pdq_distance": NAN})
    assert found.action[0] == Action.QUARANTINE
    assert found.missing[0]
    assert not found.open_rules.any()
    assert act(load(text), **{"list.csam.pdq_distance": INF}) == (Action.KEEP, None)


def test_a_missing_minor_signal_does_not_stop_sexual_content_from_being_removed():
    assert act(load(), **{HEAD: 0.9, CHILD: NAN, "caption.minor": NAN}) == (Action.REMOVE, "sexual")


def test_an_alias_is_true_once_a_known_part_reaches_the_bar():
    policy = load()
    assert act(policy, **{HEAD: 0.2, CHILD: NAN, "caption.minor": 1}) == (Action.REMOVE, "both")
    assert act(policy, **{HEAD: 0.2, CHILD: 0.5, "caption.minor": NAN}) == (Action.REMOVE, "both")


def test_an_alias_with_a_missing_part_is_unknown_where_no_known_part_reaches_the_bar():
    policy = load()
    assert act(policy, **{HEAD: 0.2, CHILD: 0.1, "caption.minor": NAN}) == (Action.QUARANTINE, None)
    assert act(policy, **{HEAD: 0.05, CHILD: 0.1, "caption.minor": NAN}) == (Action.KEEP, None)


def test_a_required_alias_has_spoken_only_when_all_its_parts_have():
    policy = load(changed('required = ["sexual"]', 'required = ["sexual", "minor"]'))
    found = decide_one(policy, **{"caption.minor": NAN})
    assert found.missing[0]
    assert found.action[0] == Action.QUARANTINE
    assert not decide_one(policy, **{"caption.minor": INF}).missing[0]


def test_inside_its_margin_a_score_says_nothing():
    policy = load(changed(f'from = ["{HEAD}"]', f'from = ["{HEAD}"]\nmargin = 0.005'))
    assert act(policy, **{HEAD: 0.448}) == (Action.QUARANTINE, None)
    assert act(policy, **{HEAD: 0.452}) == (Action.QUARANTINE, None)
    assert act(policy, **{HEAD: 0.456}) == (Action.REMOVE, "sexual")
    assert act(policy, **{HEAD: 0.444}) == (Action.KEEP, None)
    assert act(policy, **{HEAD: INF}) == (Action.REMOVE, "sexual")


def test_a_score_exactly_a_margin_away_is_outside_it():
    policy = load(
        changed("sexual >= 0.45", "sexual >= 0.5").replace(f'["{HEAD}"]', f'["{HEAD}"]\nmargin = 0.25', 1)
    )
    assert act(policy, **{HEAD: 0.75}) == (Action.REMOVE, "sexual")
    assert act(policy, **{HEAD: down(0.75)}) == (Action.QUARANTINE, None)
    text = policy.text.replace('never_kept = ["sexual >= 0.45"]', 'never_kept = ["sexual >= 0.5"]')
    text = text.replace("sexual >= 0.10 and minor >= 0.20", "sexual >= 3 and minor >= 0.20")
    assert act(load(text), **{HEAD: 0.25}) == (Action.KEEP, None)
    assert act(load(text), **{HEAD: up(0.25)}) == (Action.QUARANTINE, None)


def test_a_sensitive_rule_marks_a_sample_even_where_another_rule_acted():
    found = decide_one(load(), **{"list.csam.exact": 1, HEAD: 0.9, CHILD: 0.9})
    assert found.action[0] == Action.SEAL
    assert found.sensitive[0]
    assert not decide_one(load(), **{HEAD: 0.9}).sensitive[0]


def test_deciding_nothing_gives_empty_columns():
    policy = load()
    found = decide(policy, {name: np.zeros(0, np.float32) for name in policy.signals})
    assert found.open_rules.shape == (0, 4)
    assert found.action.dtype == np.int8
    assert found.rule.dtype == np.int16


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (None, "no column"),
        (np.zeros(2, np.float64), "float64"),
        (np.zeros((2, 1), np.float32), "2 dimensions"),
        (np.zeros(1, np.float32), "lengths [1, 2]"),
    ],
)
def test_columns_that_do_not_fit_are_refused(column, words):
    policy = load()
    columns = {name: np.zeros(2, np.float32) for name in policy.signals}
    if column is None:
        del columns[HEAD]
    else:
        columns[HEAD] = column
    with pytest.raises(PolicyError, match=re.escape(words)):
        decide(policy, columns)


# What a policy tells of itself.


def test_a_policy_names_the_signals_it_reads_with_aliases_resolved():
    policy = load()
    assert policy.signals == ("caption.minor", HEAD, "list.csam.exact", CHILD, "pdq.usable")
    assert dict(policy.full_names)[HEAD] == (f"{HEAD}#a1b2c3d4",)


def test_thresholds_come_in_the_order_of_the_rules():
    assert thresholds(load()) == (
        ("list.csam.exact", ">=", 1.0),
        ("sexual", ">=", 0.1),
        ("minor", ">=", 0.2),
        ("sexual", ">=", 0.45),
        ("pdq.usable", "<", 1.0),
    )


def test_the_digest_follows_the_meaning_and_not_the_layout():
    digest = load().digest
    same = "# why\n" + changed("sexual >= 0.45", "(sexual  >=  4.5e-1)")
    assert load(same).digest == digest
    for old, new in [
        ("sexual >= 0.45", "sexual >= 0.44"),
        ('name = "drawn"', 'name = "other"'),
        ('"minor-zero-shot@1", "caption.minor"', '"minor-zero-shot@1"'),
        (f'["{HEAD}"]', f'["{HEAD}"]\nmargin = 0.001'),
        ('rules = ["both"]', 'rules = ["sexual"]'),
        ('["sexual >= 0.45"]', '["sexual >= 0.46"]'),
    ]:
        assert load(changed(old, new)).digest != digest


def test_the_digest_is_bound_to_the_full_names_of_what_is_read():
    def renamed(name):
        return [
            SignalSpec(s.name, s.worse, ("x#1",), s.radius, s.searchable) if s.name == name else s for s in KNOWN
        ]

    assert load(known=renamed(HEAD)).digest != load().digest
    assert load(known=renamed("list.other.exact")).digest == load().digest


def test_a_policy_can_withhold_if_it_seals_or_names_sensitive_rules():
    assert load().can_withhold
    milder = changed('action = "SEAL"', 'action = "REMOVE"')
    assert load(milder).can_withhold
    assert not load(milder.replace('[sensitive]\nrules = ["both"]', "")).can_withhold


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a>=1", "a >= 1"),
        ("(a >= 0.10)", "a >= 0.1"),
        ("a >= 1 or b < 2 and c > -3", "a >= 1 or b < 2 and c > -3"),
        ("(a >= 1 or b < 2) and c > 1e-3", "(a >= 1 or b < 2) and c > 0.001"),
        ("((a >= 1) and (b < 2 and c > 3))", "a >= 1 and b < 2 and c > 3"),
        ("a >= -0", "a >= 0"),
    ],
)
def test_an_expression_has_one_text_form(text, form):
    expression = parse_expression(text, where="here")
    assert explain_expression(expression) == form
    assert parse_expression(form, where="here") == expression


# What is refused.


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("not sexual >= 0.45", ["there is no `not`", "character 1"]),
        ("sexual >= 0.45 and not minor >= 0.2", ["there is no `not`", "character 20"]),
        ("sexual", ["expected one of >=, >, <=, < after 'sexual', found the end"]),
        ("0.45 <= sexual", ["expected a signal or `(`, found '0.45' at character 1"]),
        ("sexual >= minor", ["expected a finite number or a named threshold after '>=', found 'minor'"]),
        ("sexual >= nan", ["expected a finite number or a named threshold after '>=', found 'nan'"]),
        ("sexual >= inf", ["expected a finite number or a named threshold after '>=', found 'inf'"]),
        ("sexual >= -inf", ["cannot read '-inf' at character 11"]),
        ("sexual >= 1e999", ["the bar 1e999", "float32"]),
        ("sexual >= 1e39", ["the bar 1e39", "float32"]),
        ("sexual >= 1e-60", ["the bar 1e-60", "float32"]),
        ("sexual == 0.45", ["cannot read '=='"]),
        ("sexual >= 0.45 AND minor >= 0.2", ["expected `and`, `or` or the end, found 'AND' at character 16"]),
        ("sexual >= 0.45 minor >= 0.2", ["expected `and`, `or` or the end, found 'minor'"]),
        ("(sexual >= 0.45", ["expected `and`, `or` or `)`, found the end"]),
        ("sexual >= 0.45)", ["expected `and`, `or` or the end, found ')'"]),
        ("sexual >= 0.4.5", ["cannot read '0.4.5'"]),
        ("sexual >= 0.45 or", ["expected a signal or `(`, found the end"]),
        ("sexual ≥ 0.45", ["cannot read '≥' at character 8"]),
        ("(" * 33 + "sexual >= 0.45" + ")" * 33, ["more than 32 brackets"]),
        ("  ", ["when: expected a string that is not empty"]),
        ("sexaul >= 0.45", ["expected a signal or an alias, found 'sexaul'; did you mean 'sexual'?"]),
        ("zzz >= 0.45", ["found 'zzz'; known: ", "list.csam.exact"]),
        ("sexual <= 0.45", ["a higher 'sexual' is more harm", ">= or >", "found '<='"]),
        ("list.csam.pdq_distance >= 31", ["a lower 'list.csam.pdq_distance' is more harm", "<= or <"]),
        ("pdq.usable >= 1", ["a lower 'pdq.usable' is more harm"]),
        ("list.csam.pdq_distance <= 32", ["up to a distance of 31", "<= 31"]),
        ("list.csam.pdq_distance < 32.5", ["up to a distance of 31"]),
    ],
)
def test_an_expression_that_says_nothing_sound_is_refused(when, words):
    refused(changed("sexual >= 0.45", when), "drawn.toml: rule", *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name =", "nmae =", ["found 'nmae'; did you mean 'name'?"]),
        ('name = "drawn"', "", ["expected the key 'name'"]),
        ('name = "drawn"', "name = 3", ["name: expected a string", "found 3"]),
        ('name = "drawn"', "name = ", ["not TOML", "line 2"]),
        ('required = ["sexual"]', "required = []", ["required: expected a list of strings that is not empty"]),
        ('required = ["sexual"]', 'required = ["sexual", "sexual"]', ["different strings"]),
        ('required = ["sexual"]', "required = [1]", ["required: expected a string", "found 1"]),
        ('required = ["sexual"]', 'required = ["sexul"]', ["required", "did you mean 'sexual'?"]),
        ('id = "plain"', 'id = "sexual"', ["rule 'sexual'", "two rules have this id"]),
        ("when =", "wen =", ["rule 1", "found 'wen'; did you mean 'when'?"]),
        ('action = "SEAL"', "", ["rule 1: expected the key 'action'"]),
        ('action = "SEAL"', 'action = "KEEP"', ["rule 'listed'", "no rule can grant KEEP"]),
        ('action = "SEAL"', 'action = "REMOV"', ["rule 'listed'", "did you mean 'REMOVE'?"]),
        ('rules = ["both"]', 'rules = ["bth"]', ["[sensitive] rules", "did you mean 'both'?"]),
        ('rules = ["both"]', "rules = []", ["[sensitive] rules", "not empty"]),
        ('rules = ["both"]', 'rule = ["both"]', ["[sensitive]", "did you mean 'rules'?"]),
        ("[separation]", "[seperation]", ["did you mean 'separation'?"]),
        ('never_kept = ["sexual >= 0.45"]', "never_kept = []", ["[separation] never_kept", "not empty"]),
        (
            'never_kept = ["sexual >= 0.45"]',
            'never_kept = ["sexual"]',
            ["[separation] never_kept", "found the end"],
        ),
        ("[signal.minor]", "[signal.not]", ["[signal.not]", "a name that rules can use"]),
        ("[signal.minor]", '[signal."caption.minor"]', ["[signal.caption.minor]", "no known signal's"]),
        ("[signal.minor]", "[signal.a.b]", ["[signal.a]", "found 'b'"]),
        ('"caption.minor"]', '"caption.mino"]', ["[signal.minor] from", "did you mean 'caption.minor'?"]),
        ('"caption.minor"]', '"minor-zero-shot@1#00"]', ["[signal.minor] from", "stands there twice"]),
        ('"caption.minor"]', '"list.csam.pdq_distance"]', ["[signal.minor] from", "rule of its own"]),
        ('"caption.minor"]', '"sexual"]', ["[signal.minor] from: expected a known signal, found 'sexual'"]),
        (f'["{HEAD}"]', f'["{HEAD}#ffff"]', ["[signal.sexual] from", f"{HEAD}#ffff", f"{HEAD}#a1b2c3d4"]),
        (f'["{HEAD}"]', f'["{HEAD}#"]', ["[signal.sexual] from", f"{HEAD}#a1b2c3d4"]),
        (f'["{HEAD}"]', '["laion-nsfw-l14@2"]', ["[signal.sexual] from", f"did you mean '{HEAD}'?"]),
        (f'["{HEAD}"]', f'["{HEAD}"]\nmargin = -0.1', ["[signal.sexual] margin", "found -0.1"]),
        (f'["{HEAD}"]', f'["{HEAD}"]\nmargin = nan', ["[signal.sexual] margin", "found nan"]),
        (f'["{HEAD}"]', f'["{HEAD}"]\nmargin = true', ["[signal.sexual] margin", "found True"]),
        (f'["{HEAD}"]', f'["{HEAD}"]\nmargn = 0.1', ["[signal.sexual]", "did you mean 'margin'?"]),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_its_place(old, new, words):
    refused(changed(old, new), *words)


@pytest.mark.parametrize("rules", ["", "rule = []", 'rule = "none"', "rule = [1]"])
def test_a_policy_without_rules_is_refused(rules):
    refused(f'name = "n"\nrequired = ["{HEAD}"]\n{rules}', "rule")


def test_a_digest_that_fits_the_known_full_name_is_accepted():
    policy = load(changed(f'["{HEAD}"]', f'["{HEAD}#a1b2"]'))
    assert policy.digest == load().digest


def test_a_milder_rule_above_a_stricter_one_is_refused_and_both_are_named():
    text = changed('action = "REMOVE"', 'action = "QUARANTINE"')
    refused(text, "rule 'both' (QUARANTINE) stands above rule 'sexual' (REMOVE)", "move 'sexual' above 'both'")


def test_a_required_list_without_entries_is_refused_and_the_list_is_named():
    text = changed('required = ["sexual"]', 'required = ["list.other.pdq_distance"]')
    refused(text, "'list.other.pdq_distance' can never speak", "purpose 'other'", "PDQ hashes")
    text = changed('required = ["sexual"]', 'required = ["list.other.exact"]')
    refused(text, "purpose 'other'", "file digests")


def test_a_required_alias_of_a_list_without_entries_is_refused():
    text = changed('"caption.minor"]', '"list.other.exact"]').replace('["sexual"]', '["sexual", "minor"]', 1)
    refused(text, "'list.other.exact' can never speak")


def test_a_list_without_entries_may_be_mentioned_by_a_rule():
    policy = load(changed("list.csam.exact >= 1", "list.csam.exact >= 1 or list.other.pdq_distance <= 31"))
    assert act(policy) == (Action.KEEP, None)


@pytest.mark.parametrize(
    ("promise", "example"),
    [
        ("sexual >= 0.44", f"{HEAD} = 0.44"),
        ("sexual >= 0.10", f"{HEAD} = 0.1"),
        ("sexual > 0", f"{HEAD} = 1e-45"),
        ("sexual >= 0.10 and minor >= 0.19", f"{HEAD} = 0.1, {CHILD} = 0.19"),
        ("sexual >= 0.45 or minor >= 0.9", f"{CHILD} = 0.9"),
        ("pdq.usable <= 1", "pdq.usable = 1.0"),
    ],
)
def test_a_promise_that_does_not_follow_is_refused_with_a_sample_that_would_be_kept(promise, example):
    text = changed('never_kept = ["sexual >= 0.45"]', f'never_kept = ["sexual >= 0.45", "{promise}"]')
    refused(text, "[separation] never_kept", "does not follow from the rules", example)


@pytest.mark.parametrize(
    "promise",
    [
        "sexual >= 0.45",
        "sexual > 0.45",
        "sexual >= 0.10 and minor >= 0.20",
        "sexual >= 0.10 and caption.minor >= 1",
        "sexual >= 0.3 and sexual >= 0.5",
        "pdq.usable < 1",
        "pdq.usable <= 0.5 or list.csam.exact > 0.9999999999",
        "minor >= 0.9 and (sexual >= 0.45 or laion-nsfw-l14@1 >= 0.2)",
    ],
)
def test_a_promise_that_follows_is_accepted(promise):
    policy = load(changed('never_kept = ["sexual >= 0.45"]', f'never_kept = ["{promise}"]'))
    assert len(policy.never_kept) == 1


def test_a_margin_counts_as_not_kept_in_the_proof():
    wide = changed(f'["{HEAD}"]', f'["{HEAD}"]\nmargin = 0.05')
    promise = 'never_kept = ["sexual >= 0.41"]'
    assert load(wide.replace('never_kept = ["sexual >= 0.45"]', promise))
    refused(changed('never_kept = ["sexual >= 0.45"]', promise), f"{HEAD} = 0.41")


def test_a_margin_does_not_widen_a_promise():
    text = changed(f'["{HEAD}"]', f'["{HEAD}"]\nmargin = 0.05').replace(
        'when = "sexual >= 0.45"', f'when = "{HEAD} >= 0.45"'
    )
    found = decide_one(load(text), **{HEAD: 0.44})
    assert found.action[0] == Action.KEEP
    assert not found.breaks_promise[0]


def test_a_promise_may_not_lean_on_scores_being_above_zero():
    text = changed('when = "sexual >= 0.45"', 'when = "sexual >= 0.45 and caption.minor >= 0"')
    refused(text, "does not follow from the rules", f"{HEAD} = 0.45")


def test_a_kept_sample_of_which_a_promise_is_unknown_is_reported():
    promise = parse_expression("minor >= 0.9", where="here")
    unproved = dataclasses.replace(load(), never_kept=(promise,))
    assert decide_one(unproved, **{CHILD: NAN}).breaks_promise[0]
    assert decide_one(unproved, **{CHILD: 0.95}).breaks_promise[0]
    assert not decide_one(unproved, **{CHILD: 0.5}).breaks_promise[0]
    assert not decide_one(unproved, **{CHILD: NAN, HEAD: 0.9}).breaks_promise[0]


def test_a_promise_with_too_many_alternatives_is_refused_in_time():
    promise = " and ".join(["(sexual >= 0.45 or minor >= 0.9)"] * 40)
    refused(changed('["sexual >= 0.45"]', f'["{promise}"]'), "never_kept", "more than 4096 alternatives")


# The shipped policies.


def shipped(name):
    return load_policy(shipped_policy(name), source=f"{name}.toml", known=KNOWN + METADATA)


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_every_shipped_policy_loads_and_carries_its_name(name):
    assert shipped(name).name == name


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_in_every_shipped_policy_only_hash_lists_make_cases(name):
    for rule in shipped(name).rules:
        if rule.action == Action.SEAL:
            assert {one.signal for one in comparisons(rule.when)} <= {"list.csam.exact", "list.csam.pdq_distance"}


def test_every_policy_in_the_folder_is_named_as_shipped():
    folder = Path(pipeline.__file__).parent / "policies"
    assert {str(path.relative_to(folder))[:-5] for path in folder.rglob("*.toml")} == set(SHIPPED_POLICIES)


def test_an_unknown_shipped_policy_is_refused_with_the_nearest_name():
    with pytest.raises(PolicyError, match="did you mean 'separation'"):
        shipped_policy("seperation")


@pytest.mark.parametrize(
    ("changes", "separation", "strict", "lists"),
    [
        ({}, "KEEP", "KEEP", "KEEP"),
        ({"list.csam.pdq_distance": 31}, "SEAL", "SEAL", "SEAL"),
        ({"list.other.exact": 1}, "REMOVE", "REMOVE", "REMOVE"),
        ({HEAD: 0.2}, "KEEP", "REMOVE", "KEEP"),
        ({HEAD: 0.2, CHILD: 0.2}, "REMOVE", "REMOVE", "KEEP"),
        ({HEAD: 0.45}, "REMOVE", "REMOVE", "KEEP"),
        ({HEAD: 0.45, CHILD: NAN}, "REMOVE", "REMOVE", "KEEP"),
        ({HEAD: NAN}, "QUARANTINE", "QUARANTINE", "KEEP"),
        ({CHILD: NAN}, "QUARANTINE", "QUARANTINE", "KEEP"),
        ({"list.csam.pdq_distance": NAN}, "QUARANTINE", "QUARANTINE", "QUARANTINE"),
        ({"pdq.usable": 0}, "KEEP", "QUARANTINE", "KEEP"),
    ],
)
def test_the_shipped_policies_decide_as_they_say(changes, separation, strict, lists):
    actions = [act(shipped(name), **changes)[0].name for name in ("separation", "separation-strict", "lists-only")]
    assert actions == [separation, strict, lists]


@pytest.mark.parametrize("name", ["separation", "separation-strict"])
def test_a_possible_child_beside_sexual_content_is_sensitive_under_the_separation_policies(name):
    found = decide_one(shipped(name), **{HEAD: 0.9, CHILD: 0.9})
    assert found.sensitive[0]
    assert shipped(name).can_withhold
