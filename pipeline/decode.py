"""Bytes of images in, pixels or faults out, from decoders that are allowed to die.

Owns order and retries. Leaves one child process to `decode_child`, what runs in it to `decode_worker`, and
the decoding to `image_pixels`.

- Results come in input order and do not depend on the number of workers: image j goes to worker j % workers,
  and one image's death, hang or bomb changes no other result.
- A crash, a wall timeout or a full memory is tried once more, alone, in a fresh worker; the second time counts.
- The iterable is pulled lazily: at most `workers` images are held at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from itertools import cycle, islice
from types import TracebackType
from typing import Self

from manifests.records import FaultKind
from pipeline.decode_child import RETRIED, WORKER_COMMAND, Picture, Worker
from pipeline.image_pixels import DecodeLimits, require_pillow

__all__ = ["DecodeLimits", "Decoder", "Picture"]


class Decoder:
    """Decodes images in `workers` child processes; a context manager.

    Use it in the thread that entered it: the kernel kills the workers when that thread ends.

    Args:
        limits: what one image may cost.
        workers: child processes, each with one image in flight at most.
        worker_command: the program that speaks the worker's protocol (see `decode_worker`), with absolute
            paths; it gets the socket's and the slot's descriptor and the limits as JSON as last arguments.

    Raises:
        RunError: on entering: Pillow is too old, or a worker does not start.
    """

    def __init__(
        self, limits: DecodeLimits, *, workers: int = 1, worker_command: Sequence[str] | None = None
    ) -> None:
        if workers < 1:
            raise ValueError(f"{workers} decode workers: at least 1 is needed")
        self._limits = limits
        self._count = workers
        self._command = tuple(worker_command or WORKER_COMMAND)
        self._workers: list[Worker] = []
        self._decoding = False

    def __enter__(self) -> Self:
        require_pillow()
        self._workers = [Worker(self._command, self._limits) for _ in range(self._count)]
        try:
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                worker.await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and empty their slots."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def decode(self, images: Iterable[bytes]) -> Generator[Picture | FaultKind]:
        """Decode images in order, pulling them as workers become free.

        Yields:
            One result an image: a `Picture`, whose pixels are valid until the next result is asked for, or
            the fault that keeps the image from being judged.

        Raises:
            RuntimeError: the decoder is not entered, or another `decode` of it is still running.
        """
        if not self._workers or self._decoding:
            raise RuntimeError("enter the Decoder first, and finish one decode() before the next")
        self._decoding = True
        source, places = iter(images), cycle(self._workers)
        jobs: deque[_Job] = deque()
        try:
            while True:
                for image in islice(source, self._count - len(jobs)):
                    jobs.append(_Job(next(places), image, self._limits))
                if not jobs:
                    return
                yield self._finish(jobs)
                jobs.popleft().worker.release()
        finally:
            for job in jobs:
                job.worker.abandon()
            self._decoding = False

    def _finish(self, jobs: deque[_Job]) -> Picture | FaultKind:
        job = jobs[0]
        outcome = job.wait()
        if outcome in RETRIED:
            for other in jobs:  # alone: an unlucky neighbour must not decide
                other.wait()
            job.worker.submit(job.image)
            outcome = job.worker.wait()
        return outcome


class _Job:
    """One image on its way; an image that is empty or too large never reaches its worker."""

    def __init__(self, worker: Worker, image: bytes, limits: DecodeLimits) -> None:
        self.worker = worker
        self.image = image
        self._outcome: Picture | FaultKind | None = None
        if not image:
            self._outcome = FaultKind.EMPTY
        elif len(image) > limits.max_bytes:
            self._outcome = FaultKind.TOO_MANY_BYTES
        else:
            worker.submit(image)

    def wait(self) -> Picture | FaultKind:
        if self._outcome is None:
            self._outcome = self.worker.wait()
        return self._outcome
