"""One shard from end to end: inventory, digests, pixels, signals, decisions, commit. Read this first.

Owns the order of the steps. Leaves to others: `ingest/` what a sample is, `decode.py` isolation, `measure.py`
hashes and models, `verdicts.py` list matches and the policy, `commit.py` what is written in which order.

- Digests of all members are taken and joined to the lists before any decoder sees a byte, here, where a
  decoder cannot crash us.
- Before a shard is committed the canaries must be found by the same path that it took (`canary_shard.py`).
- What today's lists and policy withhold never touches the clear features; it goes to the sealed file.
- A shard whose batches do not fit in memory is measured again at half the batch, and its commit says so.
- The commit is written last. A shard without one was never examined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.signals import MIN_ROWS, BatchTooLargeError
from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.features import ShardFeatures, decode_features, replace_samples
from manifests.records import identities_digest
from manifests.schema import read
from pipeline.canary_shard import CanaryShard
from pipeline.commit import Decider, ShardFacts, commit_shard
from pipeline.config import MembersConfig
from pipeline.decode import Decoder
from pipeline.errors import InputError, RunError
from pipeline.ingest.samples import Inventory, take_inventory
from pipeline.ingest.shards import ShardSource
from pipeline.measure import digest_members, measure
from pipeline.plan import Plan
from pipeline.sheet import Models, Rows
from pipeline.stages import StageClock

MORE_MEMORY = (
    "run fewer workers at a time, give the machine or its GPU more memory, or begin a new collection with a "
    "smaller [embedder] batch or model, or with --device cpu"
)


@dataclass(frozen=True, slots=True)
class Examiner:
    """All that examining shards needs, made once for each worker."""

    collection: Collection
    plan: Plan
    members: MembersConfig
    models: Models
    decoder: Decoder
    decider: Decider
    canaries: CanaryShard
    on_rows: Callable[[int], None]
    clock: StageClock


def examine_shard(source: ShardSource, examiner: Examiner, *, settle: int) -> ExamineCommit:
    """Examine one shard and write its features, its sealed file and, last, its commit.

    A commit that is there already is that of a damaged shard whose file was replaced; it is replaced too.

    Raises:
        CanaryError: a canary was missed, so nothing that was matched here can be trusted; nothing was committed.
        RunError: not even the smallest batch fits in memory; nothing was committed.
        OSError: the shard cannot be read or the disk is full; nothing was committed.
    """
    stage = examiner.clock.stage
    with stage("inventory"):
        inventory = take_inventory(source, examiner.members)
    with stage("digests"):
        rows = digest_members(source, inventory)
    features, batch = _measure(source, rows, examiner, batch=examiner.models.batch)
    with stage("match"):
        hits = examiner.decider.match(features)
    with stage("canaries"):
        examiner.canaries.check(examiner.models, examiner.decoder, examiner.decider)
    path = examiner.collection.commit(source.name)
    with stage("write"):
        return commit_shard(
            features,
            hits,
            facts=_facts(inventory, source, batch),
            collection=examiner.collection,
            plan=examiner.plan,
            decider=examiner.decider,
            settle=settle,
            before=ExamineCommit.read(path) if path.exists() else None,
            why="restored",
            source=source.path,
        )


def retry_samples(
    source: ShardSource, examiner: Examiner, *, indices: NDArray[np.int32], commit: ExamineCommit, settle: int
) -> ExamineCommit:
    """Examine some samples of an examined shard again; the others keep their features and their place in a batch.

    Raises:
        InputError: the shard is not the one that was examined.
        CanaryError: a canary was missed; nothing was committed.
        RunError: the batch that the shard was examined with does not fit in memory; nothing was committed.
    """
    inventory = take_inventory(source, examiner.members)
    facts = _facts(inventory, source, commit.batch)
    now, then = ((each.input_sha256, each.sidecar_sha256, each.identities) for each in (facts, commit))
    if now != then:
        raise InputError(
            f"shard {source.name}: {source.path} or its sidecar is not what was examined; restore it, or examine "
            "it into a new collection"
        )
    stored = decode_features(
        read(examiner.collection.examined / commit.features.name, sha256=commit.features.sha256)
    )
    rows = digest_members(source, inventory)
    only = frozenset(indices.tolist())
    fresh, _ = _measure(source, rows, examiner, batch=commit.batch, only=only)
    features = replace_samples(stored, fresh, indices)
    hits = examiner.decider.match(features)
    examiner.canaries.check(examiner.models, examiner.decoder, examiner.decider)
    return commit_shard(
        features,
        hits,
        facts=facts,
        collection=examiner.collection,
        plan=examiner.plan,
        decider=examiner.decider,
        settle=settle,
        before=commit,
        why="retry",
        source=source.path,
    )


def _measure(
    source: ShardSource, rows: Rows, examiner: Examiner, *, batch: int, only: frozenset[int] | None = None
) -> tuple[ShardFeatures, int]:
    """Measure a shard, from the start again at half the batch as long as one does not fit; returns the batch too.

    Where `only` some samples are measured again the batch stays, for theirs are places in its batches.

    Raises:
        RunError: the smallest batch, or that of the others, does not fit in memory.
    """
    while True:
        try:
            models = examiner.models.with_batch(batch)
            tools = (models, examiner.decoder)
            features = measure(source, rows, *tools, on_rows=examiner.on_rows, only=only, clock=examiner.clock)
            return features, batch
        except BatchTooLargeError as error:
            if batch <= MIN_ROWS or only is not None:
                why = "the smallest there is" if only is None else f"and a retry takes the shard's batch of {batch}"
                raise RunError(f"shard {source.name}: {error}, {why}; {MORE_MEMORY}") from None
        batch = max(batch // 2, MIN_ROWS)


def _facts(inventory: Inventory, source: ShardSource, batch: int) -> ShardFacts:
    identities = ((sample.index, sample.key) for sample in inventory.samples)
    return ShardFacts(
        shard=source.name,
        input_sha256=inventory.sha256,
        input_size=inventory.size,
        sidecar_sha256=inventory.sidecar_sha256,
        damage=inventory.damage,
        samples=len(inventory.samples),
        identities=identities_digest(identities),
        batch=batch,
    )
