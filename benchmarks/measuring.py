"""What every benchmark shares: the machine's description, interleaved timing, JSON out.

Figures are ratios against a named reference in the same process and run; absolute times are there to read only.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from manifests.records import digest_json
from pipeline.plan import software_versions

OUT = Path(__file__).parent / "out"


def machine() -> dict[str, object]:
    """Return what the figures depend on, without naming the host."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "software": list(software_versions()),
    }


def interleave(forms: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Time each form once a round, in turn, after one untimed round; seconds by form."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for round_number in range(rounds + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            form()
            if round_number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median_ratio(reference: Sequence[float], ours: Sequence[float]) -> float:
    """Return the median of the pairwise ratios reference / ours."""
    return statistics.median(a / b for a, b in zip(reference, ours, strict=True))


def save(name: str, plan: dict[str, object], results: dict[str, object]) -> Path:
    """Write the figures with the machine and the digest of what was measured."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    record = {"benchmark": name, "machine": machine(), "plan": plan, "plan_digest": digest_json(plan), **results}
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
