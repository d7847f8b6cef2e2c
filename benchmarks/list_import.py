"""How long does it take to import a list of ten million values, and in how much memory?

Each form is written once and, in a process of its own, imported into an encrypted store, read back and indexed as
a run does. The bounds on seconds are for an idle machine: 60 for the import, 120 with the index; that on memory is
for the import, on any machine.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the paths come first
from measuring import save  # noqa: E402

from classifiers.blocklists.algorithms import DEFAULT_RADIUS, DEFAULT_RADIUS_64, WIDTHS  # noqa: E402
from classifiers.blocklists.lists import make_feeds  # noqa: E402
from classifiers.blocklists.shared import attach_lists, share_indexes, share_lists  # noqa: E402
from manifests.cases import new_identity  # noqa: E402
from pipeline.lists.imports import import_list  # noqa: E402
from pipeline.lists.manifest import About  # noqa: E402
from pipeline.lists.store import ListStore  # noqa: E402

FORMS = {"md5": "md5", "pdq": "pdq", "algorithm,value": "pdq"}  # header and the algorithm of the values
RECORDS = 10_000_000
BLOCK = 100_000
MOST_SECONDS, MOST_SECONDS_WITH_INDEX = 60, 120
MOST_MIB = 2048


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


def measure_import(path: Path) -> dict[str, float]:
    """Import a file into an encrypted store in this process, then make it ready for a run.

    Seconds to import, to read it back and check it, and to index it; the peaks of resident memory so far.
    """
    store = ListStore(path.parent / "store", path.parent / "lists.key")
    store.key.write_text(new_identity()[0])
    store.key.chmod(0o600)
    began = time.perf_counter()
    manifest = import_list(store, "bench", [path], About(purpose="csam"), effect="case").manifest
    seconds, peak = time.perf_counter() - began, peak_mib()
    began = time.perf_counter()
    _, stored = store.read("bench")
    bounds = {"radius": DEFAULT_RADIUS, "radius64": DEFAULT_RADIUS_64}
    about = {"list_id": "bench", "version": 1, "purpose": "csam", "source": "", "set_digest": manifest.set_digest}
    lists_fd = share_lists(make_feeds(stored, **about, **bounds), [])
    del stored
    read_s = time.perf_counter() - began
    began = time.perf_counter()
    index_fd = share_indexes(attach_lists(lists_fd), threads=1)
    return {
        "taken": manifest.taken,
        "duplicates": manifest.duplicates,
        "seconds": seconds,
        "peak_mib": peak,
        "read_back_s": read_s,
        "index_s": time.perf_counter() - began,
        "shared_mb": sum(os.fstat(fd).st_size for fd in (lists_fd, index_fd) if fd is not None) / 1e6,
        "peak_with_index_mib": peak_mib(),
    }


def peak_mib() -> float:
    """Return the peak of resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure every form, print and write the figures."""
    if len(sys.argv) > 1:
        print(json.dumps(measure_import(Path(sys.argv[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="shardscrub-bench-") as folder:
        path = Path(folder) / "list.csv"
        for header, algorithm in FORMS.items():
            write_list(path, header, algorithm, RECORDS)
            command = [sys.executable, __file__, str(path)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"header": header, "algorithm": algorithm, "file_mb": path.stat().st_size / 1e6, **row})
            print(
                f"{header:<16} {row['seconds']:6.1f} s, {row['peak_mib']:.0f} MiB; read back "
                f"{row['read_back_s']:.1f} s; index {row['index_s']:.1f} s, {row['peak_with_index_mib']:.0f} MiB"
            )
            shutil.rmtree(path.parent / "store")
    plan = {"records": RECORDS, "forms": FORMS, "most_seconds": MOST_SECONDS, "most_mib": MOST_MIB}
    plan["most_seconds_with_index"] = MOST_SECONDS_WITH_INDEX
    print(save("list_import", plan, {"results": rows}))


if __name__ == "__main__":
    main()
