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
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from classifiers.embedders.devices import DEVICES, resolve_device
from classifiers.embedders.folder import embedder_name, read_folder
from classifiers.embedders.views import borrow, square_view
from classifiers.signals import Embeddings, Pixels, Views
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import WeightsError, check_pin

# torch multiplies a few rows by other kernels, whose last bits hang on the number of rows and of threads.
# On CPUs we saw that below 8 rows (ViT-B/32, fp32, 1 to 16 threads).
MIN_ROWS = 16
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class OpenClipEmbedder:
    """An `Embedder` over `open_clip_config.json` and `open_clip_model.safetensors` in one folder.

    The view and whether the tower uses QuickGELU are what the folder's configuration says. On CUDA the whole
    process is set to deterministic kernels without TF32.
    """

    def __init__(self, folder: Path, *, name: str, sha256: str, device: str, precision: str, batch: int) -> None:
        """Check the pin and load the image tower.

        Args:
            folder: the model folder.
            name: `name@version`, as configured; holds 'stand-in' if the folder is marked as one.
            sha256: the pin: the folder's `digest_folder`.
            device: 'cpu' or 'cuda'.
            precision: 'fp32' or 'bf16'.
            batch: rows in one forward pass at most; fewer than 16 are filled up to 16.

        Raises:
            WeightsError: missing, not the pinned folder, pickled weights, or a configuration that is not supported.
            ValueError: unknown device or precision, or a batch under 1.
        """
        if device not in DEVICES or precision not in _DTYPES or batch < 1:
            raise ValueError(f"expected cpu or cuda, fp32 or bf16, 1 row or more: {device}, {precision}, {batch}")
        what = f"embedder '{name}'"
        check_pin(folder, sha256, what=what)
        config = read_folder(folder, name=name)
        self._device = torch.device(resolve_device(device))
        if device == "cuda":
            _make_cuda_exact()
        self.stand_in = config.stand_in
        self._name = embedder_name(name, sha256, config, precision)
        self._size = config.size
        self._dims = config.dims
        self._batch = batch
        self._dtype = _DTYPES[precision]
        self._mean = torch.tensor(config.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(config.std, device=self._device).view(1, 3, 1, 1)
        self._tower = _load_tower(folder, self._device, precision)
        # open_clip read the files a second time.
        check_pin(folder, sha256, what=what)
        self._try_tower(what)

    @property
    def name(self) -> str:
        """Model, version, weights digest, view and precision: `vit-b-32@1#1a2b3c4d/bicubic224/bf16`."""
        return self._name

    @property
    def dims(self) -> int:
        """Width of an embedding."""
        return self._dims

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return the view that the tower reads, uint8 S x S x 3, fresh memory; see `square_view`."""
        return square_view(pixels, self._size)

    def embed(self, views: Views) -> Embeddings:
        """Embed views, uint8 N x S x S x 3, as unit rows rounded to float16, N x D. N may be 0.

        More rows than a batch are taken batch by batch.

        Raises:
            ValueError: not such an array.
        """
        if views.dtype != np.uint8 or views.shape[1:] != (self._size, self._size, 3):
            raise ValueError(
                f"expected views uint8 N x {self._size} x {self._size} x 3, found {views.dtype} {views.shape}"
            )
        rows = np.empty((len(views), self._dims), dtype=np.float16)
        for start in range(0, len(views), self._batch):
            part = views[start : start + self._batch]
            count = len(part)
            if count < MIN_ROWS:
                part = np.pad(part, ((0, MIN_ROWS - count), (0, 0), (0, 0), (0, 0)))
            rows[start : start + count] = self._forward(part)[:count]
        return rows

    def _forward(self, views: Views) -> Embeddings:
        with torch.inference_mode():
            # So turned, the pixels are channels-last, which convolutions like best.
            pixels = borrow(np.ascontiguousarray(views)).to(self._device).permute(0, 3, 1, 2)
            normal = pixels.float().div_(255).sub_(self._mean).div_(self._std)
            raw = self._tower(normal.to(self._dtype)).float()
            unit = raw / raw.norm(dim=1, keepdim=True)
            rows: Embeddings = unit.half().cpu().numpy()
        rows[~np.isfinite(rows).all(axis=1)] = np.nan
        return rows

    def _try_tower(self, what: str) -> None:
        """Embed one grey view: a tower that cannot is an error now, not a fault of every sample later."""
        row = self._forward(np.full((1, self._size, self._size, 3), 128, dtype=np.uint8))
        if row.shape != (1, self._dims) or not np.isfinite(row).all():
            found = f"shape {row.shape}, finite: {bool(np.isfinite(row).all())}"
            raise WeightsError(
                f"{what}: expected a finite embedding (1, {self._dims}) of a grey picture, found {found}"
            )


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
