"""The gateway: an HTTP server on the loopback that fetches what img2dataset asks it for.

Owns fetching: redirects, caps, turns of hosts, and the record of each attempt. Leaves to `targets` what may be
contacted, and to img2dataset what headers that refuse mean.

- Only addresses `/<token>/<shard>/<row>` are served; the token is drawn anew for each gateway.
- Every hop is read, matched with the lists and checked by its address before it is contacted.
- An answer is passed on as it comes, bytes unchanged; one that breaks off is cut, and so is not taken for whole.
- No proxy, cookie or credential is used, and no URL is written anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from manifests.records import TOOL_VERSION
from pipeline.download.fetched import Failure, Fetched, FetchError, failure_of_error, failure_of_status
from pipeline.download.settings import DownloadConfig
from pipeline.download.targets import Wall, WalledResolver, read_target
from pipeline.url_screen import UrlScreen

_SMALL_BYTES = 256 << 10  # an answer up to this size is passed on at once
_REDIRECTS = (301, 302, 303, 307, 308)
_OPT_OUT = "X-Robots-Tag"
_AGENT = f"Mozilla/5.0 (compatible; {{}}; shardscrub/{TOOL_VERSION})"
_SILENT = logging.Logger("shardscrub.gateway", logging.CRITICAL + 1)  # a message could name what was asked for


class _Host:
    def __init__(self, most: int) -> None:
        self.slots, self.free_at = asyncio.Semaphore(most), 0.0


class HostTurns:
    """Who may ask which host when; knows a host while somebody asks it, or has just asked."""

    def __init__(self, rate: float, most: int) -> None:
        self._gap_s, self._most = 1 / rate, most
        self._hosts: WeakValueDictionary[str, _Host] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait until one more request to a host may be made, and make it in the block."""
        loop, host = asyncio.get_running_loop(), self._hosts.setdefault(name, _Host(self._most))
        async with host.slots:
            begin = max(loop.time(), host.free_at)
            host.free_at = begin + self._gap_s
            loop.call_at(host.free_at, id, host)  # until then it is not forgotten
            await asyncio.sleep(begin - loop.time())
            yield


@dataclass(slots=True)
class Gateway:
    """The server, while it is open. attempts: by shard and row, in order."""

    settings: DownloadConfig
    screen: UrlScreen
    url_of: Callable[[int, int], str]
    attempts: dict[int, dict[int, list[Fetched]]] = field(default_factory=dict)
    _base: str = ""
    _token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _turns: HostTurns = field(init=False)
    _session: aiohttp.ClientSession = field(init=False)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serve in the block."""
        settings, wall = self.settings, Wall(self.settings.allow_hosts)
        self._turns = HostTurns(settings.host_rate, settings.host_connections)
        connector = aiohttp.TCPConnector(
            limit=0, resolver=WalledResolver(wall), socket_factory=wall.make_socket, ttl_dns_cache=300
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _AGENT.format(settings.agent), "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
        )
        server, loop = web.Server(self._serve, access_log=None, logger=_SILENT), asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # as above; the row that it happened to is `lost`
        async with session:
            self._session = session
            listening = await loop.create_server(server, "127.0.0.1", 0, backlog=1024)
            self._base = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/{self._token}"
            try:
                yield
            finally:
                listening.close()
                await server.shutdown(timeout=1.0)

    def address(self, shard: int, row: int) -> str:
        """Return what img2dataset is to ask for."""
        return f"{self._base}/{shard}/{row}"

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        _, token, *place = request.path.split("/")
        if request.method != "GET" or not secrets.compare_digest(token.encode(), self._token.encode()):
            return web.Response(status=404)
        shard, row = map(int, place)
        record = Fetched()
        self.attempts.setdefault(shard, {}).setdefault(row, []).append(record)
        passing = _Passing(request, record, self.settings.max_bytes)
        try:
            return await self._fetch(self.url_of(shard, row), passing)
        except FetchError as error:
            record.failure = error.failure
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            # ValueError: what a URL or a header can make the client raise.
            record.failure = failure_of_error(error)
        return passing.fail()

    async def _fetch(self, text: str, passing: _Passing) -> web.StreamResponse:
        record, left_s = passing.record, self.settings.fetch_s
        loop, base = asyncio.get_running_loop(), ""
        for hop in range(self.settings.max_redirects + 1):
            target = read_target(text, base)
            if hop and self.screen.is_listed(target.text):  # what is ordered is matched all at once, before
                raise FetchError(Failure.LISTED)
            async with self._turns.turn(target.host):
                began = loop.time()
                record.hops += 1
                async with (
                    asyncio.timeout(left_s),
                    self._session.get(target.url, allow_redirects=False) as answer,
                ):
                    record.status = answer.status
                    passing.opt_out += answer.headers.getall(_OPT_OUT, [])
                    if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                        return await passing.take(answer)
                    text, base = answer.headers["Location"], str(target.url)
                left_s -= loop.time() - began
        raise FetchError(Failure.REDIRECT_LIMIT)


class _Passing:
    """One answer on its way to img2dataset."""

    def __init__(self, request: web.BaseRequest, record: Fetched, max_bytes: int) -> None:
        self.record, self.opt_out = record, list[str]()
        self._request, self._max_bytes = request, max_bytes
        self._begun: web.StreamResponse | None = None

    async def take(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass an answer on.

        Raises:
            FetchError: it is none that has an image.
            aiohttp.ClientError: it broke off.
        """
        record, headers = self.record, answer.headers
        record.content_type = headers.get("Content-Type", "")[:200]
        failure = failure_of_status(answer.status)
        if failure is not None:
            raise FetchError(failure)
        if (answer.content_length or 0) > self._max_bytes:
            raise FetchError(Failure.TOO_LARGE)
        passed = CIMultiDict((_OPT_OUT, value) for value in self.opt_out)
        passed["Content-Type"] = headers.get("Content-Type", "application/octet-stream")
        head: list[bytes] = []
        async for chunk in answer.content.iter_any():
            record.size += len(chunk)
            if record.size > self._max_bytes:
                raise FetchError(Failure.TOO_LARGE)
            record.digest.update(chunk)
            head.append(chunk)
            if record.size > _SMALL_BYTES:
                if self._begun is None:
                    self._begun = web.StreamResponse(headers=passed)
                    self._begun.content_length = answer.content_length
                    await self._begun.prepare(self._request)
                await self._begun.write(b"".join(head))
                head.clear()
        if not record.size:
            raise FetchError(Failure.EMPTY)
        record.failure = None
        return self._begun or web.Response(body=b"".join(head), headers=passed)

    def fail(self) -> web.StreamResponse:
        """Answer that there is nothing, or cut an answer that was begun."""
        if self._begun is None:
            return web.Response(status=502)
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._begun
