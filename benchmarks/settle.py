"""How fast does a settle decide stored samples anew, and what does it hold in memory?

Writes a collection of random features (no pictures: what an examine would have stored), settles it once, and then
under another policy. Digests of inputs, list matching (a short list), copies, conservation, manifests and uids are
all done; tars are not. Run as `python benchmarks/settle.py [SAMPLES]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import numpy as np  # noqa: E402 - the paths come first
import pyarrow as pa  # noqa: E402
from measuring import save  # noqa: E402
from memory import resident_mb, tree  # noqa: E402
from scrapes import Scrape  # noqa: E402

from manifests.features import HashColumn, ShardFeatures  # noqa: E402
from manifests.records import identities_digest  # noqa: E402
from pipeline.commit import ShardFacts, commit_shard  # noqa: E402
from pipeline.executors.protocol import WorkerOptions  # noqa: E402
from pipeline.hits import HITS_SCHEMA  # noqa: E402
from pipeline.setup import Setup, begin, load_setup  # noqa: E402

PER_SHARD, WORKERS, VIEW = 20_000, 2, "pdq:fullres.oriented"
POLICY = """
name = "bar-{bar}"
required = ["list.csam.exact", "list.csam.pdq_distance", "meta.punsafe"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1 or list.csam.pdq_distance <= 31"
action = "SEAL"
[[rule]]
id = "sexual"
when = "meta.punsafe >= {bar}"
action = "REMOVE"
"""


def make_features(shard: str, random: np.random.Generator, count: int) -> ShardFeatures:
    """Return random features of `count` samples, one image each; 1 % share their bytes with others of the shard."""
    index = np.arange(count, dtype=np.int32)
    keys = [f"{shard}{number:08d}" for number in range(count)]
    widths = {"md5": 16, "sha1": 20, "sha256": 32}
    text = {name: pa.nulls(count, pa.string()) for name in ("metadata", "sample_fault", "fault")}
    table = pa.table(
        {
            "shard": pa.array([shard] * count),
            "index": pa.array(index),
            "key": pa.array(keys),
            "withheld": pa.array(np.zeros(count, np.bool_)),
            "role": pa.array(["image"] * count),
            "member": pa.array(["jpg"] * count),
            "offset": pa.array(index.astype(np.int64) * 4096),
            "size": pa.array(np.full(count, 3000, np.int64)),
            "url": pa.array([f"http://example.invalid/{key}.jpg" for key in keys]),
            "url_uid": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), count, [None, pa.py_buffer(random.bytes(16 * count))]
            ),
            "caption": pa.array([f"a drawing called {key} of some length as captions have" for key in keys]),
            **text,
            "hash_source": pa.array(["bytes"] * count),
            **{f"crawl_{name}": pa.nulls(count, pa.binary(width)) for name, width in widths.items()},
            "format": pa.array(["jpeg"] * count),
            "width": pa.array(np.full(count, 512, np.int32)),
            "height": pa.array(np.full(count, 384, np.int32)),
        }
    )
    digests = {name: random.integers(0, 256, (count, width), np.uint8) for name, width in widths.items()}
    shared = count // 100
    for values in digests.values():
        values[:shared] = values[shared : 2 * shared]
    yes = np.ones(count, np.bool_)
    codes = HashColumn(random.integers(0, 256, (count, 8, 32), np.uint8), np.full(count, 90, np.float32), yes, yes)
    scores = {"meta.punsafe": random.random(count, np.float32) ** 8}
    embedding = np.zeros((count, 0), np.float16)
    return ShardFeatures(table, digests, yes, {VIEW: codes}, embedding, np.zeros(count, np.bool_), scores)


def fill(setup: Setup, shards: list[str]) -> None:
    """Write features and commits as an examine would."""
    begin(setup)
    decider = replace(setup.decider, lists=())
    for number, shard in enumerate(shards):
        features = make_features(shard, np.random.default_rng(number), PER_SHARD)
        identities = identities_digest(features.identities())
        facts = ShardFacts(shard, "0" * 64, 1, None, None, PER_SHARD, identities, setup.plan.examine.batch)
        plan, hits = setup.plan, HITS_SCHEMA.empty_table()
        commit_shard(features, hits, facts=facts, collection=setup.collection, plan=plan, decider=decider, settle=1)


def settle(scrape: Scrape, *options: str) -> tuple[float, float]:
    """Run the command; returns seconds and the peak of its process tree in MB."""
    import subprocess  # noqa: PLC0415 - here alone

    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "settle",
        str(scrape.config),
        "--workers",
        str(WORKERS),
        *options,
    ]
    began, peak = time.monotonic(), 0.0
    with subprocess.Popen(command, env={"PYTHONPATH": str(ROOT), "PATH": ""}, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(resident_mb(pid) for pid in tree(process.pid)))
            time.sleep(0.2)
    if process.returncode:
        sys.exit(f"the settle failed with {process.returncode}")
    return time.monotonic() - began, peak


def main() -> None:
    """Measure, print and save."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    shards = [f"{number:05d}" for number in range(max(1, samples // PER_SHARD))]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for bar in ("0.45", "0.3"):
            (root / f"policy-{bar}.toml").write_text(POLICY.format(bar=bar))
        scrape = Scrape.make(
            root,
            input=[{"shards": f"shards/{{00000..{shards[-1]}}}.tar"}],
            hashes={"kinds": ["pdq:fullres"], "views": ["oriented"]},
            metadata=[{"column": "punsafe"}],
            policy={"file": "policy-0.45.toml"},
        )
        scrape.settings["release"] = {"shards": False, "accept_damaged": shards}
        scrape.write()
        fill(load_setup(WorkerOptions(scrape.config, from_stored=True)), shards)
        results = {}
        for name, options in (
            ("first settle", ()),
            ("another policy", ("--policy", str(root / "policy-0.3.toml"))),
        ):
            seconds, peak = settle(scrape, *options)
            count = len(shards) * PER_SHARD
            results[name] = {"seconds": round(seconds, 1), "samples/s": round(count / seconds), "MB": round(peak)}
            print(name, results[name], flush=True)
    plan = {"samples": len(shards) * PER_SHARD, "per_shard": PER_SHARD, "workers": WORKERS}
    print(save("settle", plan, {"settles": results}))


if __name__ == "__main__":
    main()
