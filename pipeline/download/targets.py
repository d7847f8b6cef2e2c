"""Which addresses may be contacted: for every request, every redirect and every connection.

Owns the reading of a URL before contact and the check of addresses. Leaves lists to `url_screen`.

- Only http and https; no user and password; no number that stands for an address in another way than four decimals.
- The address that a name resolves to is checked, and the socket is made for a checked address only: a name that
  resolves anew to another one meets the same check.
- What is not public is refused: private, shared, loopback, link-local, multicast and reserved addresses; of IPv6,
  all but global unicast, and also addresses that hide one of IPv4 (mapped, 6to4, Teredo, NAT64).
- The configured places `host:port` are the only exception, and only under just that name and port.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from classifiers.blocklists.url_forms import canonical_url
from pipeline.download.fetched import Failure, FetchError

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Of protocols (among them Teredo and 6to4), which not every version of Python takes for special.
_SPECIAL = ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
_OF_PROTOCOLS = tuple(map(ipaddress.ip_network, _SPECIAL))
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_ADDRESS = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_PRINTABLE = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}"
_MAX_URL = 16 << 10  # characters


def is_public(text: str) -> bool:
    """Say whether an address is one of the public internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if any(address in one for one in _OF_PROTOCOLS):
        return False
    return address.version == 4 or address in _GLOBAL_UNICAST


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A URL to be asked for. text: as written; url: just what is sent; host: whose turn it takes."""

    text: str
    url: URL
    host: str


def read_target(text: str, base: str = "") -> Target:
    """Read a URL as it is about to be asked for; one that a redirect gives, against the `base` that gave it.

    Raises:
        FetchError: it may not be.
    """
    try:
        text = urljoin(base, text.strip())
    except ValueError:
        raise FetchError(Failure.BAD_URL) from None
    form = canonical_url(text) if len(text) <= _MAX_URL else None
    if form is None:
        raise FetchError(Failure.BAD_URL)
    written, parts = urlsplit(text), urlsplit(form)
    if written.username is not None or written.password is not None:
        raise FetchError(Failure.CREDENTIALS)
    host = parts.hostname or ""
    if parts.port == 0 or (":" not in host and _NUMBER.fullmatch(host) and not _ADDRESS.fullmatch(host)):
        raise FetchError(Failure.BAD_URL)
    return Target(text, URL(quote(form, safe=_PRINTABLE), encoded=True), host)


class Wall:
    """What every connection passes: the addresses that may be contacted."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(allowed)
        self._checked: set[tuple[str, int]] = set()

    def check(self, address: str, port: int, host: str) -> None:
        """Refuse an address that `host` resolves to.

        Raises:
            FetchError: it is not public, and `host:port` is not configured.
        """
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if place in self._allowed:
            self._checked.add((address, port))
        elif not is_public(address):
            raise FetchError(Failure.PRIVATE_ADDRESS)

    def make_socket(self, about: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one address: the last check, whatever came before (aiohttp's `socket_factory`).

        Raises:
            FetchError: the address is not public.
        """
        family, kind, protocol, _, place = about
        address, port = str(place[0]), int(place[1])
        if (address, port) not in self._checked:
            self.check(address, port, address)
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


class WalledResolver(ThreadedResolver):
    """Names to addresses, all of which must pass the wall."""

    def __init__(self, wall: Wall) -> None:
        super().__init__()
        self._wall = wall

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name (aiohttp's `AbstractResolver`).

        Raises:
            FetchError: it has an address that is not public.
            OSError: it has none.
        """
        found = await super().resolve(host, port, family)
        for one in found:
            self._wall.check(one["host"], port, host)
        return found
