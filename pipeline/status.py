"""What a collection says of itself: totals, one sample's decision, what is quarantined and why.

Owns the words. Reads files; needs no model, list or key.

- Without `restricted`, only in, kept, not kept and faults.
- Of a withheld sample nothing is told but that it is withheld.
- Nothing here lists or ranks what was not kept; `explain` answers for a key that the reader already has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from manifests import schema
from manifests.collection import Collection
from manifests.commits import Close, ExamineCommit, SettleCommit, smaller_batches
from pipeline.errors import ConfigError
from pipeline.policy_decide import fits

# What would settle a quarantined sample, by the head of its reason.
_REMEDIES = {
    "fault:missing_from_shard": "restore the shard from its source and run again",
    "fault:cut_short": "restore the shard from its source and run again",
    "fault:no_image": "nothing to judge; leave it out of the next scrape",
    "fault:ambiguous": "the shard holds two members of one extension; write it again with unique names",
    "fault:unjudged_member": "name its extension in [members] copied or left_out, in a new collection",
    "fault:trailing_bytes": "the file goes on after its image; fetch it again, or set [members] trailing_bytes",
    "fault:animated": 'judge first frames with [decode] animated = "first-frame", in a new collection',
    "fault:too_many_bytes": "raise [decode] max_bytes, in a new collection",
    "fault:too_many_pixels": "raise [decode] max_pixels, in a new collection",
    "fault:too_many_frames": "raise [decode] max_frames, in a new collection",
    "fault:wall_limit": "shardscrub retry RUN --reasons wall_limit",
    "fault:cpu_limit": "raise [decode] cpu_s, in a new collection",
    "fault:memory_limit": "raise [decode] memory_mb, in a new collection",
    "fault:decoder_crash": "shardscrub retry RUN --reasons decoder_crash",
    "fault:no_score": "the model gave no number; check the model, then shardscrub retry RUN --reasons no_score",
    "fault": "the bytes cannot be judged; fetch the image again from its source",
    "rule": "the policy asks a person to look; change the policy and settle again",
    "copy": "the same bytes stand elsewhere in the collection and are not kept there",
    "near-copy": "nearly the picture of an exact list hit",
    "neighbour": "its embedding lies near that of an exact list hit; a person must look",
    "url": "a sample that was removed bears the same URL",
    "review": "a person set it aside",
    "hit_cap": "only entries of a list over max_near_hits_per_entry are near; ask the owner of the list",
    "unknown": "a signal that a rule needs did not speak; see `shardscrub explain`",
}


def newest_close(collection: Collection) -> Close:
    """Return the newest close.

    Raises:
        ConfigError: nothing was settled yet.
    """
    numbers = collection.closed_settles()
    if not numbers:
        raise ConfigError(f"{collection.root}: nothing is settled here yet; run `shardscrub run` or `settle`")
    return Close.read(collection.settled(numbers[-1]) / "close.json")


def totals(close: Close) -> Iterator[str]:
    """Yield what the console may know of a settle."""
    counts = close.counts
    yield f"{'in':<10}{counts.samples:>12}"
    yield f"{'kept':<10}{counts.keep if close.released else 0:>12}"
    yield f"{'not kept':<10}{counts.samples - (counts.keep if close.released else 0):>12}"
    yield f"{'faults':<10}{counts.faults:>12}"


def exact_table(close: Close, collection: Collection) -> Iterator[str]:
    """Yield the exact counts of a settle: for the restricted tier only."""
    counts = close.counts
    yield f"settle {close.number:04d}, {'released' if close.released else 'refused'}; decide plan {close.plan[:12]}"
    for name in ("samples", "keep", "remove", "quarantine", "withheld", "faults"):
        yield f"{name:<12}{getattr(counts, name):>12}"
    if counts.reasons:
        yield "by reason (withheld samples have none here):"
        for reason, count in sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {reason:<40}{count:>10}"
    yield f"all {close.canaries} canaries of the lists were found"
    yield from _batches(collection)
    for item in close.flooded:
        yield (
            f"list {item.list_id}@{item.version}: {item.samples} samples come near to {item.algorithm} entry "
            f"{item.entry}, more than the hit cap: near hits on it are quarantined"
        )


def progress_of(collection: Collection) -> Iterator[str]:
    """Yield how far a collection is that has no close yet."""
    commits = [ExamineCommit.read(collection.commit(shard)) for shard in collection.committed_shards()]
    yield f"{len(commits)} shards examined, {sum(commit.samples for commit in commits)} samples; not settled yet"
    yield from _batches(collection)


def _batches(collection: Collection) -> Iterator[str]:
    commits = (ExamineCommit.read(collection.commit(shard)) for shard in collection.committed_shards())
    yield from smaller_batches(commits, json.loads(collection.examine_plan.read_bytes())["batch"])


def quarantine_table(close: Close, collection: Collection) -> Iterator[str]:
    """Yield the quarantined samples by reason, and what would settle each."""
    reasons: dict[str, int] = {}
    for shard in close.shards:
        folder = collection.settled(close.number) / "decisions"
        settled = SettleCommit.read(folder / f"{shard}.json")
        table = schema.read(folder / settled.decisions.name, sha256=settled.decisions.sha256)
        for action, reason in zip(table["action"].to_pylist(), table["reason"].to_pylist(), strict=True):
            if action == "QUARANTINE":
                reasons[reason] = reasons.get(reason, 0) + 1
    yield f"{sum(reasons.values())} samples in quarantine"
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:>10}  {reason}: {_remedy(reason)}"


def explain(collection: Collection, key: str) -> Iterator[str]:
    """Yield why the sample `shard/key` got its action.

    Raises:
        ConfigError: no such sample in the newest settle.
    """
    close = newest_close(collection)
    shard, _, name = key.partition("/")
    if shard not in close.shards:
        raise ConfigError(f"no shard {shard!r} in settle {close.number:04d}; a KEY is written shard/key")
    folder = collection.settled(close.number)
    settled = SettleCommit.read(folder / "decisions" / f"{shard}.json")
    table = schema.read(folder / "decisions" / settled.decisions.name, sha256=settled.decisions.sha256)
    rows = [row for row in table.to_pylist() if row["key"] == name]
    if not rows:
        raise ConfigError(f"shard {shard}: no sample {name!r} in settle {close.number:04d}")
    plan = json.loads((folder / "plan.json").read_bytes())["decide"]
    for row in rows:
        yield f"{key} (sample {row['index']} of the shard), settle {close.number:04d}, policy {plan['policy']!r}"
        if row["withheld"]:
            yield "withheld; ask the case owner"
            continue
        yield f"action    {row['action']}"
        yield f"because   {_because(row)}"
        if row["open_rules"]:
            yield f"open      {', '.join(row['open_rules'])} (a signal they need did not speak)"
        for column, value in row.items():
            if column.startswith("signal."):
                text = "did not speak" if value is None else f"{value:.6g}"
                yield f"signal    {column.removeprefix('signal.')} = {text}"
        rules = next(rules for patterns, rules in plan["rules"] if fits(shard, patterns))
        yield from (f"rule      {name}: {action} when {when}" for name, action, when in rules)


def _because(row: dict[str, object]) -> str:
    if row["action"] == "KEEP":
        return "every required signal spoke and no rule is true"
    reason = str(row["reason"])
    member = f" (member {row['member']})" if row["member"] else ""
    return f"{reason}{member}: {_remedy(reason)}" if row["action"] == "QUARANTINE" else f"{reason}{member}"


def _remedy(reason: str) -> str:
    return _REMEDIES.get(reason) or _REMEDIES.get(reason.partition(":")[0], "")


def noted_config(collection: Collection) -> Path:
    """Return the configuration that the collection was last examined with.

    Raises:
        ConfigError: its journal does not say.
    """
    note = collection.config_note
    if not note.is_file():
        raise ConfigError(f"{note}: missing: it names the configuration; `shardscrub examine CONFIG` writes it")
    return Path(os.fsdecode(note.read_bytes()))


def closed_collection(path: Path) -> Collection:
    """Return the collection at `path`.

    Raises:
        ConfigError: there is none.
    """
    collection = Collection(path)
    if not collection.examine_plan.is_file():
        raise ConfigError(f"{path}: not a collection (no {collection.examine_plan.name}); name the folder of a run")
    return collection
