"""The image tower of a CLIP model that open_clip can read, from a pinned folder on disk.

Owns the normalisation and the forward pass; `folder` reads the configuration, `views` makes the pixels that
go in. Leaves getting the weights, choosing batches and the number of threads to the caller.

- Nothing is loaded but a folder with the pinned digest; no network, no pickle, never a random model.
- Same views, same batch boundaries, same device class: same bits, for any number of threads.
- Rows do not influence each other. A row that comes out as NaN or infinity is all NaN.
- Views are only read, and may lie in memory that must not be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from classifiers.embedders.devices import DEVICES, resolve_device
from classifiers.embedders.folder import embedder_name, read_folder
from classifiers.embedders.views import borrow, square_view
from classifiers.signals import MIN_ROWS, BatchTooLargeError, Embeddings, Pixels, Views
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import WeightsError, check_pin

Step = TypeVar("Step")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# What a RuntimeError says where it is no torch.OutOfMemoryError: allocators of the CPU and of CUDA, libraries.
_OUT_OF_MEMORY = re.compile(
    "can't allocate|not enough memory|out of memory|_ALLOC_FAILED|could not create a primitive"
)
# No form is chosen by timing it, no process is left behind, and nothing lies where another user can put it.
_COMPILE: dict[str, Any] = {"deterministic": True, "compile_threads": 1, "cpp_cache_precompile_headers": False}


class OpenClipEmbedder:
    """An `Embedder` over `open_clip_config.json` and `open_clip_model.safetensors` in one folder.

    The view and whether the tower uses QuickGELU are what the folder's configuration says. On CUDA the whole
    process is set to deterministic kernels without TF32.
    """

    def __init__(
        self, folder: Path, *, name: str, sha256: str, device: str, precision: str, batch: int, jit: bool = False
    ) -> None:
        """Check the pin and load the image tower.

        Args:
            folder: the model folder.
            name: `name@version`, as configured; holds 'stand-in' if the folder is marked as one.
            sha256: the pin: the folder's `digest_folder`.
            device: 'cpu' or 'cuda'.
            precision: 'fp32' or 'bf16'.
            batch: rows in one forward pass at most; fewer than 16 are filled up to 16.
            jit: let torch.compile make code for the tower, anew each time; every pass is then filled up to
                `batch` rows, so that one shape is compiled.

        Raises:
            WeightsError: missing, not the pinned folder, pickled weights, or a configuration that is not supported;
                or the tower cannot be compiled here.
            ValueError: unknown device or precision, or a batch under 1.
            BatchTooLargeError: not even one pass fits in memory.
        """
        if device not in DEVICES or precision not in _DTYPES or batch < 1:
            raise ValueError(f"expected cpu or cuda, fp32 or bf16, 1 row or more: {device}, {precision}, {batch}")
        what = f"embedder '{name}'"
        check_pin(folder, sha256, what=what)
        config = read_folder(folder, name=name)
        self._device = torch.device(resolve_device(device))
        self._copies = None
        if device == "cuda":
            _make_cuda_exact()
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call] # torch's own
        self.stand_in = config.stand_in
        self._name = embedder_name(name, sha256, config, precision, compiled=jit)
        self._size, self._squash = config.size, config.squash
        self._dims = config.dims
        self._batch = batch
        self._compiled = jit
        self._dtype = _DTYPES[precision]
        self._mean = torch.tensor(config.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(config.std, device=self._device).view(1, 3, 1, 1)
        self._tower: Callable[[torch.Tensor], torch.Tensor] = _load_tower(folder, self._device, precision)
        # open_clip read the files a second time.
        check_pin(folder, sha256, what=what)
        if jit:
            self._tower = torch.compile(self._tower, dynamic=False, fullgraph=True, options=_COMPILE)
        self._try_tower(what)

    @property
    def name(self) -> str:
        """Model, version, weights digest, view and precision: `vit-b-32@1#1a2b3c4d/bicubic224/bf16`."""
        return self._name

    @property
    def dims(self) -> int:
        """Width of an embedding."""
        return self._dims

    @property
    def size(self) -> int:
        """Side of a view in pixels."""
        return self._size

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return the view that the tower reads, uint8 S x S x 3, fresh memory; see `square_view`."""
        return square_view(pixels, self._size, squash=self._squash)

    def embed(self, views: Views) -> Embeddings:
        """Embed views, uint8 N x S x S x 3, as unit rows rounded to float16, N x D. N may be 0.

        More rows than a batch are taken batch by batch.

        Raises:
            ValueError: not such an array.
            BatchTooLargeError: a forward pass does not fit in memory.
        """
        if views.dtype != np.uint8 or views.shape[1:] != (self._size, self._size, 3):
            raise ValueError(
                f"expected views uint8 N x {self._size} x {self._size} x 3, found {views.dtype} {views.shape}"
            )
        rows = np.empty((len(views), self._dims), dtype=np.float16)
        for start in range(0, len(views), self._batch):
            part = views[start : start + self._batch]
            rows[start : start + len(part)] = self.start(part)()
        return rows

    def start(self, views: Views) -> Callable[[], Embeddings]:
        """Begin to embed at most a batch of views; what is returned waits for the rows.

        On CUDA the views are on their way, and the pass is queued, when this returns: the next batch can be begun
        before this one is waited for. On the CPU it is done by then.

        Raises:
            BatchTooLargeError: the pass does not fit in memory; what is returned may raise it too.
        """
        least = max(self._batch, MIN_ROWS) if self._compiled else MIN_ROWS
        padded = views
        if len(views) < least:
            padded = np.pad(views, ((0, least - len(views)), (0, 0), (0, 0), (0, 0)))
        rows, count = len(views), len(padded)
        finish = _or_too_large(count, partial(self._queue, padded))
        return lambda: _or_too_large(count, finish)[:rows]

    def with_batch(self, batch: int) -> OpenClipEmbedder:
        """Return the same tower, in the same memory, for forward passes of `batch` rows at most."""
        other = copy(self)
        other._batch = batch
        if other._compiled:
            other._try_tower(f"embedder '{self._name}'")
        return other

    def _queue(self, views: Views) -> Callable[[], Embeddings]:
        """Queue a pass over the views; what is returned waits for it."""
        with torch.inference_mode():
            pixels = self._bring(borrow(np.ascontiguousarray(views)))
            # So turned, the pixels are channels-last, which convolutions like best.
            normal = pixels.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std)
            raw = self._tower(normal.to(self._dtype)).float()
            rows = (raw / raw.norm(dim=1, keepdim=True)).half()
            if self._copies is None:
                return partial(_finite, rows)
            there = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True).copy_(rows, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own
            done.record()
        return partial(_finite, there, done)

    def _bring(self, views: torch.Tensor) -> torch.Tensor:
        """Bring views to the device, on CUDA beside the pass that is under way, from pinned memory."""
        if self._copies is None:
            return views
        with torch.cuda.stream(self._copies):
            there = views.pin_memory().to(self._device, non_blocking=True)
        here = torch.cuda.current_stream(self._device)
        here.wait_stream(self._copies)
        there.record_stream(here)
        return there

    def _try_tower(self, what: str) -> None:
        """Embed one grey view: a tower that cannot is an error now, not a fault of every sample later.

        torch.compile does its work here, at the first pass. Without, one row alone will do: it is thrown away.
        """
        grey = np.full((1, self._size, self._size, 3), 128, dtype=np.uint8)
        with _compiling(what) if self._compiled else nullcontext():
            row = self.start(grey)() if self._compiled else _or_too_large(1, lambda: self._queue(grey)())
        if row.shape != (1, self._dims) or not np.isfinite(row).all():
            found = f"shape {row.shape}, finite: {bool(np.isfinite(row).all())}"
            raise WeightsError(
                f"{what}: expected a finite embedding (1, {self._dims}) of a grey picture, found {found}"
            )


def _or_too_large(rows: int, step: Callable[[], Step]) -> Step:
    """Do a step of a forward pass.

    Raises:
        BatchTooLargeError: it does not fit in memory.
    """
    try:
        return step()
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error))):
            raise
    # Raised out here, so that no frame of the failed pass lives on and holds its memory.
    raise BatchTooLargeError(rows)


def _finite(rows: torch.Tensor, done: torch.cuda.Event | None = None) -> Embeddings:
    """Wait for rows that a device computes, and make one that is not all finite all NaN."""
    if done is not None:
        done.synchronize()
    found: Embeddings = rows.numpy().copy()
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


@contextmanager
def _compiling(what: str) -> Iterator[None]:
    """Let torch compile in a fresh folder: code that lies in its usual one may be anybody's."""
    from torch._inductor.utils import fresh_cache  # noqa: PLC0415 - seconds, and only where a tower is compiled

    try:
        with TemporaryDirectory(prefix="shardscrub-compile-") as folder, fresh_cache(dir=folder):
            yield
    except RuntimeError as error:
        reason = str(getattr(error, "inner_exception", error)).partition("\n")[0]
        raise WeightsError(
            f"{what}: torch cannot compile it here ({reason}); that takes a C++ compiler (g++) and, on a GPU, "
            "Triton: install them, or set [embedder] compile = false"
        ) from None


def _make_cuda_exact() -> None:
    # cuBLAS reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def _load_tower(folder: Path, device: torch.device, precision: str) -> torch.nn.Module:
    try:
        model = open_clip.create_model(
            f"local-dir:{folder}", precision=precision, device=device, require_pretrained=True
        )
    except (RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{folder}: open_clip cannot build this model: {error}") from error
    # The text tower goes with `model`.
    tower: torch.nn.Module = model.visual
    if getattr(tower, "output_tokens", False):
        raise WeightsError(
            f"{folder}: the tower gives tokens beside the embedding; only plain CLIP towers are read"
        )
    return tower.eval().requires_grad_(False)
