"""The manual keeps up with the code: commands, faults, make targets, file names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from manifests.records import TOOL_VERSION, FaultKind
from pipeline.cli import app
from pipeline.errors import ExitCode

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def commands(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: str(value)[:30])
def test_every_command_is_in_the_manual_and_says_what_it_does(path, command):
    assert f"shardscrub {' '.join(path)}" in OPERATING
    assert command.help


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: str(value)[:30])
def test_every_option_has_help(path, command):
    assert all(parameter.help for parameter in command.params if parameter.name != "help")


def test_every_fault_is_in_the_manual():
    assert [kind for kind in FaultKind if f"`{kind}`" not in OPERATING] == []


def test_every_exit_code_is_in_the_manual():
    section = OPERATING[OPERATING.index("Exit codes") :]
    assert [code for code in ExitCode if not re.search(rf"\b{int(code)} ", section)] == []


def test_every_make_target_says_what_it_does():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    assert {"help", "setup", "demo", "test", "check", "bench", "crash", "scrub", "verify", "golden"} <= targets
    assert [name for name in targets if not re.search(rf"^{name}:.*## ", MAKEFILE, re.MULTILINE)] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/operating.md", "docs/formats.md"])
def test_files_that_the_documents_name_exist(page):
    named = re.findall(
        r"`((?:docs|pipeline|classifiers|manifests|tests|examples|benchmarks)/[\w./-]+)`", (ROOT / page).read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_nothing_names_a_place_of_one_machine():
    pages = [ROOT / "README.md", ROOT / "Makefile", *ROOT.glob("docs/**/*.md"), *ROOT.glob("[pcm]*/**/*.py")]
    assert [page.name for page in pages if re.search(r"/(?:home|root|work|mnt)/", page.read_text())] == []


def test_the_version_that_outputs_name_is_the_distributions():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == TOOL_VERSION
