"""The commands as a user types them: what they print, what they write, how they end, what they load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from in_process import call, files
from scrapes import ROOT, Scrape, jpeg, shardscrub, write_list, write_plain_shards, write_tar

from classifiers.hashes.digests import take_digests
from pipeline.config import load_config

SEALED, REMOVED = jpeg(1), jpeg(2)
PLAIN = ("status", "explain", "quarantine", "verify")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """One shard with a sample of every fate, run once."""
    scrape = Scrape.make(
        tmp_path_factory.mktemp("commands"),
        list=[
            {"id": "known"},
            {"id": "other"},
        ],
    )
    write_list(scrape.root / "lists/known.csv", [("md5", take_digests(SEALED).md5), ("pdq", bytes(range(32)))])
    write_list(scrape.root / "lists/other.csv", [("sha256", take_digests(REMOVED).sha256)])
    members = [("deep/kept.jpg", jpeg(3)), ("sealed.jpg", SEALED), ("removed.jpg", REMOVED)]
    members += [("cut.jpg", jpeg(4)[:-500]), ("bare.txt", b"no picture"), ("empty.jpg", b""), ("void.jpg", b"")]
    write_tar(scrape.shards / "a.tar", members)
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape


def counts(*pairs: tuple[str, int], width: int = 10) -> list[str]:
    return [f"{name:<{width}}{value:>12}" for name, value in pairs]


def test_status_tells_in_kept_not_kept_and_faults_and_no_more(run_of):
    done = call("status", run_of.collection)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == counts(("in", 7), ("kept", 1), ("not kept", 6), ("faults", 4))


def test_status_restricted_tells_the_exact_counts(run_of):
    lines = call("status", run_of.collection, "--restricted").out.splitlines()
    assert lines[0].startswith("settle 0001, released; decide plan ")
    parts = (("samples", 7), ("keep", 1), ("remove", 1), ("quarantine", 4), ("withheld", 1), ("faults", 4))
    assert lines[1:7] == counts(*parts, width=12)
    reasons = (("fault:empty", 2), ("fault:no_image", 1), ("fault:truncated", 1), ("rule:listed-other", 1))
    assert lines[8:-1] == [f"  {reason:<40}{count:>10}" for reason, count in reasons]
    assert lines[-1] == "all 4 canaries of the lists were found"


def test_status_before_the_first_settle_tells_how_far_it_is(run_of, tmp_path):
    scrape = Scrape.make(tmp_path)
    write_tar(scrape.shards / "a.tar", [("a.jpg", jpeg(3))])
    assert call("examine", scrape.config, "--workers", 1).code == 0
    assert call("status", scrape.collection).out == "1 shards examined, 1 samples; not settled yet\n"
    for command in (("explain", scrape.collection, "a/a"), ("quarantine", scrape.collection)):
        done = call(*command)
        assert (done.code, "nothing is settled here yet" in done.err) == (2, True)


HEAD = "(sample {} of the shard), settle 0001, policy 'lists-only'"


@pytest.mark.parametrize(
    ("key", "index", "lines"),
    [
        ("deep/kept", 0, ["action    KEEP", "because   every required signal spoke and no rule is true"]),
        ("removed", 2, ["action    REMOVE", "because   rule:listed-other (member jpg)"]),
        ("cut", 3, ["action    QUARANTINE", "because   fault:truncated (member jpg): the bytes cannot be judged;"]),
        ("bare", 4, ["action    QUARANTINE", "because   fault:no_image: nothing to judge;"]),
    ],
)
def test_explain_tells_the_action_its_reason_the_signals_and_the_rules(run_of, key, index, lines):
    done = call("explain", run_of.collection, f"a/{key}")
    assert (done.code, done.err) == (0, "")
    found = done.out.splitlines()
    assert found[0] == f"a/{key} {HEAD.format(index)}"
    for line, expected in zip(found[1:3], lines, strict=True):
        assert line.startswith(expected)
    assert [line for line in found if line.startswith("rule")] == [
        "rule      listed: SEAL when list.csam.exact >= 1 or list.csam.pdq_distance <= 31",
        "rule      listed-other: REMOVE when list.other.exact >= 1 or list.other.pdq_distance <= 31",
    ]
    signals = {line.split()[1]: line.split(" = ")[1] for line in found if line.startswith("signal")}
    spoke = {"deep/kept": "0", "removed": "0", "cut": "0", "bare": "did not speak"}
    assert signals["list.csam.exact"] == spoke[key]
    assert signals["list.other.exact"] == {"removed": "1"}.get(key, spoke[key])


def test_explain_tells_of_a_withheld_sample_only_that_it_is(run_of):
    done = call("explain", run_of.collection, "a/sealed")
    assert done.out == f"a/sealed {HEAD.format(1)}\nwithheld; ask the case owner\n"


@pytest.mark.parametrize(
    ("key", "fragment"), [("b/x", "no shard 'b'"), ("a/none", "no sample 'none'"), ("a", "no sample ''")]
)
def test_explain_of_what_is_not_there_is_a_usage_error(run_of, key, fragment):
    done = call("explain", run_of.collection, key)
    assert (done.code, fragment in done.err, done.out) == (2, True, "")


def test_quarantine_counts_by_reason_and_says_what_would_settle_each(run_of):
    lines = call("quarantine", run_of.collection).out.splitlines()
    assert lines[0] == "4 samples in quarantine"
    assert [line.split(":")[0:2] for line in lines[1:]] == [
        ["         2  fault", "empty"], ["         1  fault", "no_image"], ["         1  fault", "truncated"],
    ]  # fmt: skip
    assert all(len(line.split(": ", 1)[1]) > 20 for line in lines[1:])


def test_verify_says_what_it_checked(run_of):
    done = call("verify", run_of.collection)
    assert (done.code, done.out.splitlines()[-1]) == (0, "all files agree with each other")
    assert [line.startswith("checked  ") for line in done.out.splitlines()[:-1]] == [True] * 4


def test_verify_of_changed_files_names_them_and_ends_with_3(run_of, tmp_path):
    stray = run_of.collection / "releases/0001/more.txt"
    stray.write_text("")
    done = call("verify", run_of.collection)
    stray.unlink()
    assert done.code == 3
    assert done.err == f"error: {stray}: named by no record\n"
    assert "all files agree" not in done.out


@pytest.mark.parametrize("command", PLAIN)
def test_a_folder_that_is_no_collection_is_a_usage_error(tmp_path, command):
    key = ["a/b"] if command == "explain" else []
    done = call(command, tmp_path, *key)
    assert (done.code, "not a collection" in done.err, done.out) == (2, True, "")
    assert list(tmp_path.iterdir()) == []


def test_damaged_records_are_told_without_a_traceback(run_of):
    close = run_of.collection / "settled/0001/close.json"
    good = close.read_bytes()
    close.write_bytes(good[:-10])
    for command in (("status",), ("quarantine",), ("explain", "a/cut")):
        done = call(command[0], run_of.collection, *command[1:])
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"error: {close}: not valid JSON")
    close.write_bytes(good)


def test_init_writes_a_configuration_that_loads_and_writes_over_nothing(tmp_path):
    folder = tmp_path / "new" / "run"
    done = call("init", folder)
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["policy.toml", "scrub.toml"]
    config = load_config(folder / "scrub.toml")
    assert config.collection == folder / "collection"
    assert config.policy.file == folder / "policy.toml"
    before = files(folder)
    again = call("init", folder)
    assert (again.code, "exists already; nothing is written over" in again.err) == (2, True)
    assert files(folder) == before


def test_a_new_key_is_for_its_owner_alone_and_never_written_over(tmp_path):
    path = tmp_path / "keys" / "case.key"
    done = call("cases", "keys", "new", path)
    assert done.code == 0
    public = done.out.strip()
    lines = path.read_text().splitlines()
    assert public.startswith("age1")
    assert lines[0] == f"# public key: {public}"
    assert lines[1].startswith("AGE-SECRET-KEY-")
    assert lines[1] not in done.out + done.err
    assert path.stat().st_mode & 0o777 == 0o600
    again = call("cases", "keys", "new", path)
    assert (again.code, "a key is never written over" in again.err) == (2, True)
    assert path.read_text().splitlines() == lines


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_plain_shards(scrape.shards, shards=2, samples=4)
    before = files(tmp_path)
    done = call("run", scrape.config, "--dry-run", "--workers", 3)
    assert done.code == 0
    lines = dict(line.split(None, 1) for line in done.out.splitlines())
    assert lines["shards"] == "2 (0 missing), 3 at a time"
    assert lines["samples"] == "8"
    assert lines["list"] == "known@1: csam, 40 entries, radius 31"
    assert lines["policy"].startswith("lists-only (")
    assert lines["trial"] == "of 4 samples of shard 00000, 4 would be kept"
    assert files(tmp_path) == before
    assert not scrape.collection.exists()


def test_restricted_folders_are_for_their_owner_alone(run_of):
    modes = {name: (run_of.collection / name).stat().st_mode & 0o777 for name in ("examined", "settled", "sealed")}
    assert modes == dict.fromkeys(modes, 0o700)
    for name in ("examined", "settled", "sealed"):
        found = (path for path in (run_of.collection / name).rglob("*") if path.is_file())
        assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    found = [path for path in (run_of.collection / "releases").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o644}


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("run",),
        ("run", "x.toml", "--no-such-option"),
        ("run", "x.toml", "--workers", "-1"),
        ("run", "x.toml", "--device", "tpu"),
        ("retry", "."),
    ],
)
def test_a_mistake_on_the_command_line_ends_with_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_ends_with_2(run_of, part):
    done = call("examine", run_of.config, f"--part={part}")
    assert (done.code, f"found {part!r}" in done.err) == (2, True)


def test_a_retry_of_no_known_reason_ends_with_2(run_of):
    done = call("retry", run_of.collection, "--reasons", "truncated,bad_luck")
    assert (done.code, "'bad_luck' is no fault reason; they are missing_from_shard" in done.err) == (2, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_ends_with_130_and_the_next_run_goes_on(tmp_path, workers):
    scrape = Scrape.make(tmp_path)
    write_plain_shards(scrape.shards, shards=3, samples=120)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(scrape.config), "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as run:
        while not any(scrape.collection.glob("examined/*.json")):
            assert run.poll() is None
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err.endswith("interrupted; run again to go on from here\n")
    assert "Traceback" not in err
    assert not (scrape.collection / "releases").exists()
    done = call("run", scrape.config, "--workers", 1)
    assert (done.code, "0 were examined before" in done.out) == (0, False)
    assert call("verify", scrape.collection).code == 0


def test_the_command_prints_to_the_right_streams_in_a_process_of_its_own(run_of):
    done = shardscrub("status", run_of.collection)
    assert (done.code, done.err, len(done.out.splitlines())) == (0, "", 4)
    done = shardscrub("status", run_of.root)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
