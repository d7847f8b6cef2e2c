"""How a run ends: exit codes and the errors behind them.

    ScrubError
    |- ConfigError        the configuration, a policy, a list or a model is not usable       exit 2
    |- InputError         a shard is damaged, changed or missing, or faults exceed the bound  exit 4
    |- VerificationError  the files do not agree with each other                              exit 3
    |- RunError           the run itself failed (a worker died, the disk is full)             exit 1
    |  |- CanaryError     a canary was missed: the run stops at once                          exit 1
    |  `- DeviceError     the process that holds the model is gone: as above                  exit 1

An error is about the run and stops it; a fault (`manifests.records.FaultKind`) is about one sample and is
recorded. Messages name file, key or row, what was expected and found, and what to do: never a URL, a caption
or a digest from a list.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command returns."""

    FINISHED = 0
    FAILED = 1
    USAGE = 2
    VERIFICATION = 3
    INPUT = 4
    BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later
    INTERRUPTED = 130


class ScrubError(Exception):
    """The root of the errors that a run reports; `exit_code` is what the command returns."""

    exit_code = ExitCode.FAILED


class RunError(ScrubError):
    """The run itself failed; run it again and it goes on where it stopped."""


class BusyError(RunError):
    """Another process is doing this very work."""

    exit_code = ExitCode.BUSY


class CanaryError(RunError):
    """A canary was missed: lists are not matched as they should be, and no shard may be done this way."""


class DeviceError(RunError):
    """The process that holds the model for the workers of a device is gone; no shard can be done without it."""

    def __init__(self) -> None:
        super().__init__(
            "the process that holds the model ended; the newest device-*.log in the collection's journal says why. "
            "Run again to go on from here"
        )


class ConfigError(ScrubError):
    """The configuration, a policy, a list or a model is not usable."""

    exit_code = ExitCode.USAGE


class VerificationError(ScrubError):
    """The files of a collection do not agree with each other."""

    exit_code = ExitCode.VERIFICATION


class InputError(ScrubError):
    """A shard is damaged, changed or missing, or faults exceed the bound."""

    exit_code = ExitCode.INPUT
