"""The tower as a worker sees it where the process of a device holds it: views into shared memory, rows out of it.

Owns the wire between the two, and the memory they share. Leaves the forward pass to `device_process`.

- A worker has at most `SLOTS` batches under way: it makes the views of one while the device is at the other.
- A batch is embedded as it comes, alone: its bits do not depend on who else is waiting.
- The memory is one anonymous, sealed memfd of each worker: nothing in /dev/shm, and gone with the two processes.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Callable
from copy import copy
from functools import partial
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifiers.embedders.folder import ClipFolder
from classifiers.embedders.views import square_view
from classifiers.signals import BatchTooLargeError, Embeddings, Pixels, Views
from pipeline.errors import DeviceError
from pipeline.stages import StageClock

REQUEST: Final = struct.Struct("<QIII")  # number, slot, rows, batch
REPLY: Final = struct.Struct("<QB3xId")  # number, status, batches that waited behind it, seconds it took
DONE, TOO_LARGE = 0, 1
SLOTS: Final = 2


class Slab:
    """Memory for `SLOTS` batches of views, uint8 B x S x S x 3, and of their rows, float16 B x D."""

    def __init__(self, fd: int, *, size: int, dims: int, batch: int) -> None:
        self.fd, self.batch = fd, batch
        view, rows = SLOTS * batch * size * size * 3, SLOTS * batch * dims * 2
        if os.fstat(fd).st_size == 0:
            os.ftruncate(fd, view + rows)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        memory = mmap.mmap(fd, view + rows)
        self.views = np.frombuffer(memory, np.uint8, view).reshape(SLOTS, batch, size, size, 3)
        self.rows = np.frombuffer(memory, np.float16, rows // 2, view).reshape(SLOTS, batch, dims)


class DeviceClient:
    """An `Embedder` whose forward passes happen in the process of a device."""

    def __init__(
        self, connection: socket.socket, *, name: str, folder: ClipFolder, batch: int, clock: StageClock
    ) -> None:
        """Hand the shared memory over; the process may still be loading.

        Args:
            connection: to the process, as its executor made it.
            name: the full name in the plan, which the process has checked.
            folder: what the model's folder says of itself.
            batch: rows of a batch at most.
            clock: takes the seconds that the device was at work for this worker, and what waited there.

        Raises:
            DeviceError: the process is gone.
        """
        self._connection, self._name, self._folder, self._batch = connection, name, folder, batch
        self._clock = clock
        self._numbers = count(1)
        fd = os.memfd_create("shardscrub-views", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._slab = Slab(fd, size=folder.size, dims=folder.dims, batch=batch)
        try:
            socket.send_fds(connection, [b"slab"], [fd])
        except OSError:
            raise DeviceError from None
        finally:
            os.close(fd)

    @property
    def name(self) -> str:
        """Model, version, weights digest, view and precision."""
        return self._name

    @property
    def dims(self) -> int:
        """Width of an embedding."""
        return self._folder.dims

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return the view that the tower reads; see `square_view`."""
        return square_view(pixels, self._folder.size, squash=self._folder.squash)

    def start(self, views: Views) -> Callable[[], Embeddings]:
        """Send at most a batch of views; what is returned waits for its rows. Wait in the order of sending.

        Raises:
            ValueError: more than a batch.
            DeviceError: the process is gone.
        """
        if len(views) > self._batch:
            raise ValueError(f"expected at most {self._batch} views, found {len(views)}")
        number = next(self._numbers)
        self._slab.views[number % SLOTS, : len(views)] = views
        try:
            self._connection.send(REQUEST.pack(number, number % SLOTS, len(views), self._batch))
        except OSError:
            raise DeviceError from None
        return partial(self._finish, number, len(views))

    def embed(self, views: Views) -> Embeddings:
        """Embed views, uint8 N x S x S x 3, as unit rows rounded to float16, N x D, batch by batch.

        Raises:
            BatchTooLargeError: a batch does not fit in the device's memory.
            DeviceError: the process is gone.
        """
        parts = [self.start(views[at : at + self._batch])() for at in range(0, len(views), self._batch)]
        return np.concatenate([np.empty((0, self.dims), np.float16), *parts])

    def with_batch(self, batch: int) -> DeviceClient:
        """Return the same tower for smaller batches; batches that nobody waits for any more are passed over."""
        other = copy(self)
        other._batch = min(batch, self._slab.batch)
        return other

    def _finish(self, number: int, rows: int) -> Embeddings:
        while True:
            try:
                message = self._connection.recv(REPLY.size)
            except OSError:
                message = b""
            if not message:
                raise DeviceError
            answered, status, waiting, busy_s = REPLY.unpack(message)
            if answered == number:
                break
        self._clock.device(busy_s, waiting)
        if status == TOO_LARGE:
            raise BatchTooLargeError(rows)
        return self._slab.rows[number % SLOTS, :rows].copy()
