"""Whole shards examined in this process, by decode workers that come to the harm that an image's mark asks for."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import hostile_images as hostile
from scrapes import Scrape, write_tar

from manifests.commits import Close, ExamineCommit
from pipeline.config import DecodeConfig
from pipeline.decode import DecodeLimits, Decoder
from pipeline.examine import examine_shard
from pipeline.examiners import make_examiner
from pipeline.executors.protocol import WorkerOptions
from pipeline.settles import settle_all
from pipeline.setup import begin, load_setup

DECODE = {"max_bytes": 1 << 20, "max_pixels": 1_000_000, "memory_mb": 128, "cpu_s": 1, "wall_s": 0.6}


def make_scrape(root: Path, images: dict[str, bytes]) -> Scrape:
    """A scrape of one shard with these images by key, whose decoders may take little."""
    scrape = Scrape.make(root, decode=DECODE)
    write_tar(scrape.shards / "00000.tar", [(f"{key}.jpg", image) for key, image in images.items()])
    return scrape


def examine(scrape: Scrape) -> ExamineCommit:
    """Examine the shard with hostile workers, under the limits of the configuration."""
    setup = load_setup(WorkerOptions(scrape.config))
    begin(setup)
    decode: DecodeConfig = setup.config.decode
    known = {item.name for item in fields(DecodeLimits)}
    limits = DecodeLimits(
        **{item.name: getattr(decode, item.name) for item in fields(decode) if item.name in known}
    )
    with (
        make_examiner(setup, lambda _: None) as examiner,
        Decoder(limits, worker_command=hostile.WORKER_COMMAND) as decoder,
    ):
        (source,) = setup.sources
        return examine_shard(source, replace(examiner, decoder=decoder), settle=1)


def settle(scrape: Scrape) -> Close:
    """Settle what was examined."""
    options = WorkerOptions(scrape.config)
    close, was_there = settle_all(load_setup(options), options, workers=1)
    assert not was_there
    return close
