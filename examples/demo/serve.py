"""Serves a folder on the loopback address, so that the demo downloads without any network.

- Only files that lie in the folder when serving starts are served; any other path is a 404.
- Bound to 127.0.0.1. The usual port is fixed, so that URLs, and all that depends on them, repeat; a taken port
  is replaced by a free one.
"""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

USUAL_PORT = 47813


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    files: dict[str, Path]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = self.server.files.get(self.path.removeprefix("/"))
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        data = path.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing: two thousand lines would hide the demo."""


def bind() -> _Server:
    """Take the usual port, or any free one; requests wait until `serving` answers them."""
    try:
        return _Server(("127.0.0.1", USUAL_PORT), _Handler)
    except OSError:
        return _Server(("127.0.0.1", 0), _Handler)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the files of `folder` from another thread while the block runs; gives the base URL, without slash."""
    with bind() as server:
        server.files = {path.name: path for path in folder.iterdir() if path.is_file()}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
