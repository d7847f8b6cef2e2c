"""The 64-bit hashes of the `imagehash` library, for lists that are made of them: pHash, dHash, wHash and aHash.

Owns what they are called and which of their codes say too little to be matched. Leaves the hashes to the library.

- A code is the bytes of the library's hex text: `bytes.fromhex(str(imagehash.phash(picture))) == codes.tobytes()`.
- One variant: these hashes say nothing of turned or mirrored pictures.
- They have no measure of quality: `quality` is None.
- The name holds the library's version. Its grey and its shrinking are Pillow's, its transforms SciPy's and
  PyWavelets', so those belong in the versions that a run records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import imagehash
import numpy as np
from PIL import Image

from classifiers.signals import HashCode, Pixels, check_pixels

ALGORITHMS: Mapping[str, Callable[[Image.Image], imagehash.ImageHash]] = MappingProxyType(
    {
        "phash": imagehash.phash,
        "dhash": imagehash.dhash,
        "whash": imagehash.whash,
        "ahash": imagehash.average_hash,
    }
)
MIN_SIDE_PX = 5  # under it, all but a few of the 64 bits are interpolation
CODE_BYTES = 8
MIN_BITS_APART = 2  # of a plain picture no bit is set, or every bit, or (pHash, for the mean) one bit


class ImageHashKind:
    """A hash kind of the library: `phash:imagehash-4.3.2` and the like.

    A code is usable where at least two of its bits differ from the others: codes of plain pictures and of even
    gradients (dHash) are met by every other plain picture.

    Args:
        algorithm: a key of `ALGORITHMS`.

    Raises:
        KeyError: no such algorithm.
    """

    variants = 1  # the picture as it is
    code_bytes = CODE_BYTES

    def __init__(self, algorithm: str) -> None:
        self.name = kind_name(algorithm)
        self._hash = ALGORITHMS[algorithm]

    def encode(self, pixels: Pixels) -> HashCode | None:
        """Hash one picture; None where a side is under 5 px.

        Args:
            pixels: H x W x 3 uint8, RGB.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        check_pixels(pixels)
        if min(pixels.shape[:2]) < MIN_SIDE_PX:
            return None
        bits = np.asarray(self._hash(Image.fromarray(pixels)).hash, bool).ravel()
        rarer = min(int(bits.sum()), int((~bits).sum()))
        return HashCode(np.packbits(bits)[None], None, usable=rarer >= MIN_BITS_APART)


def kind_name(algorithm: str) -> str:
    """Return the recipe name of an algorithm."""
    return f"{algorithm}:imagehash-{imagehash.__version__}"
