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
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import ExitCode
from pipeline.executors.protocol import OnRows, Outcome, Task, WorkerOptions


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    tasks: IO[bytes]
    answers: IO[bytes]
    number: int
    held: Task | None = None


class ProcessesExecutor:
    """Runs tasks in `workers` processes. `journal` takes what workers write to their standard error."""

    def __init__(self, options: WorkerOptions, *, workers: int, journal: Path) -> None:
        self._options = options
        self._workers = workers
        self._journal = journal
        self._children: list[_Child] = []

    def run(self, tasks: Sequence[Task], on_rows: OnRows) -> Iterator[Outcome]:
        """Do every task, yielding its outcome as it ends."""
        waiting, children = deque(tasks), self._children
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
            yield Outcome(**{**answer, "exit_code": ExitCode(answer["exit_code"])})
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
        options = {**asdict(self._options), "config": str(self._options.config)}
        log = self._journal / f"worker-{os.getpid()}-{number}.log"
        environment = dict(os.environ)
        if self._options.device == "cuda":
            environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            environment["CUDA_VISIBLE_DEVICES"] = _device_for(number, environment)
        with log.open("ab") as stderr:
            process = subprocess.Popen(  # noqa: S603 - our own module, our own arguments
                [
                    sys.executable,
                    "-m",
                    "pipeline.worker",
                    json.dumps(options),
                    str(task_read),
                    str(answer_write),
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=(task_read, answer_write, *self._options.fds),
                env=environment,
            )
        os.close(task_read)
        os.close(answer_write)
        child = _Child(process, os.fdopen(task_write, "wb"), os.fdopen(answer_read, "rb", buffering=0), number)
        selector.register(child.answers, selectors.EVENT_READ, child)
        return child

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
            log = self._journal / f"worker-{os.getpid()}-{child.number}.log"
            if log.exists() and log.stat().st_size == 0:
                log.unlink()


def _device_for(number: int, environment: dict[str, str]) -> str:
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    devices = [name for name in visible.split(",") if name]
    return devices[number % len(devices)] if devices else str(number)


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
