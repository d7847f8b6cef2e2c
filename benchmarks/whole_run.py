"""What share of the bare model's forward rate does a whole run reach?

A scrape of drawn pictures is examined with a ViT-B-32 of random weights (stand-in), once in process (tools warm,
one worker) and once as the command `shardscrub run` (with its start). The reference is the same tower on as many
threads with views already in memory, the best of several batch sizes, timed before and after.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import numpy as np  # noqa: E402 - the paths come first
import stand_ins  # noqa: E402
import torch  # noqa: E402
from measuring import save  # noqa: E402
from scrapes import Scrape, jpeg, write_tar  # noqa: E402

from classifiers.embedders.open_clip import OpenClipEmbedder  # noqa: E402
from pipeline.examine import examine_shard  # noqa: E402
from pipeline.examiners import make_examiner  # noqa: E402
from pipeline.executors.protocol import WorkerOptions  # noqa: E402
from pipeline.resolve import UnsafeWarning  # noqa: E402
from pipeline.setup import begin, load_setup  # noqa: E402

SHARDS, SAMPLES, BATCHES = 3, 96, (16, 32, 64)


def bare_rate(embedder: OpenClipEmbedder, views: np.ndarray, batch: int) -> float:
    """Return forward passes a second over `views`, `batch` at a time."""
    began = time.perf_counter()
    for start in range(0, len(views), batch):
        embedder.embed(views[start : start + batch])
    return len(views) / (time.perf_counter() - began)


def best_bare(folder: Path, sha256: str, precision: str) -> float:
    """Return the best bare rate over the batch sizes, one thread."""
    views = np.random.default_rng(1).integers(0, 256, (64, 224, 224, 3), np.uint8)
    rates = []
    for batch in BATCHES:
        embedder = OpenClipEmbedder(
            folder, name="vit-b-32-stand-in@1", sha256=sha256, device="cpu", precision=precision, batch=batch
        )
        bare_rate(embedder, views[:batch], batch)
        rates.append(bare_rate(embedder, views, batch))
    return max(rates)


def main() -> None:
    """Measure, print and write the figures."""
    warnings.simplefilter("ignore", UnsafeWarning)
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="shardscrub-bench-"))
    try:
        results = measure(root)
    finally:
        shutil.rmtree(root)
    plan = {"shards": SHARDS, "samples": SAMPLES, "batches": BATCHES, "model": "ViT-B-32, random weights"}
    for name, value in results.items():
        print(f"{name:<44}{value if isinstance(value, str) else round(value, 3)}")
    print(save("whole_run", plan, {"results": results}))


def measure(root: Path) -> dict[str, float | str]:
    """Return rates and ratios."""
    sha256 = stand_ins.write_stand_in_clip(root / "model", seed=1, size="vit-b-32")
    scrape = Scrape.make(
        root / "scrape",
        embedder={"name": "vit-b-32-stand-in@1", "folder": str(root / "model"), "sha256": sha256},
        unsafe_stand_in_models=True,
    )
    for shard in range(SHARDS):
        pictures = [(f"{n:05d}.jpg", jpeg(shard * 1000 + n)) for n in range(SAMPLES)]
        write_tar(scrape.shards / f"{shard:05d}.tar", pictures)
    setup = load_setup(WorkerOptions(scrape.config))
    precision = setup.plan.examine.precision
    before = best_bare(root / "model", sha256, precision)
    begin(setup)
    with make_examiner(setup, lambda _: None) as examiner:
        examine_shard(setup.sources[0], examiner, settle=1)
        began = time.perf_counter()
        for source in setup.sources[1:]:
            examine_shard(source, examiner, settle=1)
        warm = SAMPLES * (SHARDS - 1) / (time.perf_counter() - began)
    after = best_bare(root / "model", sha256, precision)
    shutil.rmtree(scrape.collection)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", str(scrape.config), "--workers", "1"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    command = SAMPLES * SHARDS / (time.perf_counter() - began)
    bare = (before + after) / 2
    return {
        "precision": precision,
        "bare forward, images/s, one thread": bare,
        "examine, warm, images/s, one worker": warm,
        "share of the bare rate": warm / bare,
        "whole command with its start, images/s": command,
        "share of the bare rate, with the start": command / bare,
    }


if __name__ == "__main__":
    main()
