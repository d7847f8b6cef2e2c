"""Does peak memory grow with the number of shards?

Runs the command on 10 and on 200 shards of 1,000 small drawn pictures with a tiny stand-in tower, and watches the
resident memory of the whole process tree, shared pages counted once (PSS).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import stand_ins  # noqa: E402 - the paths come first
from measuring import save  # noqa: E402
from scrapes import Scrape, draw, encode, write_tar  # noqa: E402

SAMPLES, COUNTS, WORKERS, INTERVAL_S = 1000, (10, 200), 2, 0.2


def tree(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found, waiting = [], [pid]
    while waiting:
        now = waiting.pop()
        found.append(now)
        try:
            for task in Path(f"/proc/{now}/task").iterdir():
                waiting += [int(text) for text in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def resident_mb(pid: int) -> float:
    """Return the proportional resident memory of one process, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def peak_of_run(root: Path, model: Path, sha256: str, shards: int) -> dict[str, float]:
    """Run on `shards` copies of one shard and return peak memory and duration."""
    scrape = Scrape.make(
        root / f"scrape-{shards}",
        embedder={"name": "tiny-stand-in@1", "folder": str(model), "sha256": sha256, "precision": "fp32"},
        unsafe_stand_in_models=True,
    )
    first = scrape.shards / "00000.tar"
    write_tar(first, ((f"{n:05d}.jpg", encode(draw(n, size=(96, 72)))) for n in range(SAMPLES)))
    for number in range(1, shards):
        (scrape.shards / f"{number:05d}.tar").hardlink_to(first)
    began, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", str(scrape.config), "--workers", str(WORKERS)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        peak = max(peak, sum(resident_mb(pid) for pid in tree(process.pid)))
        time.sleep(INTERVAL_S)
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}")
    return {"shards": shards, "peak_mb": peak, "seconds": time.monotonic() - began}


def main() -> None:
    """Measure, print and write the figures."""
    root = Path(tempfile.mkdtemp(prefix="shardscrub-bench-"))
    try:
        sha256 = stand_ins.write_stand_in_clip(root / "model", seed=1)
        results = [peak_of_run(root, root / "model", sha256, count) for count in COUNTS]
    finally:
        shutil.rmtree(root)
    ratio = results[-1]["peak_mb"] / results[0]["peak_mb"]
    for row in results:
        print(f"{row['shards']:>4} shards of {SAMPLES}: peak {row['peak_mb']:.0f} MB, {row['seconds']:.0f} s")
    print(f"ratio {ratio:.3f}")
    plan = {"samples": SAMPLES, "counts": COUNTS, "workers": WORKERS}
    print(save("memory", plan, {"results": results, "ratio": ratio}))


if __name__ == "__main__":
    main()
