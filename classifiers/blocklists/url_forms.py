"""One form of a URL or a domain, so that the same place gives the same digest however it is written.

The canonical form (RFC 3986, 6.2.2 and 6.2.3, without dot segments):

- scheme and host in lower case, the host as IDNA ASCII (UTS 46) without a dot at its end; no user and password;
- no port that is the scheme's own; no fragment; an empty path is "/";
- in the path, escapes of letters, digits and -._~ are decoded, other escapes have upper-case digits, and what may
  not stand there is escaped as UTF-8; the query is kept as it is, an empty one is dropped.

A list holds the SHA-256 of this form of just what its owner wrote; other schemes and www. are a matcher's to try.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, urlsplit

import idna

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})?")
_MAX_HOST = 253  # characters, RFC 1035
_SAFE_IN_PATH = "/%:@!$&'()*+,;="


def canonical_url(text: str) -> str | None:
    """Return the canonical form; None if `text` is no http or https URL."""
    try:
        text.encode()
        parts = urlsplit(text.strip())
        host, port = ascii_domain(parts.hostname or ""), parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or host is None:
        return None
    path = quote(_ESCAPE.sub(_unescape, parts.path or "/"), safe=_SAFE_IN_PATH)
    query = f"?{parts.query}" if parts.query else ""
    place = f"[{host}]" if ":" in host else host
    named = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{place}{named}{path}{query}"


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


def _unescape(escape: re.Match[str]) -> str:
    return quote(bytes.fromhex(escape[1]), safe="") if escape[1] else "%25"


def _is_address(host: str) -> bool:
    if ":" not in host and not host[-1:].isdigit():  # spares most hosts the price of an exception
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
