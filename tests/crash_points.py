"""A run that is stopped at its n-th change of the disk: by SIGKILL, or by an error that the disk reports.

`Stopper` keeps one process with everything imported, which forks a child for each run: so a run costs what it
does, and not a start. As a program it is that process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("link", "replace", "unlink", "mkdir")  # what changes the names that a later run sees
CHANGES = ("fsync", *NAMES)


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a run ended: exit code (-n: signal n), what it printed, how long that was at each change that counted."""

    code: int
    text: str
    printed: tuple[int, ...]

    @property
    def changes(self) -> int:
        """How many changes counted."""
        return len(self.printed)


class Stopper:
    """Runs the command in forks of one warm process."""

    def __init__(self, process: subprocess.Popen[str], home: Path) -> None:
        self._process = process
        self._home = home

    def run(
        self,
        *arguments: object,
        at: int = 0,
        how: str = "kill",
        only: Sequence[str] = NAMES,
        after: str = "",
        without: str = "",
        mutant: str = "",
    ) -> Stopped:
        """Run `shardscrub arguments`, stopped just before the `at`-th change (from 1; 0: never).

        how: 'kill', or the name of an error that this change then reports. only: the changes that count; they
        count from when a file whose path ends with `after` was published. without: 'tmpfile' makes the file
        system one without unnamed files. mutant: one of `MUTANTS`.
        """
        job = {
            "arguments": [str(item) for item in arguments],
            "at": at,
            "how": how,
            "only": list(only),
            "after": after,
            "without": without,
            "mutant": mutant,
            "home": str(self._home),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        printed = (self._home / "changes").read_text().split()
        return Stopped(code, (self._home / "text").read_text(), tuple(map(int, printed)))


@contextmanager
def stopper(home: Path) -> Iterator[Stopper]:
    """Start the warm process; `home` takes its notes and must lie outside of what is run."""
    home.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        text=True,
    ) as process:
        yield Stopper(process, home)
        assert process.stdin is not None
        process.stdin.close()


def _commit_first() -> None:
    """Write a shard's commit before the features that it names."""
    from manifests import commits, durable, schema  # noqa: PLC0415 - changed in the forked child alone
    from pipeline import commit  # noqa: PLC0415 - as above

    waiting: list[Callable[[], None]] = []
    write_record = commits.ExamineCommit.write

    def write_features(table: Any, name: str, collection: Any) -> commits.FileDigest:
        data = schema.encode(table)
        waiting.append(lambda: durable.write(collection.examined / name, data, replace=True))
        return commits.FileDigest(name, hashlib.sha256(data).hexdigest(), len(data))

    def write_commit_then_features(self: Any, path: Path, *, replace: bool, mode: int) -> None:
        write_record(self, path, replace=replace, mode=mode)
        while waiting:
            waiting.pop()()

    commit._write_features = write_features
    commits.ExamineCommit.write = write_commit_then_features  # type: ignore[method-assign] # as a mutant must


def _commit_in_halves() -> None:
    """Write a shard's commit under its final name, one half after the other."""
    from manifests import commits  # noqa: PLC0415 - changed in the forked child alone

    def write_halves(self: Any, path: Path, *, replace: bool, mode: int) -> None:
        data = self.encode()
        with path.open("wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            os.fsync(file.fileno())
            file.write(data[len(data) // 2 :])

    commits.ExamineCommit.write = write_halves  # type: ignore[method-assign] # as a mutant must


MUTANTS = {"commit_first": _commit_first, "commit_in_halves": _commit_in_halves}


def _watch(job: dict[str, Any], changes: IO[bytes]) -> None:
    """Wrap the changes of the disk so that each is noted and the chosen one does not happen."""
    count, counting = 0, not job["after"]

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal count, counting
            if counting and name in job["only"]:
                count += 1
                if count == job["at"]:
                    if job["how"] == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    code = getattr(errno, job["how"])
                    raise OSError(code, os.strerror(code))
                changes.write(b"%d\n" % os.fstat(1).st_size)
            result = real(*arguments, **options)
            counting = counting or any(str(item).endswith(job["after"]) for item in arguments)
            return result

        return wrapped

    for name in CHANGES:
        setattr(os, name, wrap(name, getattr(os, name)))


def _forbid_unnamed_files() -> None:
    real = os.open

    def open_without_tmpfile(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *arguments, **options)

    os.open = open_without_tmpfile


def _run(job: dict[str, Any]) -> int:
    from pipeline import cli  # noqa: PLC0415 - imported by the parent already

    home = Path(job["home"])
    with (home / "text").open("wb") as text, (home / "changes").open("wb", buffering=0) as changes:
        for number, to in ((0, os.open(os.devnull, os.O_RDONLY)), (1, text.fileno()), (2, text.fileno())):
            os.dup2(to, number)
        _watch(job, changes)
        if job["without"] == "tmpfile":
            _forbid_unnamed_files()
        if job["mutant"]:
            MUTANTS[job["mutant"]]()
        sys.argv = ["shardscrub", *job["arguments"]]
        try:
            cli.main()
        except SystemExit as error:
            sys.stdout.flush()
            return int(error.code or 0)
    return 0


def _warm() -> None:
    """Import what a run imports, so that no child has to, and make sure that forking is safe afterwards."""
    for name in ("pipeline.cli", "pipeline.nightly", "pipeline.screen_run", "pipeline.status", "manifests.verify"):
        importlib.import_module(name)
    for name in ("pydantic", "pyarrow.dataset", "pyarrow.pandas_compat", "pandas"):
        with contextlib.suppress(ImportError):  # others import these where they are installed
            importlib.import_module(name)
    threads = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    # jemalloc knows about forks; no other library may have threads here.
    assert set(threads[1:]) <= {"jemalloc_bg_thd"}, f"{threads}: forking is not safe"


def _serve() -> None:
    _warm()
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = _run(job)
            except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
