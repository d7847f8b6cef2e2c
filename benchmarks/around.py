"""How long does it take to find the neighbours of 1,000 seeds among 1 M embeddings, and in how much memory?

Random unit embeddings of 512 numbers in shards of 20,000, a few planted near some seeds; every pair is compared.
faiss finds the same pairs of one shard, as the named reference.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import faiss  # noqa: E402 - the paths come first
import numpy as np  # noqa: E402
from measuring import save  # noqa: E402
from settle import PER_SHARD, make_features  # noqa: E402

from classifiers.blocklists.match import search_column  # noqa: E402
from pipeline.around import AroundSearch, Seeds  # noqa: E402
from pipeline.policy import Around  # noqa: E402

SEEDS, SHARDS, DIMS, COSINE, NONE = 1000, 50, 512, 0.95, np.zeros(0, np.int64)


def unit(random: np.random.Generator, count: int) -> np.ndarray:
    """Return random unit rows, float16, with one in 2,000 near some seed."""
    rows = random.normal(size=(count, DIMS)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def main() -> None:
    """Measure, print and save."""
    random = np.random.default_rng(1)
    seeds = unit(random, SEEDS).astype(np.float32)
    nothing = np.zeros(SEEDS, np.bool_)
    around = Around(None, COSINE)
    search = AroundSearch(Seeds(np.zeros((SEEDS, 32), np.uint8), nothing, seeds, nothing), around, search_column)
    base = make_features("00000", random, PER_SHARD)
    seconds, planted, ratios = 0.0, 0, []
    for number in range(SHARDS):
        rows = unit(random, PER_SHARD)
        places = random.choice(PER_SHARD, 10, replace=False)
        rows[places] = seeds[random.integers(0, SEEDS, 10)].astype(np.float16)
        planted += len(places)
        features = replace(base, embedding=rows, embedded=np.ones(PER_SHARD, np.bool_))
        began = time.perf_counter()
        search.add(f"{number:05d}", features, NONE)
        ours = time.perf_counter() - began
        seconds += ours
        if number < 5:
            index = faiss.IndexFlatIP(DIMS)
            index.add(rows.astype(np.float32))
            began = time.perf_counter()
            limits, *_ = index.range_search(seeds, COSINE)
            ratios.append((time.perf_counter() - began) / ours)
            found = sum(len(items) for items in search.marks().values())
            assert int(limits[-1]) == 10 and found == 10 * (number + 1), "the searches differ"  # noqa: PT018
    found = sum(len(items) for items in search.marks().values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results = {
        "seconds": round(seconds, 1),
        "planted": planted,
        "found": found,
        "faiss / ours": round(statistics.median(ratios), 2),
        "MB": round(peak),
    }
    print(results)
    print(save("around", {"seeds": SEEDS, "embeddings": SHARDS * PER_SHARD, "dims": DIMS}, {"neighbours": results}))


if __name__ == "__main__":
    main()
