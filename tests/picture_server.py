"""A web server on the loopback with every behaviour that a crawl meets, and a log of what it was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections import Counter
from types import TracebackType
from urllib.parse import unquote

from aiohttp import web


def picture(name: str, size: int = 900) -> bytes:
    """Bytes that stand for one picture: the head of a JPEG and noise of the name."""
    noise = b"".join(hashlib.sha256(f"{name}{n}".encode()).digest() for n in range(size // 32 + 1))
    return b"\xff\xd8\xff\xe0" + noise[:size]


class PictureServer:
    """Serves in a thread of its own while the block runs. asked: paths, decoded, in order."""

    def __init__(self, *, size: int = 900, keep: bool = True) -> None:
        """size: of a plain picture, in bytes. keep: note digests, and answer each path with bytes of its own."""
        self._size, self._fixed = size, None if keep else picture("", size)
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self._times: Counter[str] = Counter()
        self.cookies: list[str] = []
        self.served: dict[str, list[str]] = {}
        self._loop = asyncio.new_event_loop()
        self._runner: web.ServerRunner | None = None
        self.port = 0
        self.calm = False  # nothing hangs any more

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.place}{path}"

    def counts(self) -> Counter[str]:
        return Counter(self.asked)

    def __enter__(self) -> PictureServer:
        self._loop.run_until_complete(self._start())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        left = asyncio.all_tasks(self._loop)  # answers that nobody waits for any more
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.raw_path)
        if self._fixed is not None:
            return web.Response(headers={"Content-Type": "image/jpeg"}, body=self._fixed)
        self.asked.append(path)
        self.agents.add(request.headers["User-Agent"])
        self.cookies += request.headers.getall("Cookie", [])
        _, kind, *rest = path.partition("?")[0].split("/")
        self._times[path] += 1
        times = self._times[path]
        headers = {"Set-Cookie": "a=b", "Content-Type": "image/jpeg"}
        if kind in ("404", "403", "429", "503"):
            return web.Response(status=int(kind), headers=headers, body=picture(path))
        if kind == "flaky" and times == 1:
            return web.Response(status=500)
        if kind == "hang" and not self.calm:
            await asyncio.sleep(60)
        if kind == "to":
            return web.Response(status=302, headers={"Location": request.query["u"], **headers})
        if kind == "loop":
            return web.Response(status=301, headers={"Location": f"/loop/{int(rest[0]) + 1}"})
        if kind in ("drip", "huge", "short"):
            return await self._stream(request, kind)
        if kind == "html":
            return self._give(path, b"<html>no picture</html>", {"Content-Type": "text/html"})
        if kind == "empty":
            return web.Response(headers=headers, body=b"")
        if kind == "declared":
            response = web.StreamResponse(headers={**headers, "Content-Length": str(300 << 20)})
            await response.prepare(request)
            await response.write(b"x" * 1000)
            return response
        if kind == "refuses":
            return web.Response(headers={**headers, "X-Robots-Tag": rest[0]}, body=picture(path))
        body = picture(f"{path}{times}" if kind == "changing" else path, 700_000 if kind == "large" else self._size)
        return self._give(path, body, headers)

    def _give(self, path: str, body: bytes, headers: dict[str, str]) -> web.Response:
        self.served.setdefault(path, []).append(hashlib.sha256(body).hexdigest())
        return web.Response(headers=headers, body=body)

    async def _stream(self, request: web.BaseRequest, kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
        if kind == "short":
            response.content_length = 600_000
        await response.prepare(request)
        try:
            await response.write(b"\xff\xd8\xff")
            if kind == "short":
                await response.write(b"x" * 400_000)
                request.transport.abort()
            for _ in range(4800):
                await asyncio.sleep(0.05 if kind == "drip" else 0)
                await response.write(b"x" * (1 if kind == "drip" else 1 << 16))
        except ConnectionError:
            pass
        return response


class Listener:
    """A port of the loopback that counts who connects to it, over IPv4 and IPv6."""

    def __init__(self) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        if socket.has_ipv6:
            with contextlib.suppress(OSError):
                self._sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for one in self._sockets:
            one.setblocking(False)

    def close(self) -> int:
        """Close, and say how many connected."""
        count = 0
        for one in self._sockets:
            try:
                while True:
                    one.accept()[0].close()
                    count += 1
            except BlockingIOError:
                one.close()
        return count
