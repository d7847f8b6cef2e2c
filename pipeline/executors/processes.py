"""Several shards at a time, one worker process each, over plain pipes.

Owns starting, feeding and ending worker processes. No queues, semaphores or shared memory of the standard
library are used: those leave names in /dev/shm behind when a process group is killed.

- A worker that dies costs the shard it held: its outcome is an error, and a new worker goes on with the rest.
- When this process dies the workers die with it (PR_SET_PDEATHSIG), and their decoders with them.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from pipeline.errors import ExitCode
from pipeline.executors.protocol import OnRows, Outcome, Task, WorkerOptions

_LONGEST_TEXT = 1 << 16


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    tasks: IO[bytes]
    answers: IO[bytes]
    number: int
    held: Task | None = None


@dataclass(slots=True)
class _Device:
    """A process that holds the model for some workers; their connections to it are sent over `control`."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    log: Path


class ProcessesExecutor:
    """Runs tasks in `workers` processes. `journal` takes what workers write to their standard error."""

    def __init__(self, options: WorkerOptions, *, workers: int, journal: Path) -> None:
        self._options = options
        self._workers = workers
        self._journal = journal
        self._children: list[_Child] = []
        self._devices: list[_Device] = []

    def run(self, tasks: Sequence[Task], on_rows: OnRows) -> Iterator[Outcome]:
        """Do every task, yielding its outcome as it ends."""
        waiting, children = deque(tasks), self._children
        if self._options.share and not self._devices:
            self._devices = [self._start_device(number) for number in range(max(1, self._options.devices))]
        with selectors.DefaultSelector() as selector:
            try:
                for child in children:
                    selector.register(child.answers, selectors.EVENT_READ, child)
                for number in range(len(children), min(self._workers, len(tasks))):
                    children.append(self._start(number, selector))
                for child in children:
                    self._hand_out(child, waiting)
                while any(child.held for child in children):
                    for key, _ in selector.select():
                        child = key.data
                        yield from self._answer(child, children, selector, waiting, on_rows)
            finally:
                if any(child.held for child in children):  # nobody waits for the answers any more
                    self.close()

    def close(self) -> None:
        """End the workers."""
        while self._children:
            self._end(self._children.pop())
        for device in self._devices:
            device.process.kill()
            device.process.wait()
            device.control.close()
            _remove_empty(device.log)
        self._devices = []

    def _answer(
        self,
        child: _Child,
        children: list[_Child],
        selector: selectors.BaseSelector,
        waiting: deque[Task],
        on_rows: OnRows,
    ) -> Iterator[Outcome]:
        line = child.answers.readline()
        held = child.held
        if line.endswith(b"\n"):
            answer = json.loads(line)
            if "rows" in answer:
                on_rows(answer["rows"])
                return
            child.held = None
            outcome = Outcome(**{**answer, "exit_code": ExitCode(answer["exit_code"])})
            if outcome.fatal and self._devices:
                outcome = self._with_reason(outcome, self._devices[child.number % len(self._devices)])
            yield outcome
            self._hand_out(child, waiting)
            return
        selector.unregister(child.answers)
        self._end(child)
        children.remove(child)
        if held is not None:
            code = child.process.returncode
            yield Outcome(
                held.shard,
                error=f"shard {held.shard}: its worker died ({_exit_text(code)}); run again to go on from here",
                exit_code=ExitCode.FAILED,
            )
        if waiting:
            children.append(self._start(child.number, selector))
            self._hand_out(children[-1], waiting)

    def _start(self, number: int, selector: selectors.BaseSelector) -> _Child:
        task_read, task_write = os.pipe()
        answer_read, answer_write = os.pipe()
        options = self._options
        if self._devices:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, suppress(OSError):  # the worker finds out that nobody answers
                socket.send_fds(self._devices[number % len(self._devices)].control, [b"worker"], [ours.fileno()])
            options = replace(options, device_fd=theirs.detach())
        told = ("pipeline.worker", options.text, task_read, answer_write, os.getpid())
        log = self._journal / f"worker-{os.getpid()}-{number}.log"
        process = _start(told, (task_read, answer_write, *options.fds), log, dict(os.environ))
        if options.device_fd is not None:
            os.close(options.device_fd)
        os.close(task_read)
        os.close(answer_write)
        child = _Child(process, os.fdopen(task_write, "wb"), os.fdopen(answer_read, "rb", buffering=0), number)
        selector.register(child.answers, selectors.EVENT_READ, child)
        return child

    def _start_device(self, number: int) -> _Device:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = dict(os.environ)
        if self._options.device == "cuda":
            environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            environment["CUDA_VISIBLE_DEVICES"] = _device_for(number, environment)
        log = self._journal / f"device-{os.getpid()}-{number}.log"
        told = ("pipeline.device_process", self._options.text, theirs.fileno(), os.getpid())
        with theirs:
            process = _start(told, (theirs.fileno(), *self._options.fds), log, environment)
        return _Device(process, ours, log)

    @staticmethod
    def _with_reason(outcome: Outcome, device: _Device) -> Outcome:
        """Return what stopped a worker, with what its device said before it ended, if it said anything."""
        try:
            said = device.control.recv(_LONGEST_TEXT, socket.MSG_DONTWAIT)
        except OSError:
            said = b""
        code, _, text = said.decode("utf-8", "replace").partition(" ")
        return replace(outcome, error=text, exit_code=ExitCode(int(code))) if text else outcome

    @staticmethod
    def _hand_out(child: _Child, waiting: deque[Task]) -> None:
        if waiting:
            child.held = waiting.popleft()
            try:
                child.tasks.write(json.dumps(asdict(child.held)).encode() + b"\n")
                child.tasks.flush()
            except BrokenPipeError:
                return  # the worker has died; its end of file is read next and becomes the outcome

    def _end(self, child: _Child) -> None:
        child.process.kill()
        child.process.wait()
        child.answers.close()
        try:
            child.tasks.close()
        except BrokenPipeError:
            return
        finally:
            _remove_empty(self._journal / f"worker-{os.getpid()}-{child.number}.log")


def _start(
    told: Sequence[object], fds: Sequence[int], log: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with log.open("ab") as stderr:
        return subprocess.Popen(  # noqa: S603 - our own module, our own arguments
            [sys.executable, "-m", *map(str, told)],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            pass_fds=fds,
            env=environment,
        )


def _remove_empty(log: Path) -> None:
    if log.exists() and log.stat().st_size == 0:
        log.unlink()


def _device_for(number: int, environment: dict[str, str]) -> str:
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    devices = [name for name in visible.split(",") if name]
    return devices[number % len(devices)] if devices else str(number)


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
