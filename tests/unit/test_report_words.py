"""No output of ours calls a data set clean, safe, compliant or guaranteed: every literal of the product is read.

Read are string literals (docstrings aside, but those of commands, which are their help) and the data files of the
product, and nothing of `docs/`. Each exception stands here with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scrapes import ROOT

CLAIM = re.compile(r"(?<![a-z])(clean|safe|compliant|guarantee[ds]?|guaranteeing)(?![a-z])", re.IGNORECASE)
PACKAGES = ("pipeline", "manifests", "classifiers")
# Literals that hold one of the words and claim nothing, each with its reason.
ALLOWED = {
    "not that the data are clean, safe or compliant": "says that it is not said",
    "not that data are clean, safe or compliant": "the same",
    "research-safe": "the name of a data set that others published",
}
COMMANDS = ("command", "callback")


def claims(text: str) -> list[str]:
    for allowed in ALLOWED:
        text = text.replace(allowed, "")
    return [found[0] for found in CLAIM.finditer(text)]


def is_command(node: ast.AST) -> bool:
    """Whether a function's docstring is the help of a command."""
    decorators = getattr(node, "decorator_list", [])
    names = [item.func.attr for item in decorators if isinstance(item, ast.Call) and hasattr(item.func, "attr")]
    return any(name in COMMANDS for name in names)


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string that a program can show; the parts of an f-string are joined."""
    tree = ast.parse(source)
    hidden: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and not is_command(node):
                hidden.add(id(first.value))
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            hidden |= {id(part) for part in parts}
            yield node.lineno, "{}".join(str(part.value) for part in parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.lineno, node.value


def product_files(suffixes: tuple[str, ...]) -> list[Path]:
    found = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in suffixes]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def test_no_literal_of_the_product_makes_a_claim():
    found = [
        (path.relative_to(ROOT).as_posix(), line, words)
        for path in product_files((".py",))
        for line, text in texts_of(path.read_text())
        if (words := claims(text))
    ]
    assert found == []


def test_no_file_that_comes_with_the_product_makes_a_claim():
    files = [path for path in product_files((".toml", ".md", ".html", ".txt")) if path.parent.name != "words"]
    assert {"separation.toml", "scrub.toml", "report.html", "eu.txt"} <= {path.name for path in files}
    found = [(path.name, words) for path in files if (words := claims(path.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'print("the data set is clean")',
        'f"{kept} samples, SAFE for {use}"',
        'x = ("guaran" "teed")',
        '@app.command()\ndef check():\n    """Say that a set is compliant."""',
        'say("un-safe", "not_clean")',
    ],
)
def test_a_claim_is_found(source):
    assert any(claims(text) for _, text in texts_of(source))


@pytest.mark.parametrize(
    "source",
    ['"""Crash-safe, and cleaned."""', '"safetensors"', '"unsafe_name"', "# clean\n1", '"a safety rule"'],
)
def test_what_is_no_claim_is_left_alone(source):
    assert not any(claims(text) for _, text in texts_of(source))


def test_every_exception_is_still_needed():
    every = [text for path in product_files((".py",)) for _, text in texts_of(path.read_text())]
    every += [path.read_text() for path in product_files((".toml", ".md"))]
    for allowed in ALLOWED:
        assert any(allowed in text for text in every), allowed
