"""A small finished collection of every fate, settled twice, and ways to change it as a forger would."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from in_process import call
from scrapes import Scrape, jpeg, write_list, write_tar

from classifiers.hashes.digests import take_digests
from manifests import schema
from manifests.collection import Collection
from manifests.commits import Close, ExamineCommit, FileDigest, SettleCommit

SHARDS = ("00000", "00001")


def image(shard: str, name: str) -> bytes:
    return jpeg(["sealed", "later", "removed", "cut", "kept_a", "kept_b", "kept_c"].index(name) + 10 * int(shard))


def make_finished(root: Path) -> Scrape:
    """Settle 0001 seals one sample a shard, settle 0002 another one; both are released."""
    lists = [{"id": name} for name in ("csam", "other")]
    scrape = Scrape.make(root, list=lists)
    for shard in SHARDS:
        members = [(f"{name}.txt", name.encode()) for name in ("kept_a", "sealed", "bare")]
        names = ("kept_a", "sealed", "removed", "kept_b", "later", "kept_c")
        members += [(f"{name}.jpg", image(shard, name)) for name in names]
        members += [("cut.jpg", image(shard, "cut")[:-400])]
        write_tar(scrape.shards / f"{shard}.tar", members)

    def entries(name: str) -> list[tuple[str, bytes]]:
        return [("md5", take_digests(image(shard, name)).md5) for shard in SHARDS]

    write_list(root / "lists/other.csv", entries("removed"))
    for names in (("sealed",), ("sealed", "later")):
        far = [("pdq", bytes(range(32)))]
        write_list(root / "lists/csam.csv", far + [entry for name in names for entry in entries(name)])
        done = call("run", scrape.config, "--workers", 1)
        assert done.code == 0, done.err
    return scrape


def digest_of(path: Path) -> FileDigest:
    data = path.read_bytes()
    return FileDigest(path.name, hashlib.sha256(data).hexdigest(), len(data))


def rewrite(path: Path, table: pa.Table) -> None:
    path.write_bytes(schema.encode(table))


def record_again(root: Path, number: int = 2) -> None:
    """Bring every digest of the newest settle in line with the files, as a forger who knows the format would."""
    home = Collection(root)
    close = Close.read(home.settled(number) / "close.json")
    shards = {}
    for shard in close.shards:
        examined = ExamineCommit.read(home.commit(shard))
        examined = replace(examined, features=digest_of(home.examined / examined.features.name))
        examined.write(home.commit(shard), replace=True, mode=0o600)
        path = home.settled(number) / "decisions" / f"{shard}.json"
        settled = replace(
            SettleCommit.read(path),
            examined=hashlib.sha256(examined.encode()).hexdigest(),
            matched=False,
            decisions=digest_of(path.with_suffix(".parquet")),
            manifest=digest_of(home.release(number) / "manifest" / f"{shard}.parquet"),
            tar=digest_of(home.release(number) / "shards" / f"{shard}.tar"),
        )
        settled.write(path, replace=True, mode=0o600)
        shards[shard] = hashlib.sha256(settled.encode()).hexdigest()
    close = replace(
        close,
        shards=shards,
        uids=digest_of(home.release(number) / "uids.npy"),
        release_summary=digest_of(home.release(number) / "summary.json"),
    )
    close.write(home.settled(number) / "close.json", replace=True, mode=0o600)
