from __future__ import annotations

import os

import pytest
from scrapes import Scrape, write_plain_shards

from pipeline import runs
from pipeline.executors.inline import InlineExecutor
from pipeline.executors.protocol import WorkerOptions
from pipeline.ingest import sources
from pipeline.setup import load_setup


def test_an_interrupted_run_does_not_read_finished_inputs_again(tmp_path, monkeypatch):
    scrape = Scrape.make(tmp_path)
    write_plain_shards(scrape.shards, 2, 3)
    options = WorkerOptions(scrape.config)
    setup = load_setup(options)
    whole, digest = InlineExecutor.run, sources.digest_of

    def first_only(self, tasks, on_rows):
        yield next(whole(self, tasks, on_rows))
        raise KeyboardInterrupt

    monkeypatch.setattr(InlineExecutor, "run", first_only)
    with pytest.raises(KeyboardInterrupt):
        runs.examine_all(setup, options, workers=1, part=runs.Part())
    monkeypatch.setattr(InlineExecutor, "run", whole)
    read = []
    monkeypatch.setattr(sources, "digest_of", lambda path: read.append(path) or digest(path))
    examined = runs.examine_all(setup, options, workers=1, part=runs.Part())
    inputs = [path for path in read if path is not None and path.parent.name == "shards"]  # not the canaries
    assert (examined.done, examined.skipped, inputs) == (1, 1, [setup.sources[1].path])
    os.utime(setup.sources[0].path, ns=(1, 1))
    examined = runs.examine_all(setup, options, workers=1, part=runs.Part())
    assert (examined.done, examined.skipped) == (0, 2)
    assert setup.sources[0].path in read


def test_a_shard_is_found_by_its_name_and_no_other(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_plain_shards(scrape.shards, 3, 1)
    setup = load_setup(WorkerOptions(scrape.config))
    assert [setup.source(item.name) for item in setup.sources] == list(setup.sources)
    assert setup.source("0000") is None
    assert setup.source("99999") is None
