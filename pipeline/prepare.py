"""What the commands that run share before and after their work: setup, options and workers; errors that end a run.

- A configuration is resolved once: device, lists and stamps are then the same for all workers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from manifests.commits import Close
from pipeline.config import load_config
from pipeline.errors import ConfigError, ExitCode, InputError, RunError
from pipeline.executors.protocol import WorkerOptions
from pipeline.mirroring import join
from pipeline.resolve import READABLE_STAMP, check_releasable
from pipeline.runs import Examined
from pipeline.setup import Setup, load_setup


def prepare(
    config: Path,
    workers: int | None = None,
    device: str = "auto",
    *,
    policy: str = "",
    lists: Sequence[str] = (),
    shards: bool | None = None,
    from_stored: bool = False,
    readable: bool | None = None,
    writes: bool = True,
) -> tuple[Setup, WorkerOptions, int]:
    """Resolve a configuration, and what the command line says anew of it; see `WorkerOptions`.

    What lies in the collection's bucket is learnt first, unless nothing is to be written.

    Returns:
        The setup, the options of its workers, and how many workers there are to be.

    Raises:
        ConfigError: something is not usable.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device: expected auto, cpu or cuda, found {device!r}")
    given = (config.absolute(), device, policy, tuple(lists), shards, from_stored)
    options = WorkerOptions(*given, readable=readable)
    if writes:
        join(load_config(config))
    setup = load_setup(options)
    check_releasable(setup.config, setup.decider.policy)
    readable = READABLE_STAMP in setup.plan.stamps
    resolved = setup.plan.examine.device
    options = replace(options, device=resolved, lists_fd=setup.lists_fd, readable=readable)
    wanted = setup.config.run.workers if workers is None else workers
    return setup, options, wanted or _default_workers(setup)


def _default_workers(setup: Setup) -> int:
    return max(1, min(len(os.sched_getaffinity(0)), len(setup.sources)))


def require_examined(examined: Examined) -> None:
    """Raise what hindered shards from being examined, if any were.

    Raises:
        RunError: some were.
    """
    if examined.errors:
        worst = max(examined.errors, key=lambda item: item.exit_code == ExitCode.FAILED)
        text = "\n".join(item.error for item in examined.errors)
        error = RunError(f"{text}\n{len(examined.errors)} shards were not examined; run again to go on")
        error.exit_code = worst.exit_code
        raise error


def require_released(close: Close) -> None:
    """Raise why a settle released nothing, if so it is.

    Raises:
        InputError: so it is.
    """
    if not close.released:
        raise InputError("\n".join(close.refused) + f"\nsettle {close.number:04d} released nothing")
