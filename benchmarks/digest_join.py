"""How many samples a second does the join of digests look up on one core, and what memory does it take?

Random digests of the width of an MD5, half of each batch listed; ours and the plain form get the same batches in
turn, pinned to one core, and have to agree. The memory is the list, its starts and the most that a call takes, over
the list. Where a CUDA device is there, the search of codes on it is timed too and held against counted bits.
`--quick` takes a small list, to see that it runs; its figures say nothing.
"""

from __future__ import annotations

import os
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the paths and the number of threads come first
import torch  # noqa: E402
from measuring import interleave, median_ratio, save  # noqa: E402

from classifiers.blocklists.algorithms import CODE_BYTES, DEFAULT_RADIUS, WIDTHS, Rows  # noqa: E402
from classifiers.blocklists.digest_join import bucket_starts, find_digests, find_digests_plainly  # noqa: E402
from classifiers.blocklists.entries import sort_rows  # noqa: E402
from classifiers.blocklists.torch_search import TorchCodes  # noqa: E402

QUICK = "--quick" in sys.argv[1:]
ENTRIES, BATCHES, ROUNDS = (200_000, 5, 2) if QUICK else (16_000_000, 50, 7)
CODES, QUERIES = (100_000, 8_192) if QUICK else (10_000_000, 65_536)
BATCH = 10_000
COUNTED = 64  # queries whose hits are held against counted bits
LEAST_PER_S, MOST_MEMORY, LEAST_QUERIES_PER_S = 1_200_000, 1.5, 50_000
RANDOM = np.random.default_rng(0)
NO_DEVICE = "not measured: no CUDA device"


def random_rows(count: int, width: int) -> Rows:
    """Return rows of random bytes."""
    return RANDOM.integers(0, 256, (count, width), dtype=np.uint8)


def half_listed(rows: Rows) -> Rows:
    """Return one batch."""
    batch = random_rows(BATCH, rows.shape[1])
    batch[: BATCH // 2] = rows[RANDOM.integers(0, len(rows), BATCH // 2)]
    return RANDOM.permutation(batch)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most memory that a call takes at any time, what it returns counted in."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def join() -> dict[str, object]:
    """Time both forms over the same batches."""
    values = random_rows(ENTRIES, WIDTHS["md5"])
    rows, _ = sort_rows(values, np.zeros(ENTRIES, np.uint64))
    starts = bucket_starts(rows)
    batches = [half_listed(rows) for _ in range(BATCHES)]
    for batch in batches:
        found, expected = find_digests(rows, starts, batch), find_digests_plainly(rows, batch)
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
        assert found[0].sum() == BATCH // 2
    seconds = interleave(
        {
            "plain": lambda: [find_digests_plainly(rows, batch) for batch in batches],
            "ours": lambda: [find_digests(rows, starts, batch) for batch in batches],
            "starts": lambda: bucket_starts(rows),
        },
        rounds=ROUNDS,
    )
    making = peak_bytes(lambda: bucket_starts(rows))
    looking = starts.nbytes + peak_bytes(lambda: find_digests(rows, starts, batches[0]))
    return {
        "samples_per_s": {name: BATCH * BATCHES / statistics.median(seconds[name]) for name in ("plain", "ours")},
        "slowest_samples_per_s": BATCH * BATCHES / max(seconds["ours"]),
        "ratio": median_ratio(seconds["plain"], seconds["ours"]),
        "starts_s": statistics.median(seconds["starts"]),
        "list_and_starts": 1 + starts.nbytes / rows.nbytes,
        "memory": 1 + max(making, looking) / rows.nbytes,
    }


def counted(codes: Rows, query: Rows) -> list[tuple[int, int]]:
    """Return entry and distance of every code within the radius of one query."""
    distances = np.bitwise_count(codes.view(np.uint64) ^ query.view(np.uint64)).sum(axis=1)
    return [(int(entry), int(distances[entry])) for entry in np.flatnonzero(distances <= DEFAULT_RADIUS)]


def search() -> dict[str, object] | str:
    """Time the search of codes on a CUDA device, with one query in a hundred near a listed code."""
    if not torch.cuda.is_available():
        return NO_DEVICE
    codes, queries = random_rows(CODES, CODE_BYTES), random_rows(QUERIES, CODE_BYTES)
    near = np.arange(0, QUERIES, 100)
    queries[near] = codes[RANDOM.integers(0, CODES, len(near))]
    queries[near, :4] ^= random_rows(len(near), 4)  # at most 32 bits off
    listed = TorchCodes(codes, "cuda")
    torch.cuda.reset_peak_memory_stats()
    hits = listed.search(queries, DEFAULT_RADIUS)
    chosen = np.concatenate((near[: COUNTED // 2], near[: COUNTED // 2] + 1))
    for query in chosen.tolist():
        at = hits.query == query
        assert list(zip(hits.entry[at].tolist(), hits.distance[at].tolist(), strict=True)) == counted(
            codes, queries[query]
        )
    seconds = interleave({"search": lambda: listed.search(queries, DEFAULT_RADIUS)}, rounds=ROUNDS)["search"]
    return {
        "device": torch.cuda.get_device_name(),
        "queries_per_s": QUERIES / statistics.median(seconds),
        "hits": len(hits),
        "peak_device_bytes": torch.cuda.max_memory_allocated(),
    }


def main() -> None:
    """Measure, print the figures and write them."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    plan = {
        "entries": ENTRIES,
        "batch": BATCH,
        "batches": BATCHES,
        "rounds": ROUNDS,
        "least_samples_per_s": LEAST_PER_S,
        "most_memory": MOST_MEMORY,
        "codes": CODES,
        "queries": QUERIES,
        "least_queries_per_s": LEAST_QUERIES_PER_S,
    }
    load = os.getloadavg()[0]
    joined, searched = join(), search()
    print(f"{ENTRIES:,} digests, batches of {BATCH:,}:")
    for name, rate in joined["samples_per_s"].items():
        print(f"    {name:<8}{rate / 1e6:8.2f} M samples/s")
    print(
        f"    ratio {joined['ratio']:.1f}x, slowest round {joined['slowest_samples_per_s'] / 1e6:.2f} M samples/s"
    )
    print(f"    list and starts {joined['list_and_starts']:.4f}, with all that a call takes {joined['memory']:.4f}")
    print(f"    starts made in {joined['starts_s']:.3f} s")
    print(f"{CODES:,} codes on a device: {searched}")
    name = "digest_join_quick" if QUICK else "digest_join"
    print(save(name, plan, {"load_at_start": load, "join": joined, "search": searched}))


if __name__ == "__main__":
    main()
