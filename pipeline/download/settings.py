"""The table `[download]`: what a download may contact, and how hard it may ask."""

from __future__ import annotations

import re
from dataclasses import dataclass

ALLOW_STAMP, OPT_OUT_STAMP = "download_allow_hosts", "unsafe_ignore_opt_out"
_PLACE = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\]):[0-9]{1,5}")
_OUTCOME = ("max_bytes", "max_redirects", "rows_per_shard", "agent", "allow_hosts", "unsafe_ignore_opt_out")
_TOKEN = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class DownloadConfig:
    """Caps on one fetch and on one host, and what weakens them.

    fetch_s: of one fetch with all its redirects, less waiting for its turn. host_rate: requests a second to a host.
    connections: fetches at a time. rows_per_shard: of the table, and so the most samples of a staged shard.
    retry_after_s: from the first pass to the second. agent: the name by which sites know us, and by which a header
    may refuse us. allow_hosts: `host:port` that may be contacted though the address is private.
    """

    max_bytes: int = 64 << 20
    fetch_s: float = 30.0
    max_redirects: int = 5
    host_rate: float = 10.0
    host_connections: int = 4
    connections: int = 256
    rows_per_shard: int = 10_000
    retry_after_s: float = 60.0
    agent: str = "shardscrub"
    allow_hosts: tuple[str, ...] = ()
    unsafe_ignore_opt_out: bool = False

    def __post_init__(self) -> None:
        for place in self.allow_hosts:
            if not _PLACE.fullmatch(place):
                raise ValueError(f"allow_hosts: expected host:port in lower case, found {place!r}")
        if not _TOKEN.fullmatch(self.agent):
            raise ValueError(f"agent: expected small letters, digits, - and _, found {self.agent!r}")

    def unsafe(self) -> dict[str, str]:
        """Return the stamps of what weakens safety, and what each means."""
        found = {}
        if self.allow_hosts:
            found[ALLOW_STAMP] = f"{len(self.allow_hosts)} places may be contacted at private addresses"
        if self.unsafe_ignore_opt_out:
            found[OPT_OUT_STAMP] = "headers that refuse are not heeded"
        return found

    def outcome(self) -> list[object]:
        """Return what changes which rows are downloaded; the rest may change from one start to the next."""
        return [getattr(self, name) for name in _OUTCOME]
