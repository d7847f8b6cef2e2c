"""The key file of a list store: an age identity, readable by its owner only, outside of the store."""

from __future__ import annotations

import os
from pathlib import Path

import pyrage

from classifiers.blocklists.algorithms import ListError

_MAKE = "`shardscrub lists keys new FILE` makes one"


def read_key(path: Path | None, *, store: Path) -> pyrage.x25519.Identity:
    """Read the key file of `store`.

    Raises:
        ListError: there is none, it lies in the store, others can read it, or it is no age identity.
    """
    if path is None:
        raise ListError(f"{store}: its lists are encrypted: give the store's key file; {_MAKE}")
    if path.resolve().is_relative_to(store.resolve()):
        raise ListError(f"{path}: the key lies in the store that it opens; move it to another place")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        raise ListError(f"{path}: no such key file; {_MAKE}") from None
    if mode & 0o077:
        raise ListError(f"{path}: others can read this key (mode {mode & 0o777:04o}); chmod 600 it")
    secret = next((line.strip() for line in lines if line.startswith("AGE-SECRET-KEY-")), "")
    try:
        return pyrage.x25519.Identity.from_str(secret)
    except pyrage.IdentityError:
        raise ListError(f"{path}: expected an age identity (AGE-SECRET-KEY-1...); {_MAKE}") from None
