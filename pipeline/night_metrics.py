"""What a night tells Prometheus, as a file for the textfile collector of its node exporter.

Knows in, kept, not kept and faults of the newest settle, and nothing by list, action or shard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from manifests import durable
from pipeline.config import Config
from pipeline.lists.store import ListStore

_HELP = {
    "shardscrub_in_samples": "Samples in the newest settle.",
    "shardscrub_kept_samples": "Samples that the newest settle released.",
    "shardscrub_not_kept_samples": "Samples that the newest settle did not release.",
    "shardscrub_fault_samples": "Samples of the newest settle that could not be judged in full.",
    "shardscrub_examined_samples_per_second": "Rate at which the last night examined; 0 where nothing was new.",
    "shardscrub_oldest_list_age_seconds": "Time since the oldest list in use was imported, when the night ended.",
    "shardscrub_nightly_last_success_timestamp_seconds": "When the last night without an error ended.",
    "shardscrub_nightly_exit_code": "Exit code of the last night.",
}


def write_metrics(
    path: Path, counts: Sequence[float | None], ended: tuple[float, float | None, float | None, int]
) -> None:
    """Write the metrics in the text format of Prometheus, version 0.0.4; one that is not known (None) is left out.

    Args:
        path: the file.
        counts: in, kept, not kept, faults.
        ended: samples examined a second, age of the oldest list, Unix time of the last success, exit code.
    """
    lines = []
    for (name, told), value in zip(_HELP.items(), (*counts, *ended), strict=True):
        if value is not None:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge", f"{name} {value!r}"]
    durable.make_folder(path.parent)
    durable.sweep(path.parent, re.escape(path.name))
    durable.write(path, "\n".join([*lines, ""]).encode(), replace=True)


def oldest_list_age_s(config: Config, now: datetime) -> float | None:
    """Return how long ago the oldest list in use was imported; None where there is none, or one cannot be read.

    What is wrong with a list is told by the stage that needs it.
    """
    assert config.lists.store is not None or not config.list  # `load_config` refuses it
    try:
        stores = [(ListStore(config.lists.store), item) for item in config.list if config.lists.store]
        used = [store.manifest(item.id, item.version or None) for store, item in stores]
    except ListError:
        return None
    return max(((now - datetime.fromisoformat(one.imported_at)).total_seconds() for one in used), default=None)
