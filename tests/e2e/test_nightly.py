"""Nights: only what is new is done, one at a time, and a scheduler is told how each stage went."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call, files, message
from prometheus_client.parser import text_string_to_metric_families
from scrapes import Command, Scrape, jpeg, write_tar

STAGES = ["lists", "find", "screen", "download", "examine", "settle", "verify", "report", "anchor"]
NIGHTLY = """
[nightly]
metrics = "metrics/shardscrub.prom"
tables = ["tables/*.parquet"]

[[nightly.lists]]
id = "partner"
files = "inbox/*"
purpose = "csam"
effect = "case"
received_from = "a partner"

[log]
origin = "example.org/nights"
key = "outside/key"
checkpoint_store = "outside/checkpoint"
"""


def make(root: Path) -> Scrape:
    scrape = Scrape.make(root, list=[{"id": "known"}, {"id": "partner"}])
    scrape.config.write_text(scrape.config.read_text() + NIGHTLY)
    for name in ("inbox", "tables"):
        (root / name).mkdir()
    assert call("keys", "new", root / "outside" / "key", "--origin", "example.org/nights").code == 0
    return scrape


def add_shards(scrape: Scrape, numbers: Iterable[int]) -> None:
    for number in numbers:
        images = {f"{number:05d}{one}": jpeg(10 * number + one, size=(96, 64)) for one in range(2)}
        write_tar(scrape.shards / f"{number:05d}.tar", [(f"{key}.jpg", data) for key, data in images.items()])


def image(number: int, one: int) -> bytes:
    return jpeg(10 * number + one, size=(96, 64))


def deliver(scrape: Scrape, name: str, images: Iterable[bytes]) -> None:
    lines = [hashlib.md5(data).hexdigest() for data in (*images, name.encode())]
    (scrape.root / "inbox" / name).write_text("\n".join(["md5", *lines, ""]))


def add_table(scrape: Scrape, name: str, rows: int = 5) -> None:
    urls = [f"https://site.test/{name}/{row}.jpg" for row in range(rows)]
    table = pa.table({"url": [*urls, "no url"], "caption": ["a hill"] * (rows + 1)})
    pq.write_table(table, scrape.root / "tables" / f"{name}.parquet")


def night(scrape: Scrape, code: int = 0) -> dict[str, tuple[object, ...]]:
    """Go through a night and return state, in, kept, not kept and faults by stage; the form of all is checked."""
    done = call("nightly", "--config", scrape.config, "--workers", 1)
    assert done.code == code, (done.out, done.err)
    return told(done)


def told(done: Command) -> dict[str, tuple[object, ...]]:
    lines = [json.loads(line) for line in done.out.splitlines()]
    names = ["stage", "state", "in", "kept", "not_kept", "faults", "seconds", "exit"]
    assert [list(line) for line in lines] == [names] * len(lines)
    assert [line["stage"] for line in lines] == STAGES[: len(lines)]
    assert [line["exit"] for line in lines] == [0] * (len(lines) - 1) + [done.code]
    return {line["stage"]: tuple(line[name] for name in names[1:6]) for line in lines}


def metrics(scrape: Scrape) -> dict[str, float]:
    text = (scrape.root / "metrics" / "shardscrub.prom").read_text()
    families = list(text_string_to_metric_families(text))
    assert all((one.type, bool(one.documentation), len(one.samples)) == ("gauge", True, 1) for one in families)
    assert not any(sample.labels for one in families for sample in one.samples)
    return {sample.name.removeprefix("shardscrub_"): sample.value for one in families for sample in one.samples}


def versions(scrape: Scrape) -> list[str]:
    return sorted(path.parent.name for path in (scrape.root / "list-store" / "partner").glob("*/manifest.json"))


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """Three nights, with ten shards, a list and a table more after the first; what each told, measured and left."""
    scrape = make(tmp_path_factory.mktemp("nights"))
    found = []
    for number in range(3):
        if number < 2:
            add_shards(scrape, range(10 * number, 10 * number + 10))
            deliver(scrape, f"2026-11-0{number + 1}.csv", [image(3, 1)] if number else [])
            add_table(scrape, f"part-{number}")
        found.append((night(scrape), metrics(scrape), files(scrape.collection), versions(scrape)))
    return scrape, found


def test_each_night_does_what_is_new_and_nothing_else(nights):
    scrape, [first, second, third] = nights
    everything = {"lists": 1, "find": 10, "examine": 10, "anchor": 1}
    for told_of, faults, kept, samples in ((first[0], 0, 20, 20), (second[0], 0, 39, 40)):
        assert {name: told_of[name] for name in everything} == {
            name: ("done", count, count, 0, 0) for name, count in everything.items()
        }
        assert told_of["screen"] == ("done", 6, 5, 1, 1)
        assert told_of["download"][0] == "skipped"
        assert told_of["settle"] == ("done", samples, kept, samples - kept, faults)
        assert told_of["verify"] == ("done", samples // 2, samples // 2, 0, 0)
        assert told_of["report"] == ("done", 3, 3, 0, 0)
    assert {name: said[0] for name, said in third[0].items()} == {
        **dict.fromkeys(STAGES, "nothing"),
        "download": "skipped",
    }
    assert third[0]["settle"][1:] == (40, 39, 1, 0)
    assert [one[3] for one in (first, second, third)] == [["0001"], ["0001", "0002"], ["0001", "0002"]]
    assert not any((scrape.root / "collection.nightly").rglob(".tmp-*"))


def test_nothing_that_was_done_is_written_again(nights):
    _, [first, second, third] = nights
    lasting = {name for name in first[2] if name.startswith(("releases/", "settled/", "sealed/", "examined/"))}
    changed = {name for name in lasting if second[2].get(name) != first[2][name]}
    # A settle that withholds more writes a commit and a sealed file for every shard, features only for its own.
    assert {name for name in changed if not name.endswith((".json", ".keyed"))} == {"examined/00003.parquet"}
    assert {name for name in third[2] if third[2][name] != second[2].get(name)} <= {"journal/config"}


def test_metrics_are_read_by_prometheus_own_parser_and_know_counts_only(nights):
    scrape, [first, second, third] = nights
    for number, (_, found, *_) in enumerate((first, second, third)):
        in_samples, kept = ((20, 20), (40, 39), (40, 39))[number]
        assert (found["in_samples"], found["kept_samples"]) == (in_samples, kept)
        assert (found["not_kept_samples"], found["fault_samples"]) == (in_samples - kept, 0)
        assert (found["examined_samples_per_second"] > 0) == (number < 2)
        assert 0 <= found["oldest_list_age_seconds"] < 3600
        assert abs(found["nightly_last_success_timestamp_seconds"] - time.time()) < 3600
        assert found["nightly_exit_code"] == 0
    assert len(third[1]) == 8
    assert (scrape.root / "metrics" / "shardscrub.prom").stat().st_mode & 0o777 == 0o644


def test_neither_lines_nor_metrics_name_anything(nights):
    scrape, _ = nights
    done = call("nightly", "--config", scrape.config, "--workers", 1)
    said = done.out + done.err + (scrape.root / "metrics" / "shardscrub.prom").read_text()
    known = [path.read_text().split()[1] for path in (scrape.root / "inbox").iterdir()]
    manifest = json.loads((scrape.root / "list-store" / "partner" / "0002" / "manifest.json").read_text())
    for word in ("http", "partner", "known", "00003", "2026-11", manifest["set_digest"], *known):
        assert word not in said, word


def test_an_overlap_is_refused_and_the_lock_dies_with_its_holder(nights, tmp_path):
    scrape, _ = nights
    before = (scrape.root / "metrics" / "shardscrub.prom").read_bytes()
    with (scrape.root / "collection.nightly" / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = call("nightly", "--config", scrape.config)
        assert (done.code, done.out) == (75, "")
        assert "another night is at work" in message(done)
        assert (scrape.root / "metrics" / "shardscrub.prom").read_bytes() == before
    night(scrape)


def test_a_version_that_was_removed_on_purpose_does_not_come_back(nights):
    scrape, _ = nights
    deliver(scrape, "2026-11-03.csv", [image(4, 0)])
    assert night(scrape)["lists"] == ("done", 1, 1, 0, 0)
    gone = ("partner", "--version", 3, "--yes", "--store", scrape.root / "list-store")
    assert call("lists", "remove", *gone).code == 0
    assert night(scrape)["lists"][0] == "nothing"
    (scrape.root / "inbox" / "2026-11-03.csv").rename(scrape.root / "inbox" / "again.csv")
    assert night(scrape)["lists"][0] == "nothing"  # known by its bytes
    assert versions(scrape) == ["0001", "0002"]


def test_a_stage_that_fails_ends_the_night_with_its_code_and_the_next_goes_on(tmp_path):
    scrape = make(tmp_path)
    add_shards(scrape, range(2))
    deliver(scrape, "1.csv", [])
    assert list(night(scrape)) == STAGES
    well = metrics(scrape)
    add_shards(scrape, [2])
    whole = (scrape.shards / "00002.tar").read_bytes()
    (scrape.shards / "00002.tar").write_bytes(whole[: len(whole) // 2])
    deliver(scrape, "2.csv", [])
    (scrape.root / "inbox" / "3.csv").write_text("md5\nno digest\n")
    failed = night(scrape, code=4)
    assert (list(failed), failed["lists"]) == (["lists"], ("failed", 0, 0, 0, 0))
    assert versions(scrape) == ["0001", "0002"]  # 2.csv came before
    (scrape.root / "inbox" / "3.csv").unlink()
    failed = night(scrape, code=4)
    assert {name: said[0] for name, said in failed.items()} == {
        **dict.fromkeys(("lists", "screen"), "nothing"),
        **dict.fromkeys(("find", "examine"), "done"),
        **{"download": "skipped", "settle": "failed"},
    }
    ill = metrics(scrape)
    assert ill["nightly_exit_code"] == 4
    assert ill["nightly_last_success_timestamp_seconds"] == well["nightly_last_success_timestamp_seconds"]
    (scrape.shards / "00002.tar").write_bytes(whole)
    mended = night(scrape)
    assert mended["settle"] == ("done", 6, 6, 0, 0)
    assert metrics(scrape)["nightly_exit_code"] == 0


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda root: (root / "inbox").rmdir(), 4, "inbox is not there; make or mount it"),
        (lambda root: (root / "collection.nightly" / "notes.json").write_text("{"), 1, "damaged; delete it"),
    ],
)
def test_what_is_wrong_with_the_surroundings_is_said(tmp_path, change, code, said):
    scrape = make(tmp_path)
    (tmp_path / "collection.nightly").mkdir()
    change(tmp_path)
    done = call("nightly", "--config", scrape.config)
    assert (done.code, said in message(done)) == (code, True), done.err
