"""PDQ after shrinking to 512 x 512, as the command-line tools of the C++ reference make it: `pdq:c512`.

Owns the nearest-neighbour choice of pixels. Leaves the hash of them to `pdq`.

- A picture with a side over 512 px becomes 512 x 512 without regard to its aspect; any other is hashed as it is.
- CImg's `resize(512, 512)` interpolates nothing: place x reads pixel floor(x * side / 512), in both directions. A
  side under 512 px beside a longer one is stretched, its pixels repeated.
- So no list made by the Python reference is met exactly: that one shrinks with antialiasing and keeps the aspect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classifiers.hashes.pdq import Pdq
from classifiers.signals import HashCode, Pixels, check_pixels

LARGEST_SIDE_PX = 512


class PdqC512(Pdq):
    """The hash kind `pdq:c512`: as `Pdq`, of at most 512 x 512 pixels.

    Source: facebook/ThreatExchange, pdq/cpp/io/pdqio.cpp (`pdqHash256FromFile`) and pdq/cpp/CImg.h (`get_resize`,
    interpolation type 1, which is the default).

    Checked: of the codes that the C++ code, compiled for browsers, publishes (pdq/wasm/test/TestData), 14 are of
    pictures at hand. 13 are equal, 7 of them of shrunk pictures, and one differs in 2 bits; no antialiased, centred
    or aspect-keeping choice of pixels meets more than 10. The Python reference's codes are within 8 bits.
    Not checked: the same pixels into both, as no build of the C++ tool was at hand. Its decoder may differ from
    ours, which moves a few bits, and it leaves transparency out, which is a matter of what is handed in here.
    """

    # Recipe: the C++ reference's, with its 512 px.
    name = "pdq:c512"

    def encode(self, pixels: Pixels) -> HashCode | None:
        """Hash one picture; None where a side is under 5 px and none is over 512, as in the reference."""
        check_pixels(pixels)
        return super().encode(at_most_512(pixels))


def at_most_512(pixels: Pixels) -> Pixels:
    """Return the picture as the C++ reference hashes it: 512 x 512 where a side is longer, else unchanged."""
    height, width, _ = pixels.shape
    if max(height, width) <= LARGEST_SIDE_PX:
        return pixels
    return pixels.take(places(height), axis=0).take(places(width), axis=1)


def places(side: int) -> NDArray[np.intp]:
    """Return the 512 positions of a side that are read."""
    return np.arange(LARGEST_SIDE_PX) * side // LARGEST_SIDE_PX
