"""Bad input of decisions and cases: one message, exit code 2, nothing written. A publication beside a settle."""

from __future__ import annotations

import shutil

import pytest
from finished import make_finished
from in_process import call, files, message
from modelled import add_models
from scrapes import Scrape, jpeg, write_tar

from manifests.collection import Collection
from manifests.publish import PublishError, publish
from pipeline.runs import lock

GOOD = """
name = "mine"
required = ["list.csam.exact", "sexual"]
[signal.sexual]
from = ["sexual-stand-in@1"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "sexual"
when = "sexual >= 0.45"
action = "REMOVE"
[separation]
never_kept = ["sexual >= 0.45"]
"""
# What is wrong, as it was and as it is written, and what the message must say.
WRONG = {
    "a typo in a key": ("required =", "requierd =", "requierd"),
    "a typo in a signal": ("list.csam.exact >= 1", "list.csam.exat >= 1", "did you mean 'list.csam.exact'?"),
    "a typo in an action": ('"SEAL"', '"SEEL"', "SEEL"),
    "not TOML": ("[[rule]]", "[[rule]", "not TOML"),
    "a contradictory promise": (
        '["sexual >= 0.45"]',
        '["sexual >= 0.40"]',
        "a sample with sexual-stand-in@1 = 0.4",
    ),
    "another model": ("sexual-stand-in@1", "laion-nsfw-l14@1", "laion-nsfw-l14@1"),
    "a digest of another model": ('from = ["sexual-stand-in@1"]', 'from = ["sexual-stand-in@1#0000"]', "#0000"),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Scrape:
    scrape = Scrape.make(tmp_path_factory.mktemp("bars"), list=[{"id": "known"}])
    write_tar(scrape.shards / "00.tar", [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2))])
    add_models(scrape)
    (scrape.root / "policy.toml").write_text(GOOD)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape


@pytest.mark.parametrize("what", WRONG)
def test_a_policy_that_is_wrong_is_refused_and_nothing_is_written(judged, what):
    old, new, said = WRONG[what]
    assert GOOD.count(old) >= 1
    policy = judged.root / "policy.toml"
    policy.write_text(GOOD.replace(old, new))
    before = files(judged.root)
    for arguments in (("settle", judged.config), ("run", judged.config), ("policy", "check", judged.config)):
        done = call(*arguments)
        assert (done.code, said in message(done)) == (2, True), done.err
    assert files(judged.root) == before
    policy.write_text(GOOD)


@pytest.mark.parametrize(
    "recipient", ["age1nonsense", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1QQQQ", "age1" + "q" * 58, ""]
)
def test_a_wrong_recipient_is_refused_and_not_repeated(judged, recipient):
    good = judged.settings["sealed"]
    judged.settings["sealed"] = {**good, "recipients": [*good["recipients"], recipient]}
    judged.write()
    before = files(judged.root)
    done = call("settle", judged.config)
    judged.settings["sealed"] = good
    judged.write()
    assert (done.code, "[sealed] recipients[1]" in message(done)) == (2, True)
    assert not recipient or recipient not in done.err + done.out
    after = files(judged.root)
    del before["scrub.toml"], after["scrub.toml"]
    assert after == before


def test_features_of_another_model_are_not_mixed_in(judged, tmp_path):
    root = shutil.copytree(judged.root, tmp_path / "scrape")
    scrape = Scrape(root, judged.identity, dict(judged.settings))
    shutil.rmtree(root / "model")
    add_models(scrape, seed=8)  # the same names, other weights
    (root / "policy.toml").write_text(GOOD)
    before = files(scrape.collection)
    for command in ("settle", "run", "examine"):
        done = call(command, scrape.config, "--workers", 1)
        said = "holds features of another examine plan; these differ: embedder"
        assert (done.code, said in done.err) == (2, True)
    assert files(scrape.collection, but="journal") == {
        k: v for k, v in before.items() if not k.startswith("journal/")
    }


def test_nothing_is_published_beside_a_settle_that_is_at_work(tmp_path, monkeypatch):
    scrape = make_finished(tmp_path / "run")
    home, to = Collection(scrape.collection), tmp_path / "out"
    before = files(home.root)
    with lock(home, alone=True), pytest.raises(PublishError, match="another shardscrub is at work"):
        publish(home.root, to, least=1, per_withheld=1)
    with monkeypatch.context() as patch:  # a settle that closed between the reading and the writing
        closed = Collection.closed_settles
        patch.setattr("manifests.publish.draw_cover", lambda *_: settled_meanwhile(patch, closed))
        with pytest.raises(PublishError, match="another shardscrub is at work"):
            publish(home.root, to, least=1, per_withheld=1)
    assert files(home.root) == before
    assert not to.exists()
    with lock(home, alone=False):  # an examine may go on
        publish(home.root, to, least=1, per_withheld=1)
    assert (to / "uids.npy").is_file()


def settled_meanwhile(patch, closed):
    patch.setattr(Collection, "closed_settles", lambda self: [*closed(self), 99])
    return []
