"""The command run inside this process: as `scrapes.shardscrub`, without the seconds that a start costs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import warnings
from pathlib import Path

from scrapes import Command

from pipeline.cli import main
from pipeline.resolve import UnsafeWarning


def call(*arguments: object) -> Command:
    """Run `shardscrub arguments` here and return what it left."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["shardscrub", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("always", UnsafeWarning)  # the command prints it; here it would be an error
            main()
    except SystemExit as end:
        return Command(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("the command returned without an exit code")


def files(folder: Path, *, but: str = "") -> dict[str, tuple[int, int, str]]:
    """Every file below `folder` by name: inode, mtime and digest; without those below the folder `but`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not (but and name.startswith(f"{but}/")):
            stat = path.stat()
            found[name] = (stat.st_ino, stat.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def message(done: Command) -> str:
    """The one message of a refusal, with its form checked."""
    assert "Traceback" not in done.err + done.out
    lines = [
        line
        for line in done.err.splitlines()
        if not line.startswith(("examine: ", "judge: ", "settle: ", "scan: "))
    ]
    assert [line.startswith("error: ") for line in lines] == [True] + [False] * (len(lines) - 1), done.err
    return "\n".join(lines)
