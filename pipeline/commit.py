"""How a shard's features become final: decide, withhold, write, commit, in this order.

Owns the crash safety of one shard. Used when a shard is examined, when some of its samples are tried again,
and when a later settle withholds more of it.

- Conservation: the identities in the written table are those of the inventory, or nothing is committed.
- A rewrite makes a new file, then the commit that names it, then removes the old one. A crash in between leaves
  a file that no commit names, which the next run removes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import CodeSearch, search_column
from manifests import cases, durable, schema
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.commits import ExamineCommit, FileDigest, Rewrite, SealedFile
from manifests.decisions import digest_identities
from manifests.features import ShardFeatures, encode_features, faulted_samples, withhold
from manifests.keyed import read_secret
from pipeline.errors import RunError
from pipeline.hits import entries_of
from pipeline.matching import match_shard
from pipeline.overrides import Overrides
from pipeline.plan import Plan
from pipeline.policy import Policy
from pipeline.sealing import preserve_bytes, sealed_records, sealed_stamp
from pipeline.spread import Keys, add_keyed
from pipeline.verdicts import RowMarks, RowVerdicts, SampleDecisions, decide_samples, judge_rows


@dataclass(frozen=True, slots=True)
class Decider:
    """Lists, policy, the recipients of what they withhold, and the guards against bad lists."""

    lists: tuple[HashList, ...]
    policy: Policy
    recipients: tuple[str, ...]
    max_near_hits: int
    overrides: Overrides
    search: CodeSearch = search_column
    preserve_bytes: bool = False

    def match(self, features: ShardFeatures) -> pa.Table:
        """Return the list hits of one shard by itself."""
        cancelled = entries_of(self.overrides.near, self.lists)
        return match_shard(features, self.lists, self.search, max_near_hits=self.max_near_hits, cancelled=cancelled)

    def judge(self, features: ShardFeatures, hits: pa.Table) -> RowVerdicts:
        """Judge the rows of one shard by themselves."""
        return judge_rows(features, hits, self.lists, self._policy_of(features), self.overrides)

    def decide(self, features: ShardFeatures, hits: pa.Table, marks: RowMarks | None = None) -> SampleDecisions:
        """Decide every sample of one shard from its features and hits, and what the collection leads to."""
        return decide_samples(features, hits, self.lists, self._policy_of(features), self.overrides, marks)

    def _policy_of(self, features: ShardFeatures) -> Policy:
        shard = features.table["shard"][0].as_py() if features.table.num_rows else ""
        return self.policy.of_shard(shard)


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What is known of a shard besides its features; `identities` comes from the input, not from the table.

    batch: rows of one batch, the plan's or, where that did not fit in memory, a half of it, a quarter and so on.
    """

    shard: str
    input_sha256: str | None
    input_size: int
    sidecar_sha256: str | None
    damage: str | None
    samples: int
    identities: str
    batch: int


def facts_of(commit: ExamineCommit) -> ShardFacts:
    """Return the facts that a commit recorded."""
    return ShardFacts(**{item.name: getattr(commit, item.name) for item in fields(ShardFacts)})


def commit_shard(
    features: ShardFeatures,
    hits: pa.Table,
    *,
    facts: ShardFacts,
    collection: Collection,
    plan: Plan,
    decider: Decider,
    settle: int,
    before: ExamineCommit | None = None,
    why: str = "",
    decisions: SampleDecisions | None = None,
    source: Path | None = None,
) -> ExamineCommit:
    """Write a shard's features, sealed records and commit; `before` is the commit that this one replaces.

    `hits` are the list hits of the rows, as `matching` finds them; `decisions` those of a settle. Where that
    withholds nothing more, the features stay as they are, and need not be read in full. `source` is the tar of
    the shard, where it is at hand: sealed images are copied from it if the decider preserves them.

    Raises:
        RunError: the table does not hold exactly the samples of the inventory (law of conservation).
        OSError: the disk is full; the state before holds.
    """
    for folder in (collection.examined, collection.sealed):
        durable.sweep(folder, collection.files_of(facts.shard))
    decisions = decisions or decider.decide(features, hits)
    fresh = decisions.index[decisions.withheld & (decisions.actions >= 0)]
    stays = before if why == "withhold" and not len(fresh) else None
    named = features.table.select(["index", "key"]).filter(pa.array(np.diff(features.indices(), prepend=-1) != 0))
    if digest_identities(named["index"], named["key"]) != facts.identities:
        raise RunError(f"shard {facts.shard}: its feature table does not hold exactly the samples of its inventory")
    if stays is not None:
        hidden = pq.read_schema(collection.examined / stays.features.name).remove_metadata().empty_table()
        generation, file, rows, faults = stays.generation, stays.features, stays.rows, stays.faults
    else:
        clear, hidden = withhold(encode_features(features), fresh)
        clear = clear.cast(schema.stamp(clear.schema, plan=plan.examine_digest, stamps=plan.examine.stamps))
        generation, rows = 0 if before is None else before.generation + 1, clear.num_rows
        file = _write_features(clear, collection.features_name(facts.shard, generation), collection)
        faults = len(faulted_samples(clear))
    sealed = () if before is None else before.sealed
    if decider.recipients:
        records = sealed_records(hidden, features, decisions, hits, decider.lists)
        if decider.preserve_bytes:
            records = preserve_bytes(records, source)
        records = records.cast(sealed_stamp(records.schema, plan))
        data, padded = cases.seal(records, samples=facts.samples, recipients=decider.recipients)
        name = collection.sealed_name(facts.shard, settle)
        if any(item.name == name for item in sealed):  # never write over records that only the key can read
            name = collection.sealed_name(f"{facts.shard}~{len(sealed)}", settle)
        durable.write(collection.sealed / name, data, replace=True, mode=RESTRICTED_FILE_MODE)
        sealed = (*sealed, SealedFile(name, padded))
    # Also where nothing is withheld: that the file is there says nothing.
    add_keyed(collection, facts.shard, Keys.of(features, read_secret(collection)).withheld(decisions.rows))
    commit = ExamineCommit(
        **{item.name: getattr(facts, item.name) for item in fields(ShardFacts)},
        plan=plan.examine_digest,
        stamps=plan.examine.stamps,
        rows=rows,
        faults=faults,
        withheld=int(np.count_nonzero(decisions.withheld)),
        judged_under=plan.judge_digest,
        generation=generation,
        features=file,
        sealed=sealed,
        rewrites=() if before is None else (*before.rewrites, Rewrite(why, settle)),
    )
    commit.write(collection.commit(facts.shard), replace=before is not None, mode=RESTRICTED_FILE_MODE)
    remove_unnamed(collection, commit)
    return commit


def _write_features(table: pa.Table, name: str, collection: Collection) -> FileDigest:
    data = schema.encode(table)
    durable.write(collection.examined / name, data, replace=True, mode=RESTRICTED_FILE_MODE)
    return FileDigest.of(name, data)


def remove_unnamed(collection: Collection, commit: ExamineCommit) -> None:
    """Remove feature files of a shard that its commit does not name: leftovers of an interrupted rewrite."""
    names = (collection.features_name(commit.shard, generation) for generation in range(commit.generation + 2))
    for name in names:
        if name != commit.features.name:
            (collection.examined / name).unlink(missing_ok=True)
    durable.sync_folder(collection.examined)
