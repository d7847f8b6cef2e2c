"""One form of a URL or a domain, so that the same place gives the same digest however it is written.

The canonical form (RFC 3986, 6.2.2 and 6.2.3, without dot segments):

- scheme and host in lower case, the host as IDNA ASCII (UTS 46) without a dot at its end; no user and password;
- no port that is the scheme's own; no fragment; an empty path is "/";
- in the path, escapes of letters, digits and -._~ are decoded, other escapes have upper-case digits, and what may
  not stand there is escaped as UTF-8; the query is kept as it is, an empty one is dropped.

A list holds the SHA-256 of this form of just what its owner wrote; who matches tries `url_forms`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

import idna

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})?")
_MAX_HOST = 253  # characters, RFC 1035
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SAFE_IN_PATH = "/%:@!$&'()*+,;="


@dataclass(frozen=True, slots=True, repr=False)
class _Url:
    scheme: str
    host: str
    port: int | None
    rest: str  # path and query

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in (None, _PORTS[self.scheme]) else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.rest}"


def canonical_url(text: str) -> str | None:
    """Return the canonical form; None if `text` is no http or https URL."""
    url = _parse(text)
    return None if url is None else str(url)


def url_forms(text: str) -> tuple[str, ...]:
    """Return the canonical form, and those of the other scheme and with or without www.; none if it is no URL."""
    url = _parse(text)
    if url is None:
        return ()
    hosts = [url.host]
    if not _is_address(url.host):
        hosts.append(url.host.removeprefix("www.") if url.host.startswith("www.") else f"www.{url.host}")
    schemes = sorted(_PORTS, key=lambda scheme: scheme != url.scheme)
    return tuple(str(replace(url, scheme=scheme, host=host)) for scheme in schemes for host in hosts)


def ascii_domain(host: str) -> str | None:
    """Return a domain or an address in lower-case ASCII; None if it is neither."""
    host = host.strip().removesuffix(".")
    if not host.isascii():
        try:
            labels = idna.uts46_remap(host, std3_rules=False).split(".")
        except idna.IDNAError:
            return None
        # As browsers do, and unlike idna.encode, which knows no emoji and no underscore.
        host = b".".join(x.encode() if x.isascii() else b"xn--" + x.encode("punycode") for x in labels).decode()
    host = host.lower()
    if _is_address(host):
        return str(ipaddress.ip_address(host))
    return host if len(host) <= _MAX_HOST and _HOST.fullmatch(host) else None


def domain_suffixes(host: str) -> tuple[str, ...]:
    """Return a host and all domains above it, the longest first; of an address itself alone, of no host none."""
    domain = ascii_domain(host)
    if domain is None or _is_address(domain):
        return () if domain is None else (domain,)
    labels = domain.split(".")
    return tuple(".".join(labels[first:]) for first in range(len(labels)))


def _parse(text: str) -> _Url | None:
    try:
        text.encode()
        parts = urlsplit(text.strip())
        host, port = ascii_domain(parts.hostname or ""), parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or host is None:
        return None
    if port == _PORTS[parts.scheme]:
        port = None
    path = quote(_ESCAPE.sub(_unescape, parts.path or "/"), safe=_SAFE_IN_PATH)
    query = f"?{parts.query}" if parts.query else ""
    return _Url(parts.scheme, host, port, path + query)


def _unescape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return "%25"
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _is_address(host: str) -> bool:
    if ":" not in host and not host[-1:].isdigit():  # spares most hosts the price of an exception
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
