"""How long does it take to import a list of ten million values, and in how much memory?

Each form is written once and imported in a process of its own, up to sorted, unique rows (`entries.collect`). The
bound on seconds is for an idle machine; the bound on memory is for any.
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
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the paths come first
from measuring import save  # noqa: E402

from classifiers.blocklists.algorithms import WIDTHS  # noqa: E402
from classifiers.blocklists.entries import collect  # noqa: E402
from classifiers.blocklists.importers.plain import PlainImporter  # noqa: E402
from classifiers.blocklists.importers.protocol import ReadOptions  # noqa: E402

FORMS = {"md5": "md5", "pdq": "pdq", "algorithm,value": "pdq"}  # header and the algorithm of the values
RECORDS = 10_000_000
BLOCK = 100_000
MOST_SECONDS = 60
MOST_MB = 2048


def write_list(path: Path, header: str, algorithm: str, records: int) -> None:
    """Write random values as hex; one in ten thousand comes twice."""
    random = np.random.default_rng(1)
    width = WIDTHS[algorithm]
    prefix = f"{algorithm}," if "," in header else ""
    with path.open("w") as out:
        out.write(header + "\n")
        for first in range(0, records, BLOCK):
            count = min(BLOCK, records - first)
            values = random.integers(0, 256, (count, width), np.uint8)
            values[: count // 10_000] = values[-1]
            digits = values.tobytes().hex()
            cells = (digits[at : at + 2 * width] for at in range(0, len(digits), 2 * width))
            out.write("".join(f"{prefix}{cell}\n" for cell in cells))


def import_list(path: Path) -> dict[str, float]:
    """Import a file in this process; seconds to read alone, to read and sum up, and the peak of resident memory."""
    importer, options = PlainImporter(), ReadOptions()
    began = time.perf_counter()
    for _ in importer.read([path], options):
        pass
    read = time.perf_counter() - began
    began = time.perf_counter()
    found = collect(importer.read([path], options))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "taken": found.taken,
        "duplicates": found.duplicates,
        "read_s": read,
        "seconds": seconds,
        "peak_mb": peak,
    }


def main() -> None:
    """Measure every form, print and write the figures."""
    if len(sys.argv) > 1:
        print(json.dumps(import_list(Path(sys.argv[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="shardscrub-bench-") as folder:
        path = Path(folder) / "list.csv"
        for header, algorithm in FORMS.items():
            write_list(path, header, algorithm, RECORDS)
            command = [sys.executable, __file__, str(path)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"header": header, "algorithm": algorithm, "file_mb": path.stat().st_size / 1e6, **row})
            print(f"{header:<16} {row['seconds']:6.1f} s ({row['read_s']:.1f} s to read), {row['peak_mb']:.0f} MB")
    plan = {"records": RECORDS, "forms": FORMS, "most_seconds": MOST_SECONDS, "most_mb": MOST_MB}
    print(save("list_import", plan, {"results": rows}))


if __name__ == "__main__":
    main()
