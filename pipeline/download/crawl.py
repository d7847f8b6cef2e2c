"""img2dataset in a process of its own, with the only safe settings.

Owns that process: original bytes, a digest, headers that refuse heeded, no second tries, nothing of the environment
that could send a request elsewhere. It is given addresses of the gateway only, and its folders by files.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from manifests.collection import RESTRICTED_FILE_MODE
from pipeline.download.settings import DownloadConfig

_PR_SET_PDEATHSIG = 1
_GATEWAY_ANSWERS_S = 7 * 24 * 3600  # it always does, so that no fetch is given up that the gateway still makes


@contextmanager
def crawling(work: Path, log: Path, settings: DownloadConfig) -> Iterator[subprocess.Popen[bytes]]:
    """Crawl the tables in `work/in` into `work/out` while the block runs, and leave nothing running after it."""
    options = {
        "url_list": str(work / "in"),
        "output_folder": str(work / "out"),
        "input_format": "parquet",
        "output_format": "webdataset",
        "save_additional_columns": ["source_url"],
        "processes_count": 1,
        "thread_count": settings.connections,
        "number_sample_per_shard": settings.rows_per_shard,
        "disable_all_reencoding": True,
        "resize_mode": "no",
        "extract_exif": False,
        "compute_hash": "sha256",
        "retries": 0,
        "timeout": _GATEWAY_ANSWERS_S,
        "user_agent_token": settings.agent,
        "disallowed_header_directives": [] if settings.unsafe_ignore_opt_out else None,  # None: img2dataset's own
    }
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept |= {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "no_proxy": "*"}
    with log.open("wb") as errors:
        os.fchmod(errors.fileno(), RESTRICTED_FILE_MODE)
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "pipeline.download.crawl"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=kept,
            start_new_session=True,
        )
        try:
            assert child.stdin is not None  # asked for above
            child.stdin.write(json.dumps([os.getpid(), options]).encode())
            child.stdin.close()
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _work(parent: int, options: dict[str, Any]) -> None:
    if os.getppid() == parent:  # else it died before this process could ask to be told
        from img2dataset import download  # noqa: PLC0415 - heavy, and for this process alone

        download(**options)


if __name__ in ("__main__", "__mp_main__"):  # the latter is a process that img2dataset starts
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.modules["torch"] = None  # type: ignore[assignment] # webdataset does without it, and spares 200 MB a process
if __name__ == "__main__":
    _work(*json.load(sys.stdin))
