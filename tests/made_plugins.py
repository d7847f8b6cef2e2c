"""Distributions with entry points, installed by hand in a folder: a module and a `.dist-info`."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "docs" / "plugins.md"


def install(folder: Path, name: str, version: str, points: Mapping[str, Mapping[str, str]], **modules: str) -> Path:
    """Lay a distribution of these modules and entry points, by group, into a folder."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = [
        [f"[{group}]", *(f"{key} = {value}" for key, value in some.items())] for group, some in points.items()
    ]
    (about / "entry_points.txt").write_text("\n".join(line for lines in groups for line in (*lines, "")))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return folder


def install_example(folder: Path, *, version: str = "") -> Path:
    """Lay the distribution of `docs/plugins.md` into a folder, as its code blocks have it."""
    blocks = re.findall(r"```(toml|python)\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    project = tomllib.loads(blocks[0][1])["project"]
    (code,) = [text for kind, text in blocks if kind == "python"]
    return install(
        folder, project["name"], version or project["version"], project["entry-points"], shardscrub_example=code
    )


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Have the distributions of a folder on the path, here and in worker processes."""
    root = EXAMPLE.parents[1]
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", f"{folder}:{root}")
        yield
    for name in {path.stem for path in folder.glob("*.py")} & (set(sys.modules) - modules):
        del sys.modules[name]
