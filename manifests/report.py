"""The facts of a report on one settle, as the records say them.

Owns what a report may say, in two types: `ReleaseFacts` is what those who train, and outsiders, may know, and all
that their page is made of; `Facts` adds what the restricted tier may know. Leaves words and looks to others.

- Nothing is here but counts, digests, plans, and names of shards, rules and signals: no key, URL or caption.
- Figures are those of the close; a summary or decisions that count otherwise are refused.
- Shards are read one at a time; what is kept of each is a digest of its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from manifests.audit.log import CHECKPOINT
from manifests.collection import Collection
from manifests.commits import Close, ExamineCommit, FileDigest, RecordError, SettleCommit
from manifests.lifetime import read_destroyed
from manifests.records import digest_json
from manifests.report_scores import Decided, Distribution

MAX_NAMED = 40  # shards or files that a page names one by one


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What a release may say of itself.

    files: all `file_count`, or none beyond `MAX_NAMED`. listing: SHA-256 of what `sha256sum` prints of all, in the
    order of their names. checkpoint: origin, entries and root of the audit log; empty where there is none.
    """

    number: int
    released: bool
    shards: int
    samples: int
    kept: int
    not_kept: int
    faults: int
    stamps: tuple[str, ...]
    examine_plan: str
    decide_plan: str
    file_count: int
    file_bytes: int
    files: tuple[FileDigest, ...]
    listing: str
    checkpoint: tuple[str, ...]


@dataclass(slots=True)
class InputFacts:
    """What was read. Of `changed` shards, examined again since this settle, nothing else is counted.

    damaged: name and damage of the first `MAX_NAMED` of `damaged_shards`. listing: as of files, of shards by name.
    """

    bytes: int = 0
    without_file: int = 0
    changed: int = 0
    smaller_batches: int = 0
    damaged_shards: int = 0
    damaged_samples: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    listing: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the restricted version says.

    close: without its shards. examine, decide: the plans, without the policy's text and overrides, whose number is
    `overrides`. actions: (action, reason, samples), without actions where decisions are gone. destroyed: shards of
    which they are. undrawn: names in rules whose signals could not be told. imported: the days on which lists were
    imported, by `id@version`, where they are known.
    """

    public: ReleaseFacts
    close: Close
    examine: dict[str, Any]
    decide: dict[str, Any]
    overrides: int
    actions: tuple[tuple[str, str, int], ...]
    destroyed: int
    distributions: tuple[Distribution, ...]
    undrawn: tuple[str, ...]
    inputs: InputFacts
    imported: dict[str, str]


def gather(collection: Collection, number: int, *, imported: Mapping[str, str] | None = None) -> Facts:
    """Return the facts of one closed settle.

    Args:
        collection: where it lies.
        number: of the settle.
        imported: days on which lists were imported, by `id@version`; no collection records them.

    Raises:
        RecordError: a record is missing or damaged, or the decisions are not what was counted.
        TableError: decisions are missing or damaged, and no record says that they were destroyed.
    """
    folder = collection.settled(number)
    close = Close.read(folder / "close.json")
    if _json(folder / "summary.json") != {"number": number, **asdict(close.counts)}:
        raise RecordError(f"{folder / 'summary.json'}: not what the settle counted; run `shardscrub verify`")
    plan = _json(folder / "plan.json")
    examine, decide = (plan.get(name, {}) for name in ("examine", "decide"))
    if digest_json({"examine": digest_json(examine), "decide": decide}) != close.plan:
        raise RecordError(f"{folder / 'plan.json'}: not the plan that the settle was closed under; restore it")
    decided, inputs, gone = Decided(decide), InputFacts(), read_destroyed(collection)
    files = [item for item in (close.uids, close.release_summary) if item is not None]
    lines, destroyed = [], 0
    for commit in _settled(folder / "decisions", close):
        for home, item in (("manifest", commit.manifest), ("shards", commit.tar)):
            files += [] if item is None else [replace(item, name=f"{home}/{item.name}")]
        lines.append((_add_input(inputs, collection, commit, examine["batch"]), commit.shard))
        path = folder / "decisions" / commit.decisions.name
        if path in gone:
            destroyed += 1
        else:
            decided.add(path, commit.decisions.sha256)
    inputs.listing = _listing(lines)
    by_reason = (("KEEP", "", close.counts.keep), *(("", *item) for item in sorted(close.counts.reasons.items())))
    hidden = ("policy_text", "overrides")
    return Facts(
        public=_release_facts(close, files, collection.log / CHECKPOINT),
        close=replace(close, shards={}),
        examine=examine,
        decide={name: value for name, value in decide.items() if name not in hidden},
        overrides=len(decide["overrides"]),
        actions=by_reason if destroyed else decided.actions(close.counts, source=folder),
        destroyed=destroyed,
        distributions=decided.distributions(),
        undrawn=decided.undrawn,
        inputs=inputs,
        imported=dict(imported or {}),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise RecordError(f"{path}: missing, or not valid JSON; run `shardscrub verify`") from None
    return value


def _settled(folder: Path, close: Close) -> Iterator[SettleCommit]:
    for shard, digest in close.shards.items():
        commit = SettleCommit.read(folder / f"{shard}.json")
        if hashlib.sha256(commit.encode()).hexdigest() != digest:
            raise RecordError(f"{folder / shard}.json: not the record that was closed; restore it")
        yield commit


def _add_input(inputs: InputFacts, collection: Collection, settled: SettleCommit, batch: int) -> str:
    """Count what one shard was made of; returns the digest of its file, or why there is none."""
    commit = ExamineCommit.read(collection.commit(settled.shard))
    if hashlib.sha256(commit.encode()).hexdigest() != settled.examined:
        inputs.changed += 1
        return "changed"
    inputs.bytes += commit.input_size
    inputs.without_file += commit.input_sha256 is None
    inputs.smaller_batches += commit.batch != batch
    if commit.damage:
        inputs.damaged_shards += 1
        inputs.damaged_samples += commit.samples
        inputs.damaged += [(commit.shard, commit.damage)][: MAX_NAMED - len(inputs.damaged)]
    return commit.input_sha256 or "none"


def _release_facts(close: Close, files: list[FileDigest], checkpoint: Path) -> ReleaseFacts:
    files.sort(key=lambda item: item.name.encode())
    counts, kept = close.counts, close.counts.keep if close.released else 0
    return ReleaseFacts(
        number=close.number,
        released=close.released,
        shards=counts.shards,
        samples=counts.samples,
        kept=kept,
        not_kept=counts.samples - kept,
        faults=counts.faults,
        stamps=close.stamps,
        examine_plan=close.examine_plan,
        decide_plan=close.plan,
        file_count=len(files),
        file_bytes=sum(item.size for item in files),
        files=tuple(files) if len(files) <= MAX_NAMED else (),
        listing=_listing((item.sha256, item.name) for item in files),
        # A C2SP tlog-checkpoint; whether it is signed is for `verify` to say.
        checkpoint=tuple(checkpoint.read_text("utf-8", "replace").splitlines()[:3]) if checkpoint.exists() else (),
    )


def _listing(lines: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 of lines `digest, two spaces, name`, as `sha256sum` prints them."""
    return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in lines).encode()).hexdigest()
