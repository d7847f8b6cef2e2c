"""What does a settle against a new, large list cost, and does it decide as one that had the list at once?

Writes a collection of random features (no pictures: what an examine would have stored, one PDQ code a picture), and
settles it with a short list; imports random PDQ codes and MD5 digests into an encrypted store, and settles anew
with these: that is measured. Some entries are planted: digests of pictures, and codes up to 31 bits off theirs.
A second collection of the same features has the new list from the start; its decisions, manifest and uids have to
be the same, byte for byte. With `--examined` its shards are also matched one by one before, as an examine does.
Run as `python benchmarks/settle_lists.py [SAMPLES [PDQ [MD5]]] [--examined]`.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import numpy as np  # noqa: E402 - the paths come first
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from measuring import save  # noqa: E402
from scrapes import Scrape, list_store, shardscrub  # noqa: E402
from settle import PER_SHARD, POLICY, VIEW, WORKERS, make_features, settle  # noqa: E402

from classifiers.blocklists.algorithms import DEFAULT_RADIUS, WIDTHS, Rows  # noqa: E402
from classifiers.blocklists.lists import HashList  # noqa: E402
from classifiers.blocklists.shared import attach_lists, share_indexes  # noqa: E402
from manifests.collection import Collection  # noqa: E402
from manifests.features import ShardFeatures, fixed_binary  # noqa: E402
from manifests.records import identities_digest  # noqa: E402
from pipeline.commit import ShardFacts, commit_shard  # noqa: E402
from pipeline.executors.protocol import WorkerOptions  # noqa: E402
from pipeline.hits import HITS_SCHEMA  # noqa: E402
from pipeline.setup import Setup, begin, load_setup  # noqa: E402

EXAMINED = "--examined" in sys.argv[1:]
SIZES = [int(text) for text in sys.argv[1:] if text.isdigit()]
SAMPLES, PDQ, MD5 = [*SIZES, *(1_000_000, 10_000_000, 16_000_000)[len(SIZES) :]]
SHARDS = [f"{number:05d}" for number in range(max(1, SAMPLES // PER_SHARD))]
PLANTED = 500  # of each kind, over all shards
BLOCK = 1_000_000
MOST_SECONDS, MOST_MIB = 240, 6144
NEW = "new"


def features_of(number: int) -> ShardFeatures:
    """Return the features of a shard: random, with the first code of each picture alone."""
    features = make_features(SHARDS[number], np.random.default_rng(number), PER_SHARD)
    column = features.hashes[VIEW]
    return replace(features, hashes={VIEW: replace(column, codes=np.ascontiguousarray(column.codes[:, :1]))})


def planted(number: int) -> tuple[Rows, Rows, int]:
    """Return listed codes and digests of a shard, and how many of its samples they are to withhold.

    Some are of pictures that share their bytes with others: these are withheld too.
    """
    features, random = features_of(number), np.random.default_rng((1, number))
    count = PLANTED * (number + 1) // len(SHARDS) - PLANTED * number // len(SHARDS)
    copied = PER_SHARD // 50  # these have one copy each, `make_features`
    both = np.concatenate([random.permutation(copied)[:6], copied + random.permutation(PER_SHARD - copied)])
    near, exact = np.concatenate([both[:3], both[6:]])[:count], np.concatenate([both[3:6], both[::-1]])[:count]
    bits = np.unpackbits(features.hashes[VIEW].codes[near, 0], axis=1)
    for place, row in enumerate(bits):
        row[random.permutation(256)[: place % (DEFAULT_RADIUS + 1)]] ^= 1
    digests = features.digests["sha256"]
    content = np.unique(digests[np.concatenate([near, exact])], axis=0)
    hidden = np.isin(digests.copy().view("S32").ravel(), content.copy().view("S32").ravel())
    return np.packbits(bits, axis=1), features.digests["md5"][exact], int(hidden.sum())


def write_list(path: Path) -> int:
    """Write the planted values and random ones as a table; returns how many samples are to be withheld."""
    parts = [planted(number) for number in range(len(SHARDS))]
    codes, digests = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    schema = pa.schema([("md5", pa.binary(WIDTHS["md5"])), ("pdq", pa.binary(WIDTHS["pdq"]))])
    random = np.random.default_rng(10**9)  # no shard has this seed
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for first in range(0, max(PDQ, MD5), BLOCK):
            columns = []
            for field, size, mine in zip(schema, (MD5, PDQ), (digests, codes), strict=True):
                count = min(BLOCK, max(PDQ, MD5) - first)
                values = random.integers(0, 256, (count, field.type.byte_width), np.uint8)
                if first == 0:
                    values[: len(mine)] = mine
                columns.append(fixed_binary(values, np.arange(first, first + count) < size))
            writer.write_table(pa.table(columns, schema=schema))
    return sum(hidden for _, _, hidden in parts)


def fill(setup: Setup, *, examined: bool) -> None:
    """Write features and commits as an examine would, one that has the lists or none."""
    begin(setup)
    lists: tuple[HashList, ...] = ()
    if examined:
        lists = attach_lists(setup.lists_fd, share_indexes(setup.decider.lists, threads=WORKERS))
    decider = replace(setup.decider, lists=lists)
    for number, shard in enumerate(SHARDS):
        features = features_of(number)
        identities = identities_digest(features.identities())
        facts = ShardFacts(shard, "0" * 64, 1, None, None, PER_SHARD, identities, setup.plan.examine.batch)
        hits = decider.match(features) if examined else HITS_SCHEMA.empty_table()
        commit_shard(
            features, hits, facts=facts, collection=setup.collection, plan=setup.plan, decider=decider, settle=1
        )


def make_scrape(root: Path, **settings: object) -> Scrape:
    """Write a configuration."""
    root.mkdir(exist_ok=True)
    (root / "policy.toml").write_text(POLICY.format(bar="0.45"))
    scrape = Scrape.make(
        root,
        input=[{"shards": f"shards/{{00000..{SHARDS[-1]}}}.tar"}],
        hashes={"kinds": ["pdq:fullres"], "views": ["oriented"]},
        metadata=[{"column": "punsafe"}],
        policy={"file": "policy.toml"},
        **settings,
    )
    scrape.settings["release"] = {"shards": False, "accept_damaged": SHARDS}
    scrape.write()
    return scrape


def compared(scrape: Scrape, number: int) -> Iterator[tuple[str, str]]:
    """Yield name and digest of what has to be the same."""
    collection = Collection(scrape.collection)
    decisions, release = collection.settled(number) / "decisions", collection.release(number)
    for shard in SHARDS:
        for folder in (decisions, release / "manifest"):
            path = folder / f"{shard}.parquet"
            yield f"{folder.name}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
    yield "uids.npy", hashlib.sha256((release / "uids.npy").read_bytes()).hexdigest()


def measured(scrape: Scrape, *options: str) -> dict[str, object]:
    """Settle by the command; seconds of a core and the load are told too, for the machine may be shared."""
    before, load = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0]
    seconds, peak = settle(scrape, *options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    loads = [round(load, 1), round(os.getloadavg()[0], 1)]
    return {"seconds": round(seconds, 1), "cpu_s": round(cpu, 1), "mib": round(peak), "load": loads}


def withheld_in(decisions: Path) -> int:
    """Count the samples that decisions withhold."""
    tables = (pq.read_table(path, columns=["withheld"]) for path in decisions.glob("*.parquet"))
    return sum(int(table["withheld"].to_numpy().sum()) for table in tables)


def told(what: str, began: float) -> None:
    """Say what was done and how long it took."""
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Measure, compare, print and save."""
    name = f"settle_lists-{SAMPLES}" if SIZES else "settle_lists"
    name += "-examined" if EXAMINED else ""
    plan: dict[str, object] = {
        "samples": len(SHARDS) * PER_SHARD,
        "pdq": PDQ,
        "md5": MD5,
        "planted": 2 * PLANTED,
        "workers": WORKERS,
    }
    plan |= {"examined": EXAMINED, "most_seconds": MOST_SECONDS, "most_mib": MOST_MIB}
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="shardscrub-bench-") as folder:
        scrape = make_scrape(Path(folder) / "first")
        store, path = list_store(scrape.root), Path(folder) / "list.parquet"
        began = time.monotonic()
        hidden = write_list(path)
        told("list written", began)
        began = time.monotonic()
        about = ("--store", store.root, "--key", store.key, "--id", NEW, "--purpose", "csam", "--effect", "case")
        done = shardscrub("lists", "import", path, *about, timeout_s=3600)
        if done.code:
            sys.exit(done.err)
        path.unlink()
        told("list imported", began)
        began = time.monotonic()
        fill(load_setup(WorkerOptions(scrape.config, from_stored=True)), examined=False)
        told("features written", began)
        results["short list"] = measured(scrape)
        print("short list", results["short list"], flush=True)
        results["new list"] = measured(scrape, "--list", NEW)
        print("new list", results["new list"], flush=True)
        found = withheld_in(Collection(scrape.collection).settled(2) / "decisions")
        results["withheld"] = {"found": found, "expected": hidden}
        print(f"withheld {found}, {hidden} expected", flush=True)
        save(name, plan, results)
        where = {"store": str(store.root), "key": str(store.key)}
        other = make_scrape(Path(folder) / "second", lists=where, list=[{"id": NEW}])
        began = time.monotonic()
        fill(load_setup(WorkerOptions(other.config, from_stored=True)), examined=EXAMINED)
        told("features written again", began)
        results["list from the start"] = measured(other)
        print("list from the start", results["list from the start"], flush=True)
        ours, theirs = dict(compared(scrape, 2)), dict(compared(other, 1))
        differing = sorted(name for name in ours if ours[name] != theirs[name])
        results["compared"] = {"files": len(ours), "differing": differing}
        print(f"{len(ours)} files compared, {len(differing)} differ {differing[:6]}")
    print(save(name, plan, results))
    if differing or found != hidden:
        sys.exit("the settles did not decide alike, or not as planted")


if __name__ == "__main__":
    main()
