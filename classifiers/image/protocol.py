"""What a net that reads pixels looks like to a run."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from classifiers.signals import Pixels, Scores, Views


class PixelNet(Protocol):
    """A classifier over pictures: square uint8 views in, one score in [0, 1] a row out."""

    @property
    def name(self) -> str:
        """`name@version`, as policies name it."""

    @property
    def full_name(self) -> str:
        """The name with all that changes a score: digest of the weights, preprocessing, precision."""

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Make what is kept of a picture until its batch is full: S x S x 3, fresh memory, pixels only read."""

    def score(self, views: Views) -> Scores:
        """Score a batch; NaN where the net cannot say. A score hangs on its own view alone, to the bit."""
