"""PDQ at full resolution, fast: `pdq:fullres`.

Owns making the eight codes of a picture, and the choice between the two forms. Leaves the fast form's arithmetic to
`pdq_linear`, the bound on its error to `pdq_rounding`, and the algorithm itself to `pdq_reference`.

- Codes and quality are those of pdqhash 0.2.8, also where a picture turns out not usable.
- The reference rounds as it goes. Where that could change a bit or the quality, the reference decides: it costs
  30 to 90 times as much, and about one photograph in a hundred needs it.
- A code is the bytes of its hex text: `bytes.fromhex(text) == codes[0].tobytes()`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classifiers.hashes import pdq_reference as reference
from classifiers.hashes import pdq_rounding as rounding
from classifiers.hashes.pdq_linear import shrink
from classifiers.signals import HashCode, Pixels, check_pixels

MIN_QUALITY = 50  # a code below it is to be discarded (facebook/ThreatExchange, pdq/README.md)
CODE_BYTES = reference.BLOCK_SIDE**2 // 8

_DCT = reference.DCT.astype(np.float64)
_DCT_ACROSS = np.ascontiguousarray(_DCT.T)


def _signs() -> NDArray[np.float64]:
    """Return the four patterns of signs that turning and mirroring put on the block, 4 x 256."""
    plain = np.ones(reference.BLOCK_SIDE)
    alternating = np.where(np.arange(reference.BLOCK_SIDE) % 2 == 1, 1.0, -1.0)
    patterns = [(plain, plain), (alternating, plain), (plain, alternating), (alternating, alternating)]
    return np.stack([np.outer(by_row, by_column).ravel() for by_row, by_column in patterns])


def _bit_places() -> NDArray[np.intp]:
    """Return where each bit of the eight codes, first byte first, stands among the 4 x 256 signed bits."""
    plain, by_row, by_column, by_both = np.arange(4 * 256).reshape(4, 16, 16)
    variants = [plain, by_column.T, by_both, by_row.T, by_row, by_column, plain.T, by_both.T]
    return np.stack([variant.ravel()[::-1] for variant in variants])


SIGNS = _signs()
BIT_PLACES = _bit_places()


class Pdq:
    """The hash kind `pdq:fullres`: eight 256-bit codes of a picture and of its turned and mirrored variants.

    The variants follow the order of `pdqhash.compute_dihedral`; row 0 is the picture itself. A picture is usable
    with a quality of 50 or more and at most 16 coefficients so near the median that their bits are noise, which
    shuts out constants, stripes and gradients.
    """

    # Recipe: every pixel counts, the picture is not shrunk to 512 px first.
    name = "pdq:fullres"
    variants = reference.VARIANTS  # the picture, its turns and its mirror images
    code_bytes = CODE_BYTES

    def encode(self, pixels: Pixels) -> HashCode | None:
        """Hash one picture; None where a side is under 5 px.

        Args:
            pixels: H x W x 3 uint8, RGB.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        check_pixels(pixels)
        return None if min(pixels.shape[:2]) < reference.MIN_SIDE_PX else self._hash(pixels)

    def _hash(self, pixels: Pixels) -> HashCode:
        return encode_fast(pixels) or encode_slowly(pixels)


def encode_fast(pixels: Pixels) -> HashCode | None:
    """Hash one picture in the linear form; None where the rounding of the reference has to decide.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    small = shrink(pixels)
    size = rounding.drift(*pixels.shape[:2])
    grey = rounding.level(small)
    quality = rounding.quality(small, grey * size.gradient)
    if quality is None:
        return None
    signed = SIGNS * (_DCT @ small.astype(np.float64) @ _DCT_ACROSS).ravel()
    ranked = np.sort(signed, axis=1)
    gaps = ranked[:, rounding.MEDIAN : rounding.MEDIAN + 2]
    if rounding.is_crowded(ranked[0]) or rounding.hangs(small, grey, signed, gaps, size):
        return None
    return HashCode(_codes(signed > gaps[:, :1]), quality, usable=quality >= MIN_QUALITY)


def encode_slowly(pixels: Pixels) -> HashCode:
    """Hash one picture by the reference: what `Pdq` answers for every picture.

    Args:
        pixels: H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    block, quality = reference.block_of(pixels)
    signed = SIGNS * block.ravel()
    ranked = np.sort(signed, axis=1)
    distances = np.abs(ranked[0] - ranked[0, rounding.MEDIAN])
    near = int(np.count_nonzero(distances <= rounding.near(ranked[0]))) - 1
    usable = quality >= MIN_QUALITY and near <= rounding.MAX_NEAR
    return HashCode(_codes(signed > ranked[:, rounding.MEDIAN, None]), quality, usable=usable)


def _codes(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(bits.ravel().take(BIT_PLACES), axis=1)
