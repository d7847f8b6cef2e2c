"""How fast is the JSON of Project VIC imported, and how much memory does it take?

Writes files of 0.2 and 2 GB with random hashes in records of a realistic size, and imports each in a process of its
own: once only reading, which must take the same memory for both, and once as an import does, which also holds and
sorts the entries. The peak is that of the whole process, the interpreter and its libraries included.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from classifiers.blocklists.entries import collect  # noqa: E402 - the paths come first
from classifiers.blocklists.importers.protocol import ReadOptions  # noqa: E402
from classifiers.blocklists.importers.vics import VicsImporter  # noqa: E402

SIZES = (200_000_000, 2_000_000_000)  # bytes
QUICK_SIZES = (2_000_000, 20_000_000)
FORMS = ("read", "collect")
CONTEXT = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/Default/$metadata#Media"


def record(number: int, bits: bytes) -> str:
    """Return a record; bits: 180 random bytes."""
    fields = {
        "MediaID": number,
        "Category": number % 4,
        "MD5": bits[:16].hex().upper(),
        "SHA1": bits[16:36].hex().upper(),
        "PhotoDNA": base64.b64encode(bits[36:]).decode(),
        "MediaSize": 10_000 + number % 5_000_000,
        "MimeType": "image/jpeg",
        "DateUpdated": "2021-03-04T05:06:07.000Z",
        "Series": None,
        "Tags": None,
        "Comments": "",
        "VictimIdentified": False,
        "OffenderIdentified": False,
        "IsDistributed": True,
        "IsPrecategorized": "false",
        "PrecategorizationSource": None,
        "IsSuspected": False,
        "MediaFiles": [],
        "Exifs": [],
    }
    return json.dumps(fields)


def write(path: Path, size: int) -> None:
    """Write a file of about `size` bytes."""
    bits = random.Random(size)
    with path.open("w") as file:
        written = file.write(json.dumps({"@odata.context": CONTEXT, "value": []})[:-2])
        number = 0
        while written < size:
            written += file.write((",\n" if number else "") + record(number, bits.randbytes(180)))
            number += 1
        file.write("]}")


def import_one(path: Path, form: str) -> dict[str, float]:
    """Import a file in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    batches = VicsImporter().read([path], ReadOptions())
    result: dict[str, float] = {}
    if form == "read":
        result["records"] = sum(len(batch.records) for batch in batches)
    else:
        collected = collect(batches)
        result["records"] = collected.records
        result["entry_bytes"] = sum(
            rows.nbytes + collected.masks[name].nbytes for name, rows in collected.rows.items()
        )
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result |= {"seconds": seconds, "mb_per_s": path.stat().st_size / 1e6 / seconds}
    return result | {"peak_mb": peak / 1024, "peak_before_mb": before / 1024}


def measure(path: Path, form: str) -> dict[str, float]:
    """Import a file in a new process."""
    command = [sys.executable, __file__, "--file", str(path), "--form", form]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small files, to see that it works")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.file:
        print(json.dumps(import_one(chosen.file, chosen.form)))
        return
    from measuring import save  # noqa: PLC0415 - it loads torch, which would count in the memory of the imports

    sizes = QUICK_SIZES if chosen.quick else SIZES
    rows = []
    with tempfile.TemporaryDirectory(prefix="shardscrub-bench-") as folder:
        for size in sizes:
            path = Path(folder) / "media.json"
            write(path, size)
            for form in FORMS:
                rows.append({"file_bytes": path.stat().st_size, "form": form, **measure(path, form)})
                row = rows[-1]
                held = f", entries {row['entry_bytes'] / 1e6:.0f} MB" if "entry_bytes" in row else ""
                print(
                    f"{size / 1e9:g} GB, {form:<8}{row['records']:>10} records {row['seconds']:7.1f} s "
                    f"{row['mb_per_s']:6.1f} MB/s, peak {row['peak_mb']:.0f} MB{held}",
                    flush=True,
                )
    peaks = [row["peak_mb"] for row in rows if row["form"] == "read"]
    plan = {"sizes": sizes, "forms": FORMS}
    results = {"results": rows, "read_peak_ratio": peaks[-1] / peaks[0], "load": os.getloadavg()}
    print(f"reading: peak of the large file / of the small one {peaks[-1] / peaks[0]:.3f}")
    print(save("vics_import-quick" if chosen.quick else "vics_import", plan, results))


if __name__ == "__main__":
    main()
