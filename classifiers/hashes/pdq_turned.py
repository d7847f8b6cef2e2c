"""PDQ of the picture as it would be if it were really turned or mirrored: `pdq:turned`.

Owns eight codes that `pdq:fullres` only approximates. PDQ's decimation picks pixels off the middle, so the code of
a mirrored file is not the code of the picture with signs changed; on fine textures (brick, grass) the two are more
than 31 bits apart, and `pdqhash.compute_dihedral` misses them as well.

- Row 0 is the picture itself, then mirrored, upside down, turned by 180 degrees, and the transposes of these four.
- Matched against the same lists as `pdq:fullres`. Bits that hang on rounding are not settled by the reference: a
  code may differ from pdqhash's of the turned file in a few bits.
"""

from __future__ import annotations

import numpy as np

from classifiers.hashes import pdq_reference as reference
from classifiers.hashes import pdq_rounding as rounding
from classifiers.hashes.pdq import MIN_QUALITY, Pdq
from classifiers.hashes.pdq_linear import shrink_turned
from classifiers.signals import HashCode, Pixels

_DCT = reference.DCT.astype(np.float32)


class PdqTurned(Pdq):
    """The hash kind `pdq:turned`: codes of the picture and of its seven real turns and mirror images."""

    # Recipe: every pixel counts; the turned pictures are decimated where their own pixels would be picked.
    name = "pdq:turned"

    def _hash(self, pixels: Pixels) -> HashCode:
        small = shrink_turned(pixels)
        blocks = _DCT @ small @ _DCT.T
        both = np.concatenate([blocks, blocks.transpose(0, 2, 1)]).reshape(reference.VARIANTS, -1)
        ranked = np.sort(both, axis=1)
        bits = both > ranked[:, rounding.MEDIAN, None]
        quality = reference.quality_of(small[0])
        usable = quality >= MIN_QUALITY and not rounding.is_crowded(ranked[0].astype(np.float64))
        return HashCode(np.packbits(bits[:, ::-1], axis=1), quality, usable=usable)
