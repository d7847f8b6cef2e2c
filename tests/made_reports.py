"""A closed settle of any size, made of records and decisions alone: what a report is gathered from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests import schema
from manifests.collection import Collection
from manifests.commits import Close, Counts, ExamineCommit, FileDigest, Flood, SettleCommit
from manifests.records import canonical_json, digest_json, identities_digest, readable_json

SIGNALS = ("list.csam.exact", "list.other.pdq_distance", "caption.minor", "nsfw@1", "minor@1")
# What must never be read in a page: what a scrape could have written as a key, and what is withheld.
KEY_MARK = "<b>key-of-a-sample"
ACTIONS = ("KEEP", "REMOVE", "QUARANTINE", None)
REASONS = (None, "rule:sexual", "fault:truncated", None)
POLICY = """
name = "made & <tested>"
[signal.sexual]  # an alias
from = ["nsfw@1"]
[signal."minor"]
from = ["minor@1", "caption.minor"]
[[rule]]
id = "sexual"
"""
RULES = [
    [["museum-*"], [["listed", "SEAL", "list.csam.exact >= 1"], ["sexual", "REMOVE", "sexual >= 0.6"]]],
    [
        ["*"],
        [
            ["listed", "SEAL", "list.csam.exact >= 1 or list.other.pdq_distance <= 31"],
            ["both", "REMOVE", "sexual >= 0.1 and (minor >= 0.2 or unheard >= 0.5)"],
            ["sexual", "REMOVE", "sexual >= 0.45"],
        ],
    ],
]


def make_plan(lists: int = 2) -> dict[str, dict[str, object]]:
    """What `settled/N/plan.json` holds of what a report says."""
    every = [
        {"id": f"list{n}", "version": n + 1, "purpose": ("csam", "internal")[n % 2], "radius": 31, "radius64": 4,
         "set_digest": hashlib.sha256(b"%d" % n).hexdigest(), "entries": 10**n, "effects": [], "canaries": 4}
        for n in range(lists)
    ]  # fmt: skip
    decide = {
        "policy": "made & <tested>", "policy_digest": "ab" * 32, "policy_text": POLICY, "rules": RULES,
        "signals": list(SIGNALS), "lists": every, "overrides": [["by", "A. Name"]], "reviews": "",
    }  # fmt: skip
    examine = {
        "embedder": "tower@1#12345678/bicubic224/fp32", "heads": ["nsfw@1#87654321"], "nets": ["minor@1#11223344"],
        "texts": ["caption.minor@1"], "metadata": [], "hashes": ["pdq:fullres.oriented", "pdq:fullres.stored"],
        "device": "cpu", "precision": "fp32", "batch": 32, "software": ["numpy==2"], "stamps": [],
    }  # fmt: skip
    return {"examine": examine, "decide": decide}


def make_settled(root: Path, shards: int, samples: int, *, seed: int = 1, released: bool = True) -> Collection:
    """Write settle 1 of `shards` shards of `samples` samples; shard 0 is damaged, shard 1 has small batches."""
    home, plan, counts, digests = Collection(root), make_plan(), Counts(), {}
    home.make()
    folder, release = home.settled(1) / "decisions", home.release(1)
    folder.mkdir(parents=True)
    for name in ("manifest", "shards") if released else ():
        (release / name).mkdir(parents=True)
    for number in range(shards):
        shard = f"{number:05d}"
        table = make_decisions(shard, samples, np.random.default_rng([seed, number]))
        outcome = table["action"].to_pylist()
        examined = ExamineCommit(
            shard=shard, plan="e" * 64, stamps=(), input_sha256=hashlib.sha256(shard.encode()).hexdigest(),
            input_size=1000 * samples, sidecar_sha256=None, damage=None if number else "the archive is cut",
            samples=samples, identities=identities_digest([]), batch=16 if number == 1 else 32, rows=samples,
            faults=outcome.count("QUARANTINE"), withheld=outcome.count(None), judged_under="j", generation=0,
            features=FileDigest(f"{shard}.parquet", "f" * 64, 1), sealed=(),
        )  # fmt: skip
        examined.write(home.commit(shard), replace=False, mode=0o600)
        reasons = [reason for reason in table["reason"].to_pylist() if reason]
        settled = SettleCommit(
            shard=shard, plan="d" * 64, stamps=(), samples=samples, identities=examined.identities,
            keep=outcome.count("KEEP"), remove=outcome.count("REMOVE"), quarantine=outcome.count("QUARANTINE"),
            withheld=outcome.count(None), faults=examined.faults,
            reasons={name: reasons.count(name) for name in sorted(set(reasons))},
            examined=hashlib.sha256(examined.encode()).hexdigest(), matched=False,
            decisions=_write(folder / f"{shard}.parquet", schema.encode(table)),
            manifest=_write(release / "manifest" / f"{shard}.parquet", shard.encode()) if released else None,
            tar=_write(release / "shards" / f"{shard}.tar", b"tar") if released else None,
        )  # fmt: skip
        settled.write(folder / f"{shard}.json", replace=False, mode=0o600)
        digests[shard] = hashlib.sha256(settled.encode()).hexdigest()
        counts = counts.plus(settled)
    summary = {"number": 1, **json.loads(json.dumps(_plain(counts)))}
    (home.settled(1) / "summary.json").write_bytes(readable_json(summary))
    (home.settled(1) / "plan.json").write_bytes(canonical_json(plan))
    home.examine_plan.write_bytes(canonical_json(plan["examine"]))
    digest = digest_json(plan["examine"])
    decided = digest_json({"examine": digest, "decide": plan["decide"]})
    close = Close(
        number=1, plan=decided, examine_plan=digest, stamps=("unsafe_stand_in_models",), counts=counts,
        shards=digests, released=released, refused=() if released else ("shard 00000: the archive is cut",),
        canaries=8, flooded=(Flood("list1", 2, "pdq", 17, 1234),), changes=None,
        uids=_write(release / "uids.npy", b"uids") if released else None,
        release_summary=_write(release / "summary.json", b"{}") if released else None,
    )  # fmt: skip
    close.write(home.settled(1) / "close.json", replace=False, mode=0o600)
    return home


def make_decisions(shard: str, samples: int, draw: np.random.Generator) -> pa.Table:
    """Decisions of every outcome; a withheld row is blank but for its identity, as a settle writes it."""
    fate = draw.choice(len(ACTIONS), samples, p=[0.8, 0.1, 0.06, 0.04])
    values: dict[str, object] = {
        "shard": [shard] * samples,
        "index": np.arange(samples, dtype=np.int32),
        "key": [f"{KEY_MARK}-{number}" for number in range(samples)],
        "withheld": fate == len(ACTIONS) - 1,
        "action": pa.array(ACTIONS).take(pa.array(fate)),
        "reason": pa.array(REASONS).take(pa.array(fate)),
    }
    blank = fate == len(ACTIONS) - 1
    columns = dict(zip(SIGNALS, _signals(samples, draw), strict=True))
    fields = schema.decision_schema(SIGNALS)
    arrays = []
    for field in fields:
        name = field.name.removeprefix("signal.")
        given = values.get(field.name, [None] * samples)
        mask = blank | np.isnan(columns[name]) if name in columns else None
        arrays.append(pa.array(columns.get(name, given), field.type, mask=mask))
    return pa.table(arrays, schema=fields)


def _signals(samples: int, draw: np.random.Generator) -> Iterator[np.ndarray]:
    yield np.zeros(samples, np.float32)
    yield np.where(draw.random(samples) < 0.01, draw.integers(0, 60, samples), np.inf).astype(np.float32)
    yield (draw.random(samples) < 0.1).astype(np.float32)
    yield np.where(draw.random(samples) < 0.02, np.nan, draw.beta(0.4, 4, samples)).astype(np.float32)
    yield draw.beta(0.6, 2, samples).astype(np.float32)


def _plain(counts: Counts) -> dict[str, object]:
    return {name: getattr(counts, name) for name in Counts.__dataclass_fields__}


def _write(path: Path, data: bytes) -> FileDigest:
    path.write_bytes(data)
    return FileDigest.of(path.name, data)
