"""What became of a row: the classes of failure, and the record of one attempt.

Owns which failures are refusals (ours or a site's), which are worth a second try, and which error means which.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp


class Failure(StrEnum):
    """Why a row was not downloaded."""

    # Refusals: nothing that was asked for again would be answered otherwise.
    BAD_URL = "bad_url"
    CREDENTIALS = "credentials"  # a user or password in the URL
    LISTED = "listed"  # the URL, or one that it leads to
    PRIVATE_ADDRESS = "private_address"
    REDIRECT_LIMIT = "redirect_limit"
    TOO_LARGE = "too_large"
    OPT_OUT = "opt_out"
    DUPLICATE = "duplicate"  # an earlier row has this URL, and was asked for
    # Faults.
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    BROKEN = "broken"  # the answer is no HTTP, or ended early
    EMPTY = "empty"
    HTTP_404 = "http_404"  # and 410
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    HTTP_OTHER = "http_other"
    LOST = "lost"  # the crawler has no bytes of it that were served


_FAULTS = frozenset(list(Failure)[list(Failure).index(Failure.DNS) :])
_PASSING = ("dns", "connect", "timeout", "broken", "http_429", "http_5xx", "lost")
RETRYABLE = frozenset(map(Failure, _PASSING))


def state_of(failure: Failure | None) -> str:
    """Return the final state that a failure, or none, means."""
    if failure is None or failure is Failure.DUPLICATE:
        return "downloaded" if failure is None else "duplicate"
    return "failed" if failure in _FAULTS else "refused"


class FetchError(Exception):
    """A fetch ended without an image."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(slots=True, repr=False)
class Fetched:
    """One attempt. hops: requests made. status: of the last answer, 0 for none. size, digest: of its body."""

    failure: Failure | None = Failure.LOST
    hops: int = 0
    status: int = 0
    content_type: str | None = None
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


def failure_of_status(status: int) -> Failure | None:
    """Return the failure that an HTTP status is, if it is one."""
    if 200 <= status < 300:
        return None
    known = {404: "http_404", 410: "http_404", 429: "http_429", 4: "http_4xx", 5: "http_5xx"}  # or its hundreds
    return Failure(known.get(status, known.get(status // 100, "http_other")))


# The first that fits counts: the later ones are bases of the earlier.
_CLASSES: tuple[tuple[tuple[type[Exception], ...], Failure], ...] = (
    ((aiohttp.ClientSSLError, ssl.SSLError, aiohttp.ClientConnectorCertificateError), Failure.TLS),
    ((aiohttp.ClientConnectorDNSError, socket.gaierror), Failure.DNS),
    ((TimeoutError,), Failure.TIMEOUT),
    ((aiohttp.ClientConnectorError,), Failure.CONNECT),
)


def failure_of_error(error: Exception) -> Failure:
    """Return the failure that an error of the client is."""
    found = (failure for kinds, failure in _CLASSES if isinstance(error, kinds))
    return next(found, Failure.BROKEN)
