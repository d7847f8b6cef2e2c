"""One decoding child process as its parent sees it: its slot, its clock, its death.

Owns spawning, the shared memory, and what a silence, a hang-up or a broken reply means. Leaves order and
retries to `decode`, the child's own half to `decode_worker`. Linux only (memfd, prctl).

- The slot is one anonymous, sealed memfd: nothing in /dev/shm, nothing on a disk. It outlives its children.
- A slot is emptied after every fault, after every large image, and at the end.
- Nothing that a child sends is believed before it is checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from manifests.records import FaultKind
from pipeline.decode_worker import READY, REPLY, REQUEST, unpack_reply
from pipeline.errors import RunError
from pipeline.image_pixels import Decoded, DecodeLimits, Pixels

WORKER_COMMAND: Final = (sys.executable, "-P", "-S", "-m", "pipeline.decode_worker")
RETRIED: Final = frozenset((FaultKind.DECODER_CRASH, FaultKind.WALL_LIMIT, FaultKind.MEMORY_LIMIT))
_START_S: Final = 120.0  # a worker imports numpy and Pillow first, on whatever file system they lie
_KEPT_BYTES: Final = 16 << 20  # an image that leaves more than this in its slot has its pages dropped


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One decoded image, upright.

    pixels: uint8, H x W x 3, RGB: a view onto the worker's slot, valid only until the next result is asked
    for or the decoder is closed. Copy what must live longer. orientation: the EXIF value (1 to 8) that was
    applied. width and height are those of `pixels`.
    """

    pixels: Pixels
    format: str
    width: int
    height: int
    orientation: int


class Worker:
    """One child process, replaced whenever it is gone, and the slot that outlives it."""

    def __init__(self, command: Sequence[str], limits: DecodeLimits) -> None:
        self._command = command
        self._limits = limits
        self._slot = Slot(limits.slot_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket()
        self._is_ready = False
        self._is_busy = False
        self._deadline = 0.0
        self._used_bytes = 0

    def start(self) -> None:
        """Start a fresh child; `await_ready` tells whether it came up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handed = (theirs.fileno(), self._slot.fd)
        limits = json.dumps(dataclasses.asdict(self._limits))
        self._socket.close()
        self._socket, self._is_ready = ours, False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours or the caller's, never an input's
                [*self._command, *map(str, handed), limits],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # decoders quote metadata in their warnings
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the parent
            )

    def await_ready(self) -> None:
        """Wait until the child has said that it is ready.

        Raises:
            RunError: it ended, or said something else, or nothing for two minutes.
        """
        if self._is_ready:
            return
        if self._receive(time.monotonic() + _START_S) != READY:
            code = self.kill()
            raise RunError(
                f"the decode worker {self._command[0]} did not start (exit code {code}): run it with the arguments "
                f"{' '.join(self._command[1:])} to see why; it needs numpy, Pillow >= 13.0.0 and simplejpeg"
            )
        self._is_ready = True

    def submit(self, image: bytes) -> None:
        """Hand over one image, to a fresh child if the last one is gone; `wait` must follow."""
        if self._process is None:
            self.start()
        self.await_ready()
        self._slot.memory[: len(image)] = image
        self._used_bytes, self._is_busy = len(image), True
        self._deadline = time.monotonic() + self._limits.wall_s
        with contextlib.suppress(ConnectionError):  # it died while idle: `wait` finds the socket at its end
            self._socket.send(REQUEST.pack(len(image)))

    def wait(self) -> Picture | FaultKind:
        """Return what became of the image. A child that was killed or cannot be trusted any more is gone."""
        message = self._receive(self._deadline)
        self._is_busy = False
        if message is None:
            self.kill()
            return FaultKind.WALL_LIMIT
        if not message:
            return FaultKind.CPU_LIMIT if self.kill() == -signal.SIGXCPU else FaultKind.DECODER_CRASH
        reply = unpack_reply(message, self._limits)
        if isinstance(reply, Decoded):
            pixels = self._slot.pixels(self._limits.pixels_at, reply.height, reply.width)
            self._used_bytes += pixels.size
            return Picture(pixels, reply.format, reply.width, reply.height, reply.orientation)
        if reply in RETRIED:
            self.kill()
        self._slot.drop()
        return reply

    def release(self) -> None:
        """The last result has been read."""
        if self._used_bytes > _KEPT_BYTES:
            self._slot.drop()
            self._used_bytes = 0

    def abandon(self) -> None:
        """Nobody will read the last result."""
        if self._is_busy:
            self.kill()
        self._slot.drop()

    def kill(self) -> int | None:
        """End the child if there is one, empty the slot, and return the exit code (-n: signal n)."""
        if self._process is None:
            return None
        self._process.kill()  # no effect on one that is already dying of something else
        code = self._process.wait()
        self._process, self._is_busy = None, False
        self._socket.close()
        self._slot.drop()
        return code

    def close(self) -> None:
        """End the child and the slot."""
        self.kill()
        self._socket.close()
        self._slot.close()

    def _receive(self, deadline: float) -> bytes | None:
        """Return one message, b"" where the child is gone, None where the time is up."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))):
            return None
        try:
            return self._socket.recv(REPLY.size + 1)
        except ConnectionError:
            return b""


class Slot:
    """Anonymous memory that parent and child share: the image's bytes first, its pixels behind them."""

    def __init__(self, size_bytes: int) -> None:
        self.fd = os.memfd_create("shardscrub-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size_bytes)
        # A child that could shrink it would kill the parent with SIGBUS.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.memory = mmap.mmap(self.fd, size_bytes)

    def pixels(self, start: int, height: int, width: int) -> Pixels:
        """Return a view onto the pixels that begin at byte `start`."""
        return np.frombuffer(self.memory, np.uint8, 3 * height * width, start).reshape(height, width, 3)

    def drop(self) -> None:
        """Give all pages back to the kernel: every byte reads as 0 afterwards."""
        self.memory.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Empty it. The mapping itself goes with the last view, so a view that is kept too long reads zeros."""
        self.drop()
        os.close(self.fd)


def _environment() -> dict[str, str]:
    """The child's whole environment. It finds the same packages as this process, and runs no start-up hooks."""
    # In this process's order: a package that shadows a module of the standard library must not come before it.
    places = [*filter(os.path.isabs, sys.path), str(Path(__file__).resolve().parent.parent)]
    environment = {
        "PYTHONPATH": os.pathsep.join(places),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # Large blocks go back to the kernel at once, so that an image's share does not hang on earlier ones.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    }
    if "LD_LIBRARY_PATH" in os.environ:  # some interpreters cannot start without
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment
