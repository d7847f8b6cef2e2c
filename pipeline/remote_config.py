"""How remote places are named and reached; what speaks to them is in `remote.py`, which is heavier to load.

- Credentials come from where the store's own tools have them, and stand in no configuration and no URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BUCKET = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://[^@?#\[\]\s/][^@?#\[\]\s]*")


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


def check_bucket(path: Path, url: str) -> None:
    """Refuse a URL that a collection cannot live under, or that holds a secret; "" is none.

    Raises:
        ConfigError: so it is; `path` is the configuration's.
    """
    if url and not _BUCKET.fullmatch(url):
        raise ConfigError(
            f"{path}: bucket: expected a URL such as s3://bucket/folder, of a store and without user or query; "
            "credentials stand in the store's own files or environment"
        )


def place_of(url: str) -> str:
    """Return what may be said of a URL: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
