"""The process of one device: it holds the model once, for all workers that make views for that device.

Owns the order in which batches of several workers are embedded. Started by an executor as
`python -m pipeline.device_process OPTIONS CONTROL_FD PARENT`. The executor sends the connection of each worker over
the control socket; where the model cannot be loaded, exit code and reason come back on it.

- First come, first served, one batch of one worker a forward pass: who else is at work changes no bit.
- While the device is at one batch the next is on its way there.
- A worker's death ends its connection and nothing else. This process dies with the executor's.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.signals import BatchTooLargeError, Embeddings
from pipeline.device_client import DONE, REPLY, REQUEST, TOO_LARGE, Slab
from pipeline.errors import ScrubError
from pipeline.examiners import load_embedder
from pipeline.executors.protocol import WorkerOptions
from pipeline.setup import load_setup
from pipeline.worker import die_with


@dataclass(slots=True)
class _Worker:
    connection: socket.socket
    slab: Slab | None = None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that the device is at. `waiting` others stood behind it."""

    worker: _Worker
    number: int
    slot: int
    rows: int
    waiting: int
    began: float
    finish: Callable[[], Embeddings]


class DeviceServer:
    """Embeds the batches of the workers that are connected."""

    def __init__(self, embedder: OpenClipEmbedder, *, size: int, batch: int, control: socket.socket) -> None:
        self._embedders = {batch: embedder}
        self._size, self._batch = size, batch
        self._selector = selectors.DefaultSelector()
        self._control = control
        self._selector.register(control, selectors.EVENT_READ)
        self._free_at = 0.0

    def serve(self) -> None:
        """Go on until the executor hangs up."""
        begun: _Begun | None = None
        while True:
            ready = self._selector.select(0 if begun else None)
            if begun and not ready:
                self._finish(begun)
                begun = None
            for place, (key, _) in enumerate(ready):
                if key.fileobj is self._control:
                    if not self._admit():
                        return
                    continue
                following = self._begin(key.data, waiting=len(ready) - place - 1)
                if begun and following:
                    self._finish(begun)
                begun = following or begun

    def _admit(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self._control, 16, 1)
        for fd in fds:
            connection = socket.socket(fileno=fd)
            self._selector.register(connection, selectors.EVENT_READ, _Worker(connection))
        return bool(message)

    def _begin(self, worker: _Worker, *, waiting: int) -> _Begun | None:
        """Take one message of a worker; a batch is begun, or answered at once where it does not fit."""
        try:
            message, fds, _, _ = socket.recv_fds(worker.connection, REQUEST.size, 1)
        except ConnectionError:
            message, fds = b"", []
        if fds:
            dims = self._embedders[self._batch].dims
            worker.slab = Slab(fds[0], size=self._size, dims=dims, batch=self._batch)
            os.close(fds[0])
            return None
        if not message or worker.slab is None:
            self._selector.unregister(worker.connection)
            worker.connection.close()
            return None
        number, slot, rows, batch = REQUEST.unpack(message)
        began = time.perf_counter()
        try:
            if batch not in self._embedders:
                self._embedders[batch] = self._embedders[self._batch].with_batch(batch)
            finish = self._embedders[batch].start(worker.slab.views[slot, :rows])
            return _Begun(worker, number, slot, rows, waiting, began, finish)
        except BatchTooLargeError:
            self._answer(worker, REPLY.pack(number, TOO_LARGE, waiting, 0.0))
            return None

    def _finish(self, begun: _Begun) -> None:
        """Wait for a batch and answer its worker."""
        status = DONE
        try:
            rows = begun.finish()
        except BatchTooLargeError:
            status = TOO_LARGE
        else:
            assert begun.worker.slab is not None
            begun.worker.slab.rows[begun.slot, : begun.rows] = rows
        now = time.perf_counter()
        busy_s, self._free_at = now - max(begun.began, self._free_at), now
        self._answer(begun.worker, REPLY.pack(begun.number, status, begun.waiting, busy_s))

    def _answer(self, worker: _Worker, reply: bytes) -> None:
        with suppress(OSError):  # a worker that is gone is noticed when its connection is read
            worker.connection.send(reply)


def main(arguments: list[str]) -> None:
    """Load the model, say so, and serve."""
    given, control_fd, parent = arguments
    die_with(int(parent))
    options = WorkerOptions.read(given)
    with socket.socket(fileno=int(control_fd)) as control:
        try:
            setup = load_setup(options)
            plan = setup.plan.examine
            embedder = load_embedder(setup, threads=plan.threads * options.share)
        except ScrubError as error:
            control.send(f"{int(error.exit_code)} {error}".encode())
            sys.exit(error.exit_code)
        DeviceServer(embedder, size=embedder.size, batch=plan.batch, control=control).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
