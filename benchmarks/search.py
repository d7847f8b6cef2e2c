"""How fast is the exact search for codes, one thread, and how long does a night of them take?

Against faiss (IndexBinaryFlat, one thread) on the same queries, in turn, with every hit compared; half of the
queries lie 0 to 40 bits from a code, half are strangers. Codes are uniform or smooth: bits of blurred fields cut at
their median, so that neighbours agree far more often than in the codes of photographs. The index lies in shared
memory without huge pages, as in a run. Then the join of settling, in a process of its own, so that its peak is its
own. Last, against the PDQIndex of threatexchange, where that is installed.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import faiss  # noqa: E402 - the paths and the number of threads come first
import numpy as np  # noqa: E402
from measuring import interleave, median_ratio, save  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from classifiers.blocklists.algorithms import CODE_BYTES, DEFAULT_RADIUS, Rows  # noqa: E402
from classifiers.blocklists.band_index import (  # noqa: E402
    BandIndex,
    build_index,
    index_shapes,
    join_codes,
    search_index,
)
from classifiers.blocklists.hits import CodeHits  # noqa: E402

QUICK = "--quick" in sys.argv
SCALE = 20 if QUICK else 1
SIZES = {1_000_000 // SCALE: 8, 10_000_000 // SCALE: 30}  # and the least ratio to faiss that is asked of it
JOINS = {1_000_000 // SCALE: 90, 8_000_000 // SCALE: 480}  # queries, and the most seconds
JOIN_THREADS = 2
MOST_JOIN_GIB = 3
MOST_BUILD_S = 60
MOST_SHARED_GIB = 4
QUERIES = 500
RADII = (0, 15, 16, DEFAULT_RADIUS, 47)  # at which the hits are compared at the smaller size
ALONE = 100  # of them, one a call
ROUNDS = 3
LIBRARY_CODES = 200_000 // SCALE
LIBRARY_QUERIES = 1_000_000 // SCALE  # of ours, joined
LIBRARY_RATIO = 50
GIB = 1 << 30


def uniform_codes(random: np.random.Generator, count: int) -> Rows:
    """Return codes whose bits know nothing of each other."""
    return random.integers(0, 256, (count, CODE_BYTES), dtype=np.uint8)


def smooth_codes(random: np.random.Generator, count: int) -> Rows:
    """Return codes whose neighbouring bits mostly agree: noise, blurred (1 4 6 4 1), cut at its median."""
    codes = np.empty((count, CODE_BYTES), np.uint8)
    for start in range(0, count, 20_000):
        field = random.integers(0, 256, (min(20_000, count - start), 16, 16), dtype=np.uint8).astype(np.int32)
        for axis in (1, 2):
            for _ in range(2):
                field = 2 * field + np.roll(field, 1, axis) + np.roll(field, -1, axis)
        flat = field.reshape(-1, 256)
        middle = np.partition(flat, 128, axis=1)[:, 128:129]
        codes[start : start + len(flat)] = np.packbits(flat >= middle, axis=1)
    return codes


KINDS = {"uniform": uniform_codes, "smooth": smooth_codes}


def make_queries(random: np.random.Generator, codes: Rows, strangers: Rows) -> Rows:
    """Return the strangers and as many rows of codes with 0 to 40 bits flipped, mixed.

    Every other row has them dealt out over the rows of 16 bits, which an index that gives up too early misses.
    """
    dealt = np.arange(256).reshape(16, 16).T.ravel()
    bits = np.unpackbits(codes[random.integers(0, len(codes), len(strangers))], axis=1)
    for distance, row in enumerate(bits):
        places = dealt if distance % 2 else random.permutation(256)
        row[places[: distance // 2 % 41]] ^= 1
    return random.permutation(np.concatenate([strangers, np.packbits(bits, axis=1)]))


def shared_index(codes: Rows) -> tuple[BandIndex, float]:
    """Build an index on one thread in anonymous shared memory; return the seconds too."""
    shapes = index_shapes(*codes.shape)
    sizes = [int(np.prod(shape)) for shape in shapes]
    memory = mmap.mmap(-1, sizes[0] * 4 + sizes[1] * 8 + 8)
    records = np.frombuffer(memory, np.uint64, sizes[1]).reshape(shapes[1])
    offsets = np.frombuffer(memory, np.uint32, sizes[0], offset=sizes[1] * 8).reshape(shapes[0])
    small = index_shapes(1, CODE_BYTES)
    build_index(codes[:1], np.empty(small[0], np.uint32), np.empty(small[1], np.uint64))  # compiles
    began = time.perf_counter()
    return build_index(codes, offsets, records), time.perf_counter() - began


def pairs(hits: CodeHits) -> NDArray[np.int64]:
    """Return query, entry and distance, by query and entry."""
    return np.stack([hits.query, hits.entry, hits.distance], axis=1)


def faiss_pairs(index: faiss.IndexBinaryFlat, queries: Rows, radius: int) -> NDArray[np.int64]:
    """Return what faiss finds in the same form; it searches strictly below its argument."""
    limits, distance, entry = index.range_search(queries, radius + 1)
    query = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
    found = np.stack([query, entry, distance.astype(np.int64)], axis=1)
    return found[np.lexsort((entry, query))]


def lookups(kind: str, count: int, bar: int) -> dict[str, object]:
    """Time both on the same queries; the hits must be the same."""
    random = np.random.default_rng(count)
    codes = KINDS[kind](random, count)
    queries = make_queries(random, codes, KINDS[kind](random, QUERIES // 2))
    index, build_s = shared_index(codes)
    flat = faiss.IndexBinaryFlat(CODE_BYTES * 8)
    flat.add(codes)
    for radius in RADII if count == min(SIZES) else (DEFAULT_RADIUS,):
        ours = pairs(search_index(index, codes, queries, radius))
        joined = pairs(join_codes(codes, queries, radius))
        if not all(np.array_equal(found, faiss_pairs(flat, queries, radius)) for found in (ours, joined)):
            raise AssertionError(f"{kind}, {count} codes, radius {radius}: the hits are not those of faiss")
    ours = pairs(search_index(index, codes, queries, DEFAULT_RADIUS))
    forms = {
        "faiss": lambda: flat.range_search(queries, DEFAULT_RADIUS + 1),
        "ours": lambda: search_index(index, codes, queries, DEFAULT_RADIUS),
        "ours, one a call": lambda: [
            search_index(index, codes, queries[row : row + 1], DEFAULT_RADIUS) for row in range(ALONE)
        ],
    }
    seconds = interleave(forms, rounds=ROUNDS)
    ms = {name: statistics.median(values) / len(queries) * 1e3 for name, values in seconds.items()}
    ms["ours, one a call"] *= len(queries) / ALONE
    shared_gib = (index.offsets.nbytes + index.records.nbytes + codes.nbytes) / GIB
    ratio = median_ratio(seconds["faiss"], seconds["ours"])
    print(f"{count} {kind} codes: built in {build_s:.1f} s, {shared_gib:.2f} GiB, {len(ours)} hits, the same")
    print(f"    {', '.join(f'{name} {value:.3f} ms' for name, value in ms.items())}: {ratio:.1f}x ({bar}x asked)")
    return {
        "codes": count,
        "kind": kind,
        "ms_a_query": ms,
        "ratio": ratio,
        "least_ratio": bar,
        "build_s": build_s,
        "most_build_s": MOST_BUILD_S,
        "shared_gib": shared_gib,
        "most_shared_gib": MOST_SHARED_GIB,
        "hits": len(ours),
    }


def join(count: int) -> None:
    """Join so many queries with the most codes and print the figures; every thousandth query is a planted one."""
    random = np.random.default_rng(count)
    codes = uniform_codes(random, max(SIZES))
    queries = uniform_codes(random, count)
    rows = np.arange(0, count, 1000)
    queries[rows] = codes[rows]
    join_codes(codes[:10_000], queries[:5_000], DEFAULT_RADIUS)  # compiles
    began, began_cpu = time.perf_counter(), time.process_time()
    hits = join_codes(codes, queries, DEFAULT_RADIUS, threads=JOIN_THREADS)
    spent = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu}
    if not np.isin(rows, hits.query[hits.distance == 0]).all():
        raise AssertionError("a planted query was lost")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    print(json.dumps({"queries": count, "codes": len(codes), **spent, "peak_gib": peak_gib, "hits": len(hits)}))


def joins() -> list[dict[str, object]]:
    """Run every join in its own process."""
    rows = []
    for count, bar in JOINS.items():
        command = [sys.executable, __file__, "--join", str(count), *(["--quick"] if QUICK else [])]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append({**row, "threads": JOIN_THREADS, "most_s": bar, "most_peak_gib": MOST_JOIN_GIB})
        print(f"{count} x {row['codes']}: {row['s']:.0f} s ({bar} at most), {row['peak_gib']:.2f} GiB")
        print(f"    {row['cpu_s']:.0f} s of a core")
    return rows


def library() -> dict[str, object] | str:
    """Compare with the library that platforms use: it takes one query a call, ours any number."""
    if find_spec("threatexchange") is None:
        return "not measured: threatexchange is not installed"
    from threatexchange.signal_type.pdq.pdq_index import PDQIndex  # noqa: PLC0415 - no dependency of ours

    random = np.random.default_rng(1)
    codes = uniform_codes(random, LIBRARY_CODES)
    queries = make_queries(random, codes, uniform_codes(random, QUERIES // 2))
    theirs = PDQIndex([(code.tobytes().hex(), row) for row, code in enumerate(codes)])
    many = uniform_codes(random, LIBRARY_QUERIES)
    asked = [query.tobytes().hex() for query in queries]
    index, _ = shared_index(codes)
    ours = pairs(search_index(index, codes, queries, DEFAULT_RADIUS))
    found = {(row, match.metadata) for row, query in enumerate(asked) for match in theirs.query(query)}
    forms = {
        "threatexchange": lambda: [theirs.query(query) for query in asked],
        "ours": lambda: search_index(index, codes, queries, DEFAULT_RADIUS),
        "ours, one a call": lambda: [
            search_index(index, codes, queries[row : row + 1], DEFAULT_RADIUS) for row in range(len(queries))
        ],
        "ours, joined": lambda: join_codes(codes, many, DEFAULT_RADIUS),
    }
    each = interleave(forms, rounds=ROUNDS)
    each["ours, joined"] = [value * len(queries) / len(many) for value in each["ours, joined"]]
    rates = {name: len(queries) / statistics.median(values) for name, values in each.items()}
    ratios = {name: median_ratio(each["threatexchange"], each[name]) for name in forms}
    expected = {(query, entry) for query, entry, _ in ours.tolist()}
    print(f"PDQIndex, {LIBRARY_CODES} codes: {', '.join(f'{name} {rate:.0f}/s' for name, rate in rates.items())}")
    print(f"    {', '.join(f'{name} {ratio:.1f}x' for name, ratio in ratios.items())} ({LIBRARY_RATIO}x asked)")
    print(f"    of {len(expected)} hits it misses {len(expected - found)} and has {len(found - expected)} more")
    return {
        "codes": LIBRARY_CODES,
        "queries_a_second": rates,
        "ratio": ratios,
        "least_ratio": LIBRARY_RATIO,
        "hits": len(expected),
        "missed": len(expected - found),
    }


def main() -> None:
    """Measure, print a table and write the figures."""
    if "--join" in sys.argv:
        return join(int(sys.argv[sys.argv.index("--join") + 1]))
    join_rows = joins()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    faiss.omp_set_num_threads(1)
    compared = library()
    if isinstance(compared, str):
        print(compared)
    rows = [lookups(kind, count, bar) for count, bar in SIZES.items() for kind in KINDS]
    plan = {
        "sizes": list(SIZES),
        "joins": list(JOINS),
        "join_threads": JOIN_THREADS,
        "queries": QUERIES,
        "rounds": ROUNDS,
        "radius": DEFAULT_RADIUS,
        "library_codes": LIBRARY_CODES,
    }
    name = "search-quick" if QUICK else "search"
    print(save(name, plan, {"lookups": rows, "joins": join_rows, "library": compared}))


if __name__ == "__main__":
    main()
