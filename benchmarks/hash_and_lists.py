"""How many images a second without a model: digests, perceptual hashes and lists only, on all cores?

Ours: `shardscrub run` on drawn JPEGs of 200 to 520 px with a list of a million PDQ codes, once with every default
hash and view, once with the stored orientation alone. Reference, the same images, views and variants, as many
processes: Pillow, hashlib, pdqhash and faiss' flat binary index. Where a default of ours looks for more (borders,
embedded thumbnails, turned forms of what is inside them), the reference is spared it.

The shards of ours are links to the same few tars, so that the pace is not that of the start; the rate of the
whole command stands beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import end_to_end  # noqa: E402 - the paths come first
import faiss  # noqa: E402
import numpy as np  # noqa: E402
import pdqhash  # noqa: E402
from measuring import save  # noqa: E402
from PIL import Image  # noqa: E402
from scrapes import Scrape  # noqa: E402

from manifests.tars import index_tar, read_member  # noqa: E402

CASES = {"every default": {}, "stored orientation": {"kinds": ["pdq:fullres"], "views": ["oriented"]}}
RADIUS = 31


def images_of(tar: Path) -> Iterator[bytes]:
    """The JPEGs of a tar."""
    index = index_tar(tar)
    with tar.open("rb") as file:
        for member in index.members:
            if member.name.endswith(".jpg"):
                yield read_member(file, member)


def reference(tars: list[Path], codes: Path, variants: int, ready: object, go: object, done: object) -> None:
    """Digest, hash and search every image of some tars, as one would with the libraries of others."""
    faiss.omp_set_num_threads(1)
    index = faiss.IndexBinaryFlat(256)
    index.add(np.load(codes))
    ready.release()  # type: ignore[attr-defined]
    go.wait()  # type: ignore[attr-defined]
    count = 0
    for tar in tars:
        for data in images_of(tar):
            for kind in ("md5", "sha1", "sha256"):
                hashlib.new(kind, data).digest()
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            bits = pdqhash.compute_dihedral(pixels)[0] if variants == 8 else [pdqhash.compute(pixels)[0]]
            index.range_search(np.packbits(np.asarray(bits, np.uint8), axis=1), RADIUS + 1)
            count += 1
    done.put(count)  # type: ignore[attr-defined]


def time_reference(tars: list[Path], codes: Path, *, variants: int, processes: int) -> float:
    """Return the images a second of `processes` references at once, from when all of them have their index."""
    spawn = multiprocessing.get_context("spawn")
    ready, go, done = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    running = [
        spawn.Process(target=reference, args=(tars[n::processes], codes, variants, ready, go, done))
        for n in range(processes)
    ]
    for process in running:
        process.start()
    for _ in running:
        ready.acquire()
    began = time.perf_counter()
    go.set()
    count = sum(done.get() for _ in running)
    seconds = time.perf_counter() - began
    for process in running:
        process.join()
    return count / seconds


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--times", type=int, default=10, help="how often ours sees them")
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    root, cores = Path(tempfile.mkdtemp(prefix="shardscrub-bench-")), len(os.sched_getaffinity(0))
    results: dict[str, dict[str, object]] = {}
    try:
        scrape = end_to_end.make(root / "scrape", given.images, model=None)
        del scrape.settings["text"]
        tars = sorted(scrape.shards.glob("*.tar"))
        np.save(root / "codes.npy", np.random.default_rng(1).integers(0, 256, (end_to_end.LISTED, 32), np.uint8))
        for number in range(len(tars), len(tars) * given.times):
            (scrape.shards / f"{number:05d}.tar").hardlink_to(tars[number % len(tars)])
        for case, hashes in CASES.items():
            results[case] = measure(scrape, hashes, tars, root / "codes.npy", given, cores)
            print(case, json.dumps(results[case]), flush=True)
    finally:
        shutil.rmtree(root)
    plan = {"images": given.images, "times": given.times, "pairs": given.pairs, "listed": end_to_end.LISTED}
    print(save("hash_and_lists", plan, results))


def measure(
    scrape: Scrape,
    hashes: dict[str, list[str]],
    tars: list[Path],
    codes: Path,
    given: argparse.Namespace,
    cores: int,
) -> dict[str, object]:
    """Return the rates of one case, ours and the reference's in turn."""
    scrape.settings |= {"hashes": hashes} if hashes else {}
    scrape.write()
    ours, theirs = [], []
    alone = end_to_end.run(scrape, given.images * given.times, workers=1)
    for _ in range(given.pairs):
        ours.append(end_to_end.run(scrape, given.images * given.times))
        variants = 1 if hashes else 8
        theirs.append(time_reference(tars, codes, variants=variants, processes=cores))
    return {
        "ours, images/s": ours,
        "ours with one worker, images/s": alone,
        "reference, images/s": theirs,
        "ratio of examine (median)": statistics.median(
            one["examine"] / rate for one, rate in zip(ours, theirs, strict=True)
        ),
    }


if __name__ == "__main__":
    main()
