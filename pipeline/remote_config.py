"""How remote places are named and reached; what speaks to them is in `remote.py`, which is heavier to load.

- Credentials come from where the store's own tools have them, and stand in no configuration and no URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """How remote places are reached.

    put_if_absent: whether the store has it. attempts: how often a request is tried at most. silence_s: how long the
    other side may say nothing.
    """

    endpoint_url: str = ""
    profile: str = ""
    region: str = ""
    anonymous: bool = False
    put_if_absent: bool = True
    attempts: int = 5
    silence_s: float = 60.0


def is_remote(text: str) -> bool:
    """Return whether `text` is the URL of a remote place and not a path."""
    return _SCHEME.match(text) is not None


def place_of(url: str) -> str:
    """Return what may be said of a URL: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
