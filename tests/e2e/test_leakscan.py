"""The command `leakscan`, the scan inside a run, who may read each file, and what is left of a withheld sample."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from in_process import call, message
from leak_kit import SEEDS, caption_of, change, make_scrape, make_settled, url_of
from modelled import add_models
from scrapes import Scrape, jpeg, outputs, write_list, write_tar

from manifests.cases import open_sealed

MANIFEST = "releases/0001/manifest/00.parquet"


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    return make_settled(tmp_path_factory.mktemp("leakscan"))


@pytest.fixture
def copy(settled, tmp_path) -> Path:
    shutil.copytree(settled.collection, tmp_path / "copy")
    return tmp_path / "copy"


def test_leakscan_says_what_it_joined(settled):
    done = call("leakscan", settled.collection)
    assert (done.code, done.err) == (0, "")
    assert done.out == "release 0001: 3 kept samples joined with 5 not kept, no leak found\n"


def test_a_leak_ends_with_exit_code_3_and_names_file_and_row_only(copy):
    change(copy / MANIFEST, "url", 0, url_of("withheld"))
    done = call("leakscan", copy)
    assert done.code == 3
    assert f"{copy / MANIFEST}: row 0 has in url" in message(done)
    assert url_of("withheld") not in done.err + done.out
    assert call("verify", copy).code == 3


def test_without_a_release_there_is_nothing_to_scan(tmp_path):
    scrape = make_scrape(tmp_path, release={"max_fault_share_shard": 0.0})
    assert call("run", scrape.config, "--workers", 1).code == 4
    done = call("leakscan", scrape.collection)
    assert done.code == 1
    assert "no closed release" in message(done)


def test_a_settle_that_would_release_a_leak_does_not_close(tmp_path, monkeypatch):
    scrape = make_settled(tmp_path)
    home = scrape.collection
    good = (home / MANIFEST).read_bytes()
    before = outputs(home, scrape.identity)
    shutil.rmtree(home)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.settles.close_settle", stop)  # killed just before the close
        assert call("run", scrape.config, "--workers", 1).code == 130
    change(home / MANIFEST, "caption", 1, caption_of("removed"))
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 1
    assert f"{home / MANIFEST}: row 1 has in caption" in message(done)
    assert "nothing was released" in done.err
    assert caption_of("removed") not in done.err + done.out
    assert not (home / "settled/0001/close.json").exists()
    assert not (home / "current").exists()
    (home / MANIFEST).write_bytes(good)
    assert call("settle", scrape.config, "--workers", 1).code == 0
    assert outputs(home, scrape.identity) == before


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
def test_who_may_read_a_file_is_said_by_its_tier_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        scrape = make_settled(tmp_path / "run")
        write_list(scrape.root / "lists/known.csv", [("md5", hashlib.md5(jpeg(SEEDS["kept"])).digest())])
        for arguments in (("settle", scrape.config), ("retry", scrape.collection, "--reasons", "truncated")):
            done = call(*arguments, "--workers", 1)
            assert done.code == 0, done.err
    finally:
        os.umask(before)
    home = scrape.collection
    modes = {path.relative_to(home).as_posix(): path.stat().st_mode & 0o777 for path in home.rglob("*")}
    public = {name for name in modes if name == "current" or name.split("/")[0] == "releases"}
    assert {modes[name] for name in public if (home / name).is_file()} == {0o644}
    assert {modes[name] for name in public if (home / name).is_dir()} == {0o755}
    closed = {name: mode for name, mode in modes.items() if name not in public}
    assert closed.keys() >= {"secret", "examine_plan.json", "examined/00.json", "examined/01.keyed", "journal/lock"}
    assert any(name.endswith(".age") for name in closed)
    for name, mode in closed.items():
        assert mode == (0o700 if (home / name).is_dir() else 0o600), name


DIGEST = r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}"
WORDS = {
    "first 16 bytes of the sha256 of the first image's bytes",
    "Says what was done, not that the data are clean, safe or compliant: classifiers miss, lists are incomplete.",
}
COUNTS = {"number", "shards", "in", "kept", "not_kept", "faults"}
FIELDS = {"summary.json": COUNTS | {"uid", "examine_plan", "decide_plan", "stamps", "note"}}


def strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for item in value.values() for text in strings(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in strings(item))
    elif isinstance(value, str):
        yield value


def test_a_release_has_no_field_for_free_text(settled):
    release = settled.collection / "releases/0001"
    assert {path.name for path in release.glob("*.json")} == set(FIELDS)
    for name, fields in FIELDS.items():
        record = json.loads((release / name).read_bytes())
        assert set(record) == fields
        for text in strings(record):
            assert text in WORDS or re.fullmatch(DIGEST, text), (name, text)
    plan = json.loads((release / "summary.json").read_bytes())["decide_plan"]
    for path in release.glob("manifest/*.parquet"):
        metadata = pq.read_schema(path).metadata
        assert set(metadata) == {b"shardscrub"}
        assert json.loads(metadata[b"shardscrub"]) == {"schema": 1, "plan": plan, "stamps": []}


LINES = (
    r"examine plan [0-9a-f]{12}, decide plan [0-9a-f]{12}",
    r"examined \d+ (shards; \d+ were examined before|samples again)",
    r"(examine|judge|settle): \d+/\d+ shards, \d+ rows, [\d.]+/s, \d+ s left",
    r"(in|kept|not kept|faults) +\d+",
    r"nothing to do: settle \d{4} stands for this input, these lists and this policy",
    r"release +PLACE/releases/\d{4}",
    r"release \d{4}: \d+ kept samples joined with \d+ not kept, no leak found",
)


def test_every_line_of_a_run_is_of_a_fixed_form(settled):
    done = [call("run", settled.config, "--workers", 1), call("settle", settled.config, "--workers", 1)]
    done += [call("status", settled.collection), call("leakscan", settled.collection)]
    for line in (
        "".join(item.out + item.err for item in done).replace(str(settled.collection), "PLACE").splitlines()
    ):
        assert any(re.fullmatch(form, line) for form in LINES), line


def test_no_verb_names_what_was_not_kept_but_explain_for_a_key_that_is_given(settled):
    home, config = settled.collection, settled.config
    calls = [
        ("policy", "check", config),
        ("policy", "preview", config),
        ("models", "list"),
        ("status", home, "--restricted"),
        ("quarantine", home),
        ("explain", home, "00/kept"),
        ("explain", home, "01/nothing"),
        ("explain", home, "02/nothing"),
        ("leakscan", home),
        ("verify", home),
        ("run", config, "--dry-run"),
    ]
    printed = "".join(done.out + done.err for done in (call(*arguments) for arguments in calls))
    for key in ("removed", "withheld", "aside"):
        for mark in (url_of(key), caption_of(key), hashlib.sha256(jpeg(SEEDS[key])).hexdigest()):
            assert mark not in printed
    assert not re.search(r"\b0[01]/(removed|withheld|aside|cut|twice)\b", printed)
    explained = call("explain", home, "00/removed").out
    assert "rule:word" in explained
    assert url_of("removed") not in explained
    assert caption_of("removed") not in explained
    withheld = call("explain", home, "01/withheld").out
    assert withheld.splitlines()[1:] == ["withheld; ask the case owner"]


@pytest.fixture(scope="module")
def modelled(tmp_path_factory) -> tuple[Scrape, dict[str, object]]:
    """A run with an embedder in which a list names one picture; with the sealed record of that one."""
    scrape = Scrape.make(tmp_path_factory.mktemp("withheld"), list=[{"id": name} for name in ("csam", "other")])
    add_models(scrape)
    members = []
    for number in range(8):
        about = {"url": f"http://example.invalid/url-{number}.jpg", "caption": f"caption number {number}"}
        members += [(f"k{number}.jpg", jpeg(number)), (f"k{number}.json", json.dumps(about).encode())]
    write_tar(scrape.shards / "00.tar", members)
    write_list(scrape.root / "lists/other.csv", [("md5", hashlib.md5(jpeg(3)).digest())])
    write_list(
        scrape.root / "lists/csam.csv", [("sha1", hashlib.sha1(jpeg(5)).digest()), ("pdq", bytes(range(32)))]
    )
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    (row,) = scrape.sealed()
    assert (row["key"], row["action"]) == ("k5", "SEAL")
    return scrape, row


def test_of_a_withheld_sample_no_embedding_code_digest_url_or_caption_is_in_clear(modelled):
    scrape, row = modelled
    vector = np.array(row["embedding"], np.float32)
    codes = [value for name, value in row.items() if name.startswith("pdq:") and isinstance(value, bytes)]
    code = np.concatenate([np.frombuffer(value, np.uint8).reshape(-1, 32) for value in codes])
    texts = [row["url"].encode(), row["caption"].encode()]
    digests = [row[name] for name in ("md5", "sha1", "sha256")]
    plain = [*texts, vector.astype(np.float16).tobytes(), vector.tobytes(), *(bytes(one) for one in code)]
    needles = [*plain, *(form for value in digests for form in (value, value.hex().encode(), value[:16]))]
    rows = 0
    for path in sorted(scrape.collection.rglob("*")):
        if path.is_dir() or path.suffix == ".age":
            continue
        data = path.read_bytes()
        assert not any(needle in data for needle in needles), path
        if path.suffix != ".parquet":
            continue
        table = pq.read_table(path)
        for name in table.column_names:
            values = [value for value in table[name].to_pylist() if value is not None]
            if name == "embedding" and values:
                matrix = np.array(values, np.float32)
                lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
                assert float((matrix @ vector / lengths).max()) < 0.99
                rows += len(values)
            elif name.startswith("pdq:") and values and isinstance(values[0], bytes):
                other = np.frombuffer(b"".join(values), np.uint8).reshape(-1, 1, 32)
                assert int(np.bitwise_count(other ^ code[None]).sum(axis=2, dtype=np.int64).min()) > 31
            elif values and isinstance(values[0], (str, bytes)):
                found = {value.encode() if isinstance(value, str) else value for value in values}
                assert found.isdisjoint([*texts, *digests, digests[2][:16]])
    assert rows == 7  # the same search did see the others
    sealed = open_sealed(
        next((scrape.collection / "sealed").glob("*.age")).read_bytes(), identity=scrape.identity, source="x"
    )
    assert sealed["embedding"][0].as_py() == row["embedding"]
