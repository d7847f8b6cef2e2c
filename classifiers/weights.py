"""Digests of weights and their pins: nothing is loaded that is not the very file that was pinned.

Leaves getting weights (a separate verb) and reading their formats to others.

- A pin is a SHA-256. A missing pin is an error that prints the digest found; a wrong one prints both.
- The digest of a folder covers the name and the bytes of every file in it, whatever the order on disk.
- Weight digests are no secrets: they may be printed, and are part of every signal's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

STAND_IN_MARK = "stand-in"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*@[0-9]+")


class WeightsError(ValueError):
    """Weights are missing, not pinned, not the pinned ones, or not what their use asks for."""


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_folder(path: Path) -> str:
    """Return the SHA-256, in hex, over the canonical JSON of `{relative posix name: SHA-256 of the file}`.

    Folders count by the files in them alone.

    Raises:
        WeightsError: the folder holds no file, a hidden one, or anything that is no regular file.
    """
    digests = {}
    for item in path.rglob("*"):
        name = item.relative_to(path).as_posix()
        if item.name.startswith("."):
            raise WeightsError(f"{path}: holds the hidden file '{name}': a model folder is pinned whole; remove it")
        if item.is_symlink() or not (item.is_file() or item.is_dir()):
            raise WeightsError(f"{path}: '{name}' is no regular file: put a copy of the file itself there")
        if item.is_file():
            digests[name] = digest_file(item)
    if not digests:
        raise WeightsError(f"{path}: holds no file: expected a model folder")
    text = json.dumps(digests, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_digest(found_sha256: str, expected_sha256: str, *, what: str) -> str:
    """Return the digest found if it is the pinned one.

    Args:
        found_sha256: digest of the bytes that are going to be used, in hex.
        expected_sha256: the pin, in hex.
        what: what is pinned, for the message.

    Raises:
        WeightsError: no pin, or another one.
    """
    if not expected_sha256:
        raise WeightsError(
            f"{what}: is not pinned; found sha256 {found_sha256}. "
            "Verify where the files came from, then pin that digest"
        )
    if found_sha256 != expected_sha256:
        raise WeightsError(
            f"{what}: expected sha256 {expected_sha256}, found {found_sha256}. "
            "Put the pinned files back, or verify where these came from and pin them"
        )
    return found_sha256


def check_pin(path: Path, expected_sha256: str, *, what: str) -> str:
    """Return the digest of a file or a folder if it is the pinned one.

    Raises:
        WeightsError: nothing lies at `path`, there is no pin, or the pin is of something else.
    """
    if not path.exists():
        raise WeightsError(f"{what}: {path} does not exist; get the weights first, a run never downloads them")
    found = digest_folder(path) if path.is_dir() else digest_file(path)
    return check_digest(found, expected_sha256, what=f"{what} ({path})")


def read_pinned(path: Path, sha256: str) -> bytes:
    """Return the bytes of a head's file.

    Raises:
        WeightsError: missing, or not the pinned file.
    """
    if not path.is_file():
        raise WeightsError(f"head: {path} does not exist; a run never downloads weights")
    data = path.read_bytes()
    check_digest(hashlib.sha256(data).hexdigest(), sha256, what=f"head ({path})")
    return data


def check_name(name: str, *, stand_in: bool) -> str:
    """Return the configured name of a model if it is well formed, and if a stand-in says so in its name.

    Stand-ins have random weights, for tests and demonstrations: their scores mean nothing.

    Raises:
        WeightsError: not `name@version`, or a stand-in under a name without 'stand-in'.
    """
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"model name '{name}': expected name@version in lower-case letters, digits, '.', '-': 'vit-b-32@1'"
        )
    if stand_in and STAND_IN_MARK not in name:
        raise WeightsError(
            f"model name '{name}': the weights are a stand-in with random numbers, and the name must say so: "
            f"put '{STAND_IN_MARK}' into it, or use real weights"
        )
    return name
