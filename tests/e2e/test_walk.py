"""The walk-through of the manual, typed in as it stands there: every command works and leads to the next."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import call
from scrapes import ROOT, Command

# Commands reach this process, in which nothing has to be imported for each anew, over two pipes.
SHELL = """
set -euo pipefail
shardscrub() {
  local code
  printf '%s\\0' "$PWD" "$@" > "$PIPES/asked"
  read -r code < "$PIPES/answered"
  cat "$PIPES/out"; cat "$PIPES/err" >&2
  return "$code"
}
trap 'printf "" > "$PIPES/asked"' EXIT
"""


def walk() -> list[str]:
    manual = (ROOT / "docs" / "operating.md").read_text()
    begin = manual.index("## Walk-through\n")
    section = manual[begin : manual.index("\n## ", begin)]
    return re.findall(r"^```bash\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def type_in(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, list[tuple[list[str], Command]]]:
    """Give `text` to a shell in `folder`; returns its code, what it wrote, and what each command left."""
    pipes, done = folder / "pipes", []
    pipes.mkdir()
    for name in ("asked", "answered"):
        os.mkfifo(pipes / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / "said").open("wb") as said:
        shell = subprocess.Popen(
            ["bash", "-c", SHELL + text], cwd=folder, env={**os.environ, "PATH": path, "PIPES": str(pipes)},
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    while words := (pipes / "asked").read_bytes().decode().split("\0")[:-1]:
        monkeypatch.chdir(words[0])
        one = call(*words[1:])
        done.append((words[1:], one))
        (pipes / "out").write_text(one.out)
        (pipes / "err").write_text(one.err)
        (pipes / "answered").write_text(f"{one.code}\n")
    return shell.wait(), (folder / "said").read_text(), done


def test_the_walk_through_works_as_it_stands_in_the_manual(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = walk()
    assert len(blocks) > 12
    code, said, done = type_in("".join(blocks), tmp_path, monkeypatch)
    assert code == 0, said[-3000:]
    nights = [
        {line["stage"]: (line["state"], line["in"], line["kept"]) for line in map(json.loads, one.out.splitlines())}
        for words, one in done
        if words[0] == "nightly"
    ]
    assert [night["examine"][0] for night in nights] == ["done", "nothing", "nothing", "nothing", "done"]
    assert [night["lists"][0] for night in nights] == ["nothing", "nothing", "done", "nothing", "nothing"]
    assert [night["settle"] for night in nights[1:3]] == [("nothing", 24, 23), ("done", 24, 22)]
    assert [night["settle"] for night in nights[3:]] == [("nothing", 24, 22), ("done", 24, 22)]
    assert not any("UNSAFE" in one.out for _, one in done)
    opened = [json.loads(line) for line in (tmp_path / "case-owner" / "opened.jsonl").read_text().splitlines()]
    assert {(row["shard"], row["key"]) for row in opened} == {("00000", "00003"), ("00001", "00009")}


def test_every_command_of_the_walk_through_has_its_place(tmp_path):
    used = set(re.findall(r"\bshardscrub ((?:cases |lists |keys |policy )?[a-z-]+)", "".join(walk())))
    assert used >= {
        "run",
        "nightly",
        "lists import",
        "verify",
        "prove",
        "check-proof",
        "guard",
        "cases open",
        "report",
    }
