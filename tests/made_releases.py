"""Releases without pictures: settled collections from a few words for each sample, as `publish` reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from manifests import schema
from manifests.collection import Collection
from manifests.commits import Close, Counts, FileDigest, SettleCommit
from manifests.keyed import make_secret
from manifests.records import Action

Fates = Mapping[str, tuple[str, ...]]  # by shard: "keep", "remove" or "withhold" of each sample


def content(shard: str, index: int) -> bytes:
    return hashlib.sha256(f"{shard}/{index}".encode()).digest()


def manifest_table(rows) -> pa.Table:
    """Of (shard, index, key, sha256, images) and, where some have several, images_sha256."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    nothing = [None] * len(columns[0])
    several = columns[5] if len(columns) > 5 else nothing
    values = [*columns[:4], [row[:16] for row in columns[3]], columns[4], several, nothing]
    arrays = [
        pa.array(value, field.type)
        for value, field in zip([*values, values[-1]], schema.MANIFEST_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=schema.MANIFEST_SCHEMA)


def settle(root: Path, number: int, fates: Fates, *, content=content, released: bool = True) -> Path:
    """Write settle `number`: a release, its decisions, its records."""
    home, counts, shards = Collection(root), Counts(), {}
    home.make()
    (home.journal / "lock").touch(mode=0o600)
    make_secret(home)
    for shard, words in fates.items():
        rows = [
            (shard, index, f"k{index}", content(shard, index), 1)
            for index, word in enumerate(words)
            if word == "keep"
        ]
        manifest = _write(home.release(number) / "manifest" / f"{shard}.parquet", manifest_table(rows))
        decisions = _write(home.settled(number) / "decisions" / f"{shard}.parquet", _decisions(shard, words))
        record = SettleCommit(
            shard=shard, plan="p", stamps=(), samples=len(words), identities="i", keep=words.count("keep"),
            remove=words.count("remove"), quarantine=0, withheld=words.count("withhold"), faults=0, reasons={},
            examined="e", matched=False, decisions=decisions, manifest=manifest, tar=None,
        )  # fmt: skip
        record.write(home.settled(number) / "decisions" / f"{shard}.json", replace=False, mode=0o600)
        shards[shard] = hashlib.sha256(record.encode()).hexdigest()
        counts = counts.plus(record)
    close = Close(
        number=number, plan="p", examine_plan="e", stamps=("unsafe_stand_in_models",), counts=counts, shards=shards,
        released=released, refused=(), canaries=0, flooded=(), changes=None, uids=None,
        release_summary=None,
    )  # fmt: skip
    close.write(home.settled(number) / "close.json", replace=False, mode=0o600)
    if released:
        home.current.write_text(f"{number:04d}\n")
    return root


def _decisions(shard: str, words: tuple[str, ...]) -> pa.Table:
    names = {"keep": Action.KEEP.name, "remove": Action.REMOVE.name, "withhold": None}
    fields, count = schema.decision_schema([]), len(words)
    values = {
        "shard": [shard] * count,
        "index": list(range(count)),
        "key": [f"k{index}" for index in range(count)],
        "withheld": [word == "withhold" for word in words],
        "action": [names[word] for word in words],
    }
    return pa.table([pa.array(values.get(one.name, [None] * count), one.type) for one in fields], schema=fields)


def _write(path: Path, table: pa.Table) -> FileDigest:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = schema.encode(table)
    path.write_bytes(data)
    return FileDigest(path.name, hashlib.sha256(data).hexdigest(), len(data))
