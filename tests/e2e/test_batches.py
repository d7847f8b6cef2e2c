"""Batches that do not fit in memory, and rows that a model has no number for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call, files
from modelled import add_models
from scrapes import Scrape, draw, encode, write_tar

from classifiers.signals import BatchTooLargeError
from manifests.commits import ExamineCommit
from pipeline.config import load_config
from pipeline.errors import ExitCode, RunError
from pipeline.examine import Examiner, examine_shard, retry_samples
from pipeline.examiners import make_examiner
from pipeline.executors.protocol import WorkerOptions
from pipeline.ingest.shards import find_shards
from pipeline.setup import begin, load_setup

PLANNED, LONG, SHORT = 64, 40, 10
SPOILT = 23  # a sample of the long shard


@dataclass(frozen=True)
class Tower:
    """An embedder with room for `room` views, whose rows tell their place and how many stood beside them.

    A real one's last bits may hang on both; here every bit does. The row of `blind` comes out as NaN.
    """

    room: int = PLANNED
    blind: bytes = b""
    name = "tower-stand-in@1"
    dims = 64

    def view(self, pixels):
        return np.ascontiguousarray(pixels[:8, :8])

    def embed(self, views):
        if len(views) > self.room:
            raise BatchTooLargeError(len(views))
        waves = np.cos(views.reshape(len(views), -1)[:, : self.dims] + np.arange(len(views))[:, None] / 7)
        rows = waves + len(views)
        rows[[view.tobytes() == self.blind for view in views]] = np.nan
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    def with_batch(self, batch):
        return self


@dataclass(frozen=True)
class BlindHead:
    """A head that has no number for one embedding."""

    name: str
    blind: bytes
    full_name = "head-stand-in@1#0"
    stand_in = True

    def score(self, embeddings):
        scores = np.full(len(embeddings), 0.01, np.float32)
        scores[[row.tobytes() == self.blind for row in embeddings]] = np.nan
        return scores


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A long and a short shard."""
    folder = tmp_path_factory.mktemp("shards")
    for name, count in (("long", LONG), ("short", SHORT)):
        members = [(f"{n:03d}.png", encode(draw(n, size=(64, 48)), "PNG")) for n in range(count)]
        write_tar(folder / f"{name}.tar", members)
    return folder


@contextmanager
def examining(root: Path, shards: Path, tower: Tower, batch: int = PLANNED) -> Iterator[tuple[Scrape, Examiner]]:
    """A scrape of the shards whose embedder is `tower`."""
    scrape = Scrape.make(root, input=[{"shards": str(shards / "*.tar")}])
    add_models(scrape)
    scrape.settings["embedder"]["batch"] = batch
    scrape.settings["policy"] = {"profile": "lists-only"}  # withholds nothing here, so all features are in clear
    scrape.write()
    with pytest.warns(UserWarning, match="unsafe_stand_in_models"):
        setup = load_setup(WorkerOptions(scrape.config))
    begin(setup)
    with make_examiner(setup, lambda _: None) as examiner:
        yield scrape, with_tower(examiner, tower)


def with_tower(examiner: Examiner, tower: Tower) -> Examiner:
    return replace(examiner, models=replace(examiner.models, embedder=tower))


def examine(scrape: Scrape, examiner: Examiner) -> list[ExamineCommit]:
    """Examine the long shard, then the short one."""
    sources = load_sources(scrape)
    return [examine_shard(source, examiner, settle=1) for source in sources]


def load_sources(scrape: Scrape):
    return find_shards(load_config(scrape.config).input, base=scrape.root)


def features(scrape: Scrape, commit: ExamineCommit) -> pa.Table:
    return pq.read_table(scrape.collection / "examined" / commit.features.name).replace_schema_metadata()


def blind_view(sample: int) -> bytes:
    return np.ascontiguousarray(np.asarray(draw(sample, size=(64, 48)))[:8, :8]).tobytes()


@pytest.fixture(scope="module")
def smaller(tmp_path_factory, shards) -> tuple[Scrape, ExamineCommit]:
    """What a run with a batch of 16 makes of the long shard."""
    with examining(tmp_path_factory.mktemp("smaller"), shards, Tower(), batch=16) as (scrape, examiner):
        return scrape, examine(scrape, examiner)[0]


def test_a_shard_that_does_not_fit_is_examined_in_smaller_batches_and_says_so(tmp_path, shards, smaller):
    with examining(tmp_path, shards, Tower(room=20)) as (scrape, examiner):
        long, short = examine(scrape, examiner)
        assert (long.batch, short.batch, smaller[1].batch) == (16, PLANNED, 16)
        assert features(scrape, long) == features(*smaller)
        roomy = examine_shard(load_sources(scrape)[0], with_tower(examiner, Tower()), settle=1)
        assert (roomy.batch, features(scrape, roomy) == features(*smaller)) == (PLANNED, False)
        assert examine_shard(load_sources(scrape)[0], examiner, settle=1).batch == 16
    line = f"1 shards were examined in smaller batches than the plan's {PLANNED}, for want of memory"
    assert line in call("status", scrape.collection).out
    assert call("settle", scrape.config, "--workers", 1).code == 0
    assert line in call("status", scrape.collection, "--restricted").out
    assert line not in call("status", scrape.collection).out
    verified = call("verify", scrape.collection)
    assert (verified.code, line in verified.out) == (0, True)
    assert call("run", scrape.config, "--workers", 1).out.count("nothing to do") == 1


def test_a_retry_takes_the_batches_that_the_shard_was_examined_in(tmp_path, shards, smaller):
    with examining(tmp_path, shards, Tower(20, blind_view(SPOILT))) as (scrape, examiner):
        commit, _ = examine(scrape, examiner)
        source, spoilt = load_sources(scrape)[0], np.array([SPOILT], np.int32)
        assert (commit.batch, commit.faults) == (16, 1)
        assert call("settle", scrape.config, "--workers", 1).code == 0
        rows = [row for row in scrape.decisions() if row["shard"] == "long"]
        assert [row["index"] for row in rows if row["reason"] == "fault:no_score"] == [SPOILT]
        assert rows[SPOILT]["action"] == "QUARANTINE"

        before = files(scrape.collection)
        with pytest.raises(RunError, match=r"and a retry takes the shard's batch of 16; run fewer"):
            retry_samples(source, with_tower(examiner, Tower(15)), indices=spoilt, commit=commit, settle=2)
        assert files(scrape.collection) == before

        again = retry_samples(source, with_tower(examiner, Tower()), indices=spoilt, commit=commit, settle=2)
    assert (again.batch, again.faults) == (16, 0)
    assert features(scrape, again) == features(*smaller)


def test_where_not_even_the_smallest_batch_fits_the_shard_is_left_unexamined(tmp_path, shards):
    with examining(tmp_path, shards, Tower(room=15)) as (scrape, examiner):
        before = files(scrape.collection)
        with pytest.raises(RunError) as caught:
            examine(scrape, examiner)
        assert files(scrape.collection) == before
        short = examine_shard(load_sources(scrape)[1], examiner, settle=1)
    assert caught.value.exit_code == ExitCode.FAILED
    assert str(caught.value) == (
        "shard long: a forward pass over 16 views does not fit in memory, the smallest there is; run fewer "
        "workers at a time, give the machine or its GPU more memory, or begin a new collection with a smaller "
        "[embedder] batch or model, or with --device cpu"
    )
    assert short.batch == PLANNED


def test_a_sample_that_a_head_has_no_number_for_is_quarantined_alone(tmp_path, shards, smaller):
    with examining(tmp_path, shards, Tower(), batch=16) as (scrape, examiner):
        stored = features(*smaller)["embedding"].combine_chunks().flatten().to_numpy().reshape(LONG, -1)
        heads = (BlindHead(examiner.models.heads[0].name, stored[SPOILT].tobytes()), *examiner.models.heads[1:])
        commit, _ = examine(scrape, replace(examiner, models=replace(examiner.models, heads=heads)))
    assert commit.faults == 1
    table = features(scrape, commit)
    assert table["fault"].to_pylist() == ["no_score" if row == SPOILT else None for row in range(LONG)]
    assert table["embedding"] == features(*smaller)["embedding"]
    assert table[f"score.{heads[0].name}"].null_count == 1
    assert call("settle", scrape.config, "--workers", 1).code == 0
    rows = {row["index"]: row for row in scrape.decisions() if row["shard"] == "long"}
    assert (rows[SPOILT]["action"], rows[SPOILT]["reason"]) == ("QUARANTINE", "fault:no_score")
    assert sum(row["reason"] == "fault:no_score" for row in rows.values()) == 1


@pytest.mark.parametrize("batch", [0, PLANNED + 1])
def test_a_commit_of_an_impossible_batch_fails_verification(tmp_path, shards, batch):
    with examining(tmp_path, shards, Tower()) as (scrape, examiner):
        commit, _ = examine(scrape, examiner)
    path = scrape.collection / "examined" / "long.json"
    replace(commit, batch=batch).write(path, replace=True, mode=0o600)
    verified = call("verify", scrape.collection)
    assert verified.code == ExitCode.VERIFICATION
    assert f"long.json: batch {batch}, but the plan's is {PLANNED}" in verified.out + verified.err


def test_whether_the_tower_is_compiled_is_part_of_the_plan(tmp_path, shards):
    with examining(tmp_path, shards, Tower()) as (scrape, examiner):
        examine(scrape, examiner)
    eager = examiner.plan.examine.embedder
    scrape.settings["embedder"]["compile"] = True
    scrape.write()
    refused = call("settle", scrape.config, "--workers", 1)
    assert refused.code == ExitCode.USAGE
    assert f'embedder (was "{eager}", now "{eager}/compiled")' in refused.err
