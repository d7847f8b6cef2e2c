"""How long a report on a million decisions takes, how large it is, and what memory it needs.

Makes the records and decisions of a settle of 100 shards with 10,000 samples each, drawn at random, with the
schemas of a real one, and writes its reports. The figures must be those of `summary.json`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

from made_reports import make_settled  # noqa: E402 - the paths come first
from measuring import save  # noqa: E402

SHARDS, SAMPLES = 100, 10_000
COMMAND = "import sys; from pipeline.cli import main; sys.argv[0] = 'shardscrub'; main()"


def main() -> int:
    """Make the run, report on it with the command, check and save the figures."""
    with tempfile.TemporaryDirectory() as folder:
        home, out = make_settled(Path(folder) / "collection", SHARDS, SAMPLES), Path(folder) / "out"
        began = time.perf_counter()
        command = [sys.executable, "-c", COMMAND, "report", str(home.root), "--to", str(out)]
        subprocess.run(command, cwd=ROOT, check=True)
        seconds = time.perf_counter() - began
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        sizes = {str(path.relative_to(out)): path.stat().st_size for path in sorted(out.rglob("report.*"))}
        close = json.loads((out / "settled/0001/report.json").read_bytes())["close"]
        summary = json.loads((home.settled(1) / "summary.json").read_bytes())
    same = {"number": close["number"], **close["counts"]} == summary
    print(f"{summary['samples']} decisions: {seconds:.2f} s, peak {peak_mb:.0f} MB, same figures: {same}, {sizes}")
    plan: dict[str, object] = {"shards": SHARDS, "samples": SAMPLES}
    print(save("report", plan, {"seconds": seconds, "peak_mb": peak_mb, "bytes": sizes, "same_figures": same}))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
