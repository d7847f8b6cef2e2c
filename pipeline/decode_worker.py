"""The child process that decodes one image after the other, and may die at any of them.

Owns the wire between parent and child, and the child's isolation. Leaves decoding to `image_pixels`;
starting, watching, replacing and retrying to `decode`.

- The child holds one socket and one memory slot: no file, no terminal, and no right to write a file.
- It dies with its parent and leaves no core file.
- Its memory is capped for life, its CPU seconds anew for every image; the parent watches the clock.
- A reply is sent only when the child will not touch the slot again before the next request.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
import warnings
from typing import Final

import numpy as np

from manifests.records import FaultKind
from pipeline.image_pixels import Decode, Decoded, DecodeLimits, decode_image, require_pillow

REQUEST: Final = struct.Struct("<Q")  # bytes of the image, which lies at the start of the slot
REPLY: Final = struct.Struct("<BBBxII")  # status, format, orientation, width, height
FORMATS: Final = ("jpeg", "png", "webp", "gif", "bmp", "tiff")
FAULTS: Final = (
    FaultKind.NOT_AN_IMAGE,
    FaultKind.TRUNCATED,
    FaultKind.UNDECODABLE,
    FaultKind.TRAILING_BYTES,
    FaultKind.ANIMATED,
    FaultKind.TOO_MANY_FRAMES,
    FaultKind.TOO_MANY_PIXELS,
    FaultKind.MEMORY_LIMIT,
)
READY: Final = REPLY.pack(255, 0, 0, 0, 0)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_CODE_BYTES: Final = 512 << 20  # address space for libraries and thread stacks


def pack_reply(outcome: Decoded | FaultKind) -> bytes:
    """Return the reply to one request. Status 0 is a picture, n the n-th of `FAULTS`."""
    if isinstance(outcome, Decoded):
        return REPLY.pack(0, FORMATS.index(outcome.format), outcome.orientation, outcome.width, outcome.height)
    return REPLY.pack(1 + FAULTS.index(outcome), 0, 0, 0, 0)


def unpack_reply(message: bytes, limits: DecodeLimits) -> Decoded | FaultKind:
    """Read a reply that a hostile child may have sent: whatever breaks the rules is a DECODER_CRASH."""
    if len(message) != REPLY.size:
        return FaultKind.DECODER_CRASH
    status, format_at, orientation, width, height = REPLY.unpack(message)
    if 1 <= status <= len(FAULTS):
        return FAULTS[status - 1]
    fits = 0 < width * height <= limits.max_pixels
    if status != 0 or format_at >= len(FORMATS) or not 1 <= orientation <= 8 or not fits:
        return FaultKind.DECODER_CRASH
    return Decoded(FORMATS[format_at], width, height, orientation)


def isolate(limits: DecodeLimits) -> None:
    """Cap and cut off this process for the rest of its life.

    RLIMIT_DATA bounds its private memory; a shared mapping does not count there, so the address space is
    bounded as well. The parent's death may come before the first line here: then the socket is at its end.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3):
            raise OSError(ctypes.get_errno(), f"prctl {option} failed: the decoder cannot be isolated here")
    memory = limits.memory_mb << 20
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_AS, memory + limits.slot_bytes + _CODE_BYTES),
    ):
        resource.setrlimit(what, (most, most))


def serve(parent: socket.socket, slot: mmap.mmap, limits: DecodeLimits, decode: Decode) -> None:
    """Answer requests until the parent hangs up."""
    room = np.frombuffer(slot, np.uint8, count=3 * limits.max_pixels, offset=limits.pixels_at)
    parent.send(READY)
    while request := parent.recv(REQUEST.size):
        (length,) = REQUEST.unpack(request)
        # SIGXCPU, whose default is death, comes when the process as a whole has used this many seconds.
        soft_s = math.ceil(time.process_time()) + limits.cpu_s
        resource.setrlimit(resource.RLIMIT_CPU, (soft_s, resource.RLIM_INFINITY))
        try:
            outcome = decode(slot[:length], limits, room)
        except MemoryError:
            outcome = FaultKind.MEMORY_LIMIT
        parent.send(pack_reply(outcome))


def main(decode: Decode = decode_image) -> None:
    """Run the child: `program SOCKET_FD SLOT_FD LIMITS_JSON`, with both descriptors inherited."""
    require_pillow()
    socket_fd, slot_fd, limits_json = sys.argv[1:]
    limits = DecodeLimits(**json.loads(limits_json))
    slot = mmap.mmap(int(slot_fd), limits.slot_bytes)
    os.close(int(slot_fd))
    isolate(limits)
    warnings.simplefilter("ignore")  # nobody reads them, and they may quote metadata
    with socket.socket(fileno=int(socket_fd)) as parent:
        serve(parent, slot, limits, decode)


if __name__ == "__main__":
    main()
