"""The protocols a signal is made of. Adding one is one small file and one registry line.

- A name says everything that changes the output: model, weights digest, preprocessing, precision, recipe.
- NaN in a column means "could not say"; nothing else does. There are no sentinel values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # H x W x 3, RGB
Views = NDArray[np.uint8]  # N x S x S x 3, RGB
Embeddings = NDArray[np.float16]  # N x D, unit length before rounding; NaN rows could not be computed
Scores = NDArray[np.float32]  # N, NaN = could not say

# torch multiplies a few rows by other kernels, whose last bits hang on the number of rows and of threads.
# On CPUs we saw that below 8 rows (ViT-B/32, fp32, 1 to 16 threads).
MIN_ROWS = 16


class BatchTooLargeError(Exception):
    """A forward pass did not fit in memory; `rows` is how many views it had."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"a forward pass over {rows} views does not fit in memory")
        self.rows = rows


@dataclass(frozen=True, slots=True, repr=False)
class HashCode:
    """The codes of one picture under one recipe.

    codes: uint8, V x B: one row for each variant of the picture (row 0 is the picture itself).
    quality: 0 to 100, None where the recipe has none. usable: False where the codes hang on rounding or hold
    no features; such codes are never matched.
    """

    codes: NDArray[np.uint8]
    quality: int | None
    usable: bool


def check_pixels(pixels: Pixels) -> None:
    """Refuse anything but the pixels of one RGB picture.

    Raises:
        ValueError: the array is not H x W x 3 uint8.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels: expected H x W x 3 uint8, found {pixels.shape} {pixels.dtype}")


class HashKind(Protocol):
    """A perceptual hash of a whole picture."""

    @property
    def name(self) -> str:
        """Recipe, with everything that changes the output: `pdq:fullres`."""
        ...

    @property
    def variants(self) -> int:
        """How many codes a picture gets, one for each turn or mirror image that the recipe knows."""
        ...

    @property
    def code_bytes(self) -> int:
        """Width of a code."""
        ...

    def encode(self, pixels: Pixels) -> HashCode | None:
        """Hash one picture; None where the picture cannot be hashed at all (a side under 5 px)."""
        ...


class Embedder(Protocol):
    """An image tower: square uint8 views in, fp16-rounded unit embeddings out."""

    @property
    def name(self) -> str:
        """Model, version, weights digest, view and precision."""
        ...

    @property
    def dims(self) -> int:
        """Width of an embedding."""
        ...

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Make the square view (S x S x 3) that the tower reads from a picture of any size."""
        ...

    def embed(self, views: Views) -> Embeddings:
        """Embed a batch. Rows do not influence each other.

        Raises:
            BatchTooLargeError: it does not fit in memory; fewer views may.
        """
        ...

    def with_batch(self, batch: int) -> Embedder:
        """Return this tower for batches of `batch` views."""
        ...


@runtime_checkable
class Overlapped(Protocol):
    """An embedder that is at work elsewhere: the caller can go on while a batch is embedded."""

    def start(self, views: Views) -> Callable[[], Embeddings]:
        """Send at most a batch; what is returned waits for its rows, in the order of sending; raises as `embed`."""
        ...


class Classifier(Protocol):
    """A head: embeddings in, one score in [0, 1] a row out."""

    @property
    def name(self) -> str:
        """`name@version`, as policies name it."""
        ...

    @property
    def full_name(self) -> str:
        """The name with the digest of the weights."""
        ...

    @property
    def stand_in(self) -> bool:
        """Whether random numbers stand in the place of trained ones."""
        ...

    def score(self, embeddings: Embeddings) -> Scores:
        """Score a batch; a row with a NaN in it scores NaN."""
        ...
