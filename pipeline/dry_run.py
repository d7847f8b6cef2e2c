"""What a run would do: shards, samples, models, lists, an estimate and a sweep of thresholds. Writes nothing.

Owns the estimate: some samples of the first shard go through the real path in memory, and are forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace

from manifests.tars import index_tar
from pipeline.errors import ConfigError
from pipeline.examiners import make_examiner
from pipeline.ingest.samples import Inventory, take_inventory
from pipeline.ingest.shards import ShardSource
from pipeline.measure import digest_members, measure
from pipeline.policy_preview import sweep_scores
from pipeline.setup import Setup, settle_search

TIMED_SAMPLES = 128
COUNTED_SHARDS = 20


def describe(setup: Setup, *, workers: int) -> Iterator[str]:
    """Yield what would run, line by line."""
    plan = setup.plan
    yield "dry run: nothing is written"
    there = [source for source in setup.sources if not source.missing]
    samples, exact = _count(there)
    yield f"shards     {len(setup.sources)} ({len(setup.sources) - len(there)} missing), {workers} at a time"
    yield f"samples    {samples}{'' if exact else f' (estimated from {COUNTED_SHARDS} shards)'}"
    caps = ", ".join(f"{key} {value}" for key, value in asdict(plan.examine.decode).items())
    yield f"decoding   {caps}"
    yield f"hashes     {', '.join(plan.examine.hashes)}"
    yield f"embedder   {plan.examine.embedder or 'none'} on {plan.examine.device}"
    for head in plan.examine.heads:
        yield f"head       {head}"
    for net in plan.examine.nets:
        yield f"net        {net}"
    for text in plan.examine.texts:
        yield f"terms      {text}"
    for item in plan.decide.lists:
        yield f"list       {item.id}@{item.version}: {item.purpose}, {item.entries} entries, radius {item.radius}"
    yield f"policy     {plan.decide.policy} ({plan.decide.policy_digest[:12]})"
    yield f"signals    {', '.join(plan.decide.signals)}"
    tars = plan.decide.resize or "yes" if plan.decide.shards else "no"
    yield f"release    tars {tars}; collection {setup.collection.root}"
    if not there:
        raise ConfigError("no shard is there to time")
    yield from _trial(setup, there[0], samples, workers)


def _count(sources: list[ShardSource]) -> tuple[int, bool]:
    counted = sources[:COUNTED_SHARDS]
    found = sum(len({member.key for member in index_tar(source.opened().path).members}) for source in counted)
    exact = len(counted) == len(sources)
    return (found, True) if exact else (round(found / len(counted) * len(sources)), False)


def _trial(setup: Setup, source: ShardSource, samples: int, workers: int) -> Iterator[str]:
    inventory = _first(take_inventory(source, setup.config.members))
    decider = replace(setup.decider, search=settle_search(setup, threads=1))  # no index for so few samples
    with make_examiner(setup, lambda _: None) as examiner:
        examiner.canaries.check(examiner.models, examiner.decoder, decider)
        rows = digest_members(source, inventory)
        measure(source, rows, examiner.models, examiner.decoder, on_rows=lambda _: None)  # warms up
        began = time.perf_counter()
        features = measure(source, rows, examiner.models, examiner.decoder, on_rows=lambda _: None)
        seconds = time.perf_counter() - began
    count = len(inventory.samples)
    if not count:
        yield "estimate   none: the first shard holds no sample"
        return
    rate = count / seconds
    yield f"estimate   {rate:.1f} samples/s for one worker; about {samples / rate / workers / 60:.1f} min in all"
    decisions = decider.decide(features, decider.match(features))
    kept = int(((decisions.actions == 0) & ~decisions.withheld).sum())
    yield f"trial      of {count} samples of shard {source.name}, {kept} would be kept"
    yield from sweep_scores([features.scores])


def _first(inventory: Inventory) -> Inventory:
    return replace(inventory, samples=inventory.samples[:TIMED_SAMPLES])
