"""A real S3 API on loopback (moto's server), behind something that breaks requests on demand."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

SECRET = "sk-never-to-be-printed"
KEY_ID = "AKIAOFNOBODY00000000"
BUCKET = "drawings"


@dataclass(slots=True)
class Fault:
    """What happens to requests of a method whose path holds `part`, so many `times`, after the first `skip`.

    An answer of that status and code; or, with `keep` set, the true answer cut off after so many bytes; or, with
    `after`, the error only once the request was carried out.
    """

    method: str
    part: str
    status: int = 503
    code: str = "SlowDown"
    times: int = 1
    skip: int = 0
    keep: int | None = None
    after: bool = False

    def meets(self, method: str, path: str) -> bool:
        if method != self.method or self.part not in path or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(slots=True)
class ObjectStore:
    """The server: its address, what was asked, what is to go wrong."""

    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    on_request: Callable[[str, str], None] | None = None

    def settings(self, **changes: object) -> dict[str, object]:
        """Return a table [remote] that leads here."""
        return {"endpoint_url": self.endpoint, "region": "us-east-1", **changes}

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all objects, as they are now."""
        keys = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
        return sorted(name for name in list(keys) if name.startswith(prefix))

    def data(self, name: str) -> bytes:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys[name].value

    def fill(self, name: str, data: bytes) -> None:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, name, data)

    def drop(self, name: str) -> None:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys.pop(name)

    def uploads(self) -> int:
        return len(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].multiparts)

    def __call__(self, environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        method, path = str(environ["REQUEST_METHOD"]), f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        self.requests.append((method, path))
        if self.on_request is not None:
            self.on_request(method, path)
        fault = next((item for item in self.faults if item.meets(method, path)), None)
        if fault is None:
            return self._app(environ, start)
        if fault.keep is not None:
            whole = b"".join(self._app(environ, start))
            return _cut(whole[: fault.keep])
        if fault.after:
            b"".join(self._app(environ, lambda *_: None))
        else:  # a client that still sends sees no answer
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()
        start(f"{fault.status} No", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
        return [] if method == "HEAD" else [text]

    @property
    def _app(self) -> DomainDispatcherApplication:
        return _APP


_APP = DomainDispatcherApplication(create_backend_app)


def _cut(data: bytes) -> Iterator[bytes]:
    yield data
    raise ConnectionAbortedError("cut off")


@contextmanager
def serve() -> Iterator[ObjectStore]:
    """Serve an empty bucket; the process's environment holds credentials for it meanwhile."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store = ObjectStore()
    server = make_server("127.0.0.1", 0, store, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    names = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    thread.start()
    try:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, "us-east-1")
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
