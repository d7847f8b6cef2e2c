"""All shards of a collection to one release, from stored features only.

Owns the order at the end: per shard decisions, conservation, manifest, filtered tar, commit; then totals, uids,
summaries, close, `current`. Needs no model and touches no pixel.

- Nothing appears under `releases/` unless the bounds on faults and damage hold; a refused settle still has one
  decision for every sample.
- Each step is found done or done again; a crash between any two goes on there.
- A sample that today's lists or policy withhold leaves the clear features first (see `commit.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests import durable, schema
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.commits import ExamineCommit, FileDigest, RecordError, Rewrite, SettleCommit
from manifests.contents import content_columns
from manifests.decisions import prove_conservation
from manifests.features import ShardFeatures, decode_features
from manifests.records import Action
from pipeline.around import around_marks
from pipeline.commit import Decider, commit_shard, facts_of, remove_unnamed
from pipeline.config import MembersConfig
from pipeline.errors import ConfigError
from pipeline.hits import follow_rows
from pipeline.ingest.shards import ShardSource
from pipeline.kept_tars import Encode, write_tar
from pipeline.plan import Plan
from pipeline.reviews import review_marks
from pipeline.spread import Keys, Spread, working, write_judged
from pipeline.verdicts import RowMarks, SampleDecisions, blank_withheld

# What neither a manifest nor a decision needs, and what is not needed either to judge a shard for others.
_NOT_RELEASED = frozenset({"embedding", schema.CODES, "metadata", "md5", "sha1", "hash_source"})
_NOT_JUDGED = _NOT_RELEASED | {"url", "caption", "offset", "size", "format", "width", "height"}
NOT_MATCHED = frozenset({"embedding"})


@dataclass(frozen=True, slots=True)
class Settler:
    """All that settling shards needs; `release` is False when the bounds refuse one. encode: the images of tars.

    around, hides: what was found around seeds, and whether any sample of the collection is to be withheld.
    """

    collection: Collection
    plan: Plan
    members: MembersConfig
    decider: Decider
    number: int
    release: bool
    with_tars: bool
    spread: Spread
    secret: bytes
    around: Mapping[str, Sequence[tuple[int, int, bool]]]
    hides: bool
    reviews: Mapping[str, Action]
    encode: Encode | None

    def own_marks(self, shard: str, features: ShardFeatures) -> RowMarks:
        """Return what people, and exact list hits nearby, lead to for the rows of a shard."""
        around = around_marks(features, self.around.get(shard, ()))
        return review_marks(shard, features, self.reviews).joined(around)

    def marks(self, shard: str, features: ShardFeatures, keys: Keys) -> RowMarks:
        """Return what the collection, and people, lead to for the rows of a shard."""
        return self.own_marks(shard, features).joined(keys.marks(self.spread))


def read_commit(collection: Collection, shard: str, plan: Plan) -> ExamineCommit:
    """Read the commit of an examined shard.

    Raises:
        ConfigError: it was examined under another plan; features of two plans are never mixed.
    """
    commit = ExamineCommit.read(collection.commit(shard))
    if commit.plan != plan.examine_digest:
        raise ConfigError(
            f"shard {shard} was examined under plan {commit.plan[:12]}, the configuration resolves to plan "
            f"{plan.examine_digest[:12]}; restore the configuration ({collection.examine_plan.name} shows the old "
            "plan) or name a new collection"
        )
    return commit


def settle_shard(shard: str, source: ShardSource | None, hits: pa.Table, settler: Settler) -> SettleCommit:
    """Decide one shard and write its part of the settle and of the release; its commit comes last.

    `hits` are the list hits of its rows as they are stored now (`settle_matches`).

    Raises:
        ConservationError: a sample would have no decision, or two.
        InputError: the shard's tar is needed for the release and is missing or changed.
    """
    collection = settler.collection
    commit = read_commit(collection, shard, settler.plan)
    remove_unnamed(collection, commit)
    folder = collection.settled(settler.number) / "decisions"
    done = _already_done(folder / f"{shard}.json", commit, settler)
    if done is not None:
        return done
    features = load_features(collection, commit, without=_NOT_RELEASED)
    marks = settler.marks(shard, features, Keys.of(features, settler.secret))
    decisions = settler.decider.decide(features, hits, marks)
    # The hit cap counts anew over the collection: what a shard by itself left to quarantine may be withheld now.
    fresh = decisions.withheld & (decisions.actions >= 0)
    # Where one shard seals something every shard does, or the number of its files would tell.
    sealed = any(one == Rewrite("withhold", settler.number) for one in commit.rewrites)
    stale = commit.judged_under != settler.plan.judge_digest
    if stale or fresh.any() or (settler.hides and not sealed):
        commit = commit_shard(
            load_features(collection, commit) if fresh.any() else features,
            hits,
            facts=facts_of(commit),
            collection=collection,
            plan=settler.plan,
            decider=settler.decider,
            settle=settler.number,
            before=commit,
            why="withhold",
            decisions=decisions,
            source=source.path if source is not None and settler.decider.preserve_bytes and fresh.any() else None,
        )
    if fresh.any():
        stored, features = features, load_features(collection, commit, without=_NOT_RELEASED)
        hits = follow_rows(hits, stored, features)
        marks = settler.marks(shard, features, Keys.of(features, settler.secret))
        decisions = settler.decider.decide(features, hits, marks)
    table = blank_withheld(decisions)
    tally = prove_conservation(table, shard=shard, samples=commit.samples, identities=commit.identities)
    durable.make_folder(folder, mode=RESTRICTED_FOLDER_MODE)
    durable.sweep(folder, collection.files_of(shard))
    written = _write_table(table, folder / f"{shard}.parquet", settler, mode=RESTRICTED_FILE_MODE)
    manifest, tar = _write_release(shard, source, commit, features, decisions, settler)
    record = SettleCommit(
        shard=shard,
        plan=settler.plan.decide_digest,
        stamps=settler.plan.stamps,
        samples=tally.samples,
        identities=commit.identities,
        keep=tally.keep,
        remove=tally.remove,
        quarantine=tally.quarantine,
        withheld=tally.withheld,
        # Counted where nothing else decides: else one that is missing in the count would be a withheld sample's.
        faults=sum(count for why, count in tally.reasons.items() if why.startswith("fault:")),
        reasons=tally.reasons,
        examined=hashlib.sha256(commit.encode()).hexdigest(),
        matched=hits.num_rows > 0,
        decisions=written,
        manifest=manifest,
        tar=tar,
    )
    record.write(folder / f"{shard}.json", replace=True, mode=RESTRICTED_FILE_MODE)
    return record


def judge_shard(shard: str, hits: pa.Table, settler: Settler) -> int:
    """Judge one shard by itself, for what follows for others; return how many samples it has."""
    commit = read_commit(settler.collection, shard, settler.plan)
    features = load_features(settler.collection, commit, without=_NOT_JUDGED)
    rows = settler.decider.judge(features, hits).content().joined(settler.own_marks(shard, features))
    path = working(settler.collection, settler.number) / f"{shard}.judged"
    write_judged(path, Keys.of(features, settler.secret).judged(rows))
    return commit.samples


def _already_done(path: Path, commit: ExamineCommit, settler: Settler) -> SettleCommit | None:
    """Return the record of an earlier attempt at this same settle, if it rests on the same features and plan."""
    try:
        record = SettleCommit.read(path)
    except RecordError:
        return None
    same = record.plan == settler.plan.decide_digest and (record.manifest is not None) == settler.release
    return record if same and record.examined == hashlib.sha256(commit.encode()).hexdigest() else None


def load_features(
    collection: Collection, commit: ExamineCommit, *, without: frozenset[str] = frozenset()
) -> ShardFeatures:
    """Read the features that a commit names, all or `without` some columns (`schema.read`).

    Raises:
        TableError: the file is missing or not the one that was written.
    """
    path = collection.examined / commit.features.name
    return decode_features(schema.read(path, sha256=commit.features.sha256, without=without))


def _write_table(table: pa.Table, path: Path, settler: Settler, *, mode: int, **more: str) -> FileDigest:
    plan = settler.plan
    stamped = table.cast(schema.stamp(table.schema, plan=plan.decide_digest, stamps=plan.stamps, **more))
    data = schema.encode(stamped)
    durable.write(path, data, replace=True, mode=mode)
    return FileDigest.of(path.name, data)


def _write_release(
    shard: str,
    source: ShardSource | None,
    commit: ExamineCommit,
    features: ShardFeatures,
    decisions: SampleDecisions,
    settler: Settler,
) -> tuple[FileDigest | None, FileDigest | None]:
    if not settler.release:
        return None, None
    release = settler.collection.release(settler.number)
    kept = decisions.index[(decisions.actions == Action.KEEP) & ~decisions.withheld]
    for name in ("manifest", "shards") if settler.with_tars else ("manifest",):
        durable.make_folder(release / name)
        durable.sweep(release / name, settler.collection.files_of(shard))
    tar, in_tar, encoding = None, list[bytes](), settler.plan.decide.resize
    if settler.with_tars:
        tar, in_tar = write_tar(
            source,
            commit,
            features,
            kept,
            collection=settler.collection,
            number=settler.number,
            members=settler.members,
            encoding=encoding,
            encode=settler.encode,
        )
    manifest, said = manifest_table(features, kept), {"resize": encoding} if encoding else {}
    if encoding:
        manifest = manifest.append_column(schema.IN_TAR, pa.array(in_tar, pa.binary(32)))
    return _write_table(manifest, release / "manifest" / f"{shard}.parquet", settler, mode=0o644, **said), tar


def manifest_table(features: ShardFeatures, kept: np.ndarray) -> pa.Table:
    """Return the release manifest of the samples in `kept` (indices): identity, content id, url, caption."""
    take = pa.array(np.searchsorted(features.indices(), kept), pa.int64())
    columns = {name: features.table[name].take(take) for name in ("shard", "index", "key", "url", "caption")}
    columns |= content_columns(features, kept)
    return pa.table([columns[field.name] for field in schema.MANIFEST_SCHEMA], schema=schema.MANIFEST_SCHEMA)


def fault_share_problems(commits: Sequence[ExamineCommit], *, shard_bound: float, run_bound: float) -> list[str]:
    """Return in words every fault share above its bound; a share is faulty samples over all samples."""
    problems = []
    for commit in commits:
        share = commit.faults / commit.samples if commit.samples else 0.0
        if share > shard_bound:
            problems.append(
                f"shard {commit.shard}: {commit.faults} of {commit.samples} samples are faulty ({share:.1%}), "
                f"more than max_fault_share_shard = {shard_bound:.1%}"
            )
    faults, samples = sum(c.faults for c in commits), sum(c.samples for c in commits)
    if samples and faults / samples > run_bound:
        problems.append(
            f"{faults} of {samples} samples are faulty ({faults / samples:.1%}), more than max_fault_share_run = "
            f"{run_bound:.1%}; `shardscrub quarantine` tells the reasons"
        )
    return problems
