"""PDQ of many pictures of one size at once, on any torch device that knows float64.

Owns the batched linear form. Leaves the weights to `pdq_linear`, the bound on the reference's rounding to
`pdq_rounding`, and every picture that could hang on it, to `pdq.Pdq` on the processor.

- Bit for bit what the kind's own `encode` answers: what is made here is taken only where the reference agrees.
- The sums of rows are of whole numbers that float32 holds, and TF32 and bfloat16 their factors, so no precision
  setting of the host changes them. All that follows is in float64: it is small.
- What could hang is judged coefficient by coefficient and not by pairs, so a few pictures are hashed again that
  would not need it: one or two photographs in a hundred are, and plain drawings more often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from classifiers.hashes import pdq_reference as reference
from classifiers.hashes import pdq_rounding as rounding
from classifiers.hashes.pdq import BIT_PLACES, CODE_BYTES, MIN_QUALITY, SIGNS, Pdq
from classifiers.hashes.pdq_c512 import LARGEST_SIDE_PX, PdqC512, places
from classifiers.hashes.pdq_linear import LUMA, row_sums
from classifiers.signals import HashCode

_VALUES_AT_ONCE = 1 << 27  # widened to float32: half a GiB


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """The codes of N pictures.

    codes: uint8, N x 8 x 32. quality: int64, N. sure: bool, N: where it is false, the reference has to decide.
    """

    codes: torch.Tensor
    quality: torch.Tensor
    sure: torch.Tensor


def encode_batch(pixels: torch.Tensor, kind: Pdq | PdqC512) -> list[HashCode | None]:
    """Hash pictures of one size; None for each where `kind` cannot hash that size.

    Args:
        pixels: N x H x W x 3 uint8, RGB, on any device.
        kind: the recipe.

    Raises:
        ValueError: the tensor has another shape or dtype.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != torch.uint8:
        raise ValueError(f"pixels: expected N x H x W x 3 uint8, found {tuple(pixels.shape)} {pixels.dtype}")
    if isinstance(kind, PdqC512):
        pixels = _at_most_512(pixels)
    if min(pixels.shape[1:3]) < reference.MIN_SIDE_PX:
        return [None] * len(pixels)
    codes: list[HashCode | None] = []
    step = max(1, _VALUES_AT_ONCE // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        codes += _checked(part, encode_linearly(part))
    return codes


def encode_linearly(pixels: torch.Tensor) -> Batch:
    """Hash pictures in the linear form, and say which of them cannot hang on the rounding of the reference.

    Args:
        pixels: N x H x W x 3 uint8, RGB, both sides at least 5 px.
    """
    count, height, width, _ = pixels.shape
    device = pixels.device
    small = _shrink(pixels)
    grey = small.square().mean(dim=(1, 2)).sqrt()
    size = rounding.drift(height, width)
    quality, is_quality_sure = _quality(small, grey * size.gradient)
    dct = torch.as_tensor(reference.DCT, dtype=torch.float64, device=device)
    block = dct @ small @ dct.T
    signed = torch.as_tensor(SIGNS, device=device) * block.reshape(count, 1, -1)
    ranked = signed.sort(dim=2).values
    median = ranked[..., rounding.MEDIAN, None]
    middle = (median + ranked[..., rounding.MEDIAN + 1, None]) / 2
    reach = grey * rounding.DEVIATIONS * torch.where(_is_alike(small), rounding.LIKENESS, 1)
    deviation = torch.as_tensor(size.variance(), device=device).sqrt()
    is_clear = ((signed - middle).abs() > reach[:, None, None] * deviation).all(dim=2).all(dim=1)
    sure = is_clear & is_quality_sure & ~_is_crowded(ranked[:, 0])
    bits = (signed > median).reshape(count, -1)[:, torch.as_tensor(BIT_PLACES, device=device)]
    powers = 2 ** torch.arange(7, -1, -1, device=device)
    codes = (bits.reshape(count, reference.VARIANTS, CODE_BYTES, 8) * powers).sum(dim=3).to(torch.uint8)
    return Batch(codes, quality, sure)


def _checked(pixels: torch.Tensor, batch: Batch) -> list[HashCode | None]:
    """Take the codes that are sure, and hash the other pictures one by one."""
    kind = Pdq()
    codes, quality = batch.codes.cpu().numpy(), batch.quality.tolist()
    return [
        HashCode(codes[row], quality[row], usable=quality[row] >= MIN_QUALITY)
        if is_sure
        else kind.encode(pixels[row].cpu().numpy())
        for row, is_sure in enumerate(batch.sure.tolist())
    ]


def _at_most_512(pixels: torch.Tensor) -> torch.Tensor:
    height, width = pixels.shape[1:3]
    if max(height, width) <= LARGEST_SIDE_PX:
        return pixels
    rows, columns = (torch.as_tensor(places(side), device=pixels.device) for side in (height, width))
    return pixels.index_select(1, rows).index_select(2, columns)


def _shrink(pixels: torch.Tensor) -> torch.Tensor:
    """Return the blurred and decimated luma, N x 64 x 64 float64."""
    count, height, width, _ = pixels.shape
    by_row = torch.as_tensor(_dense(height), dtype=torch.float32, device=pixels.device)
    sums = by_row @ pixels.reshape(count, height, width * 3).to(torch.float32)
    by_column = _means(torch.as_tensor(_dense(width), device=pixels.device), width)
    lanes = (by_column[:, :, None] * torch.as_tensor(LUMA, device=pixels.device)).reshape(reference.SMALL_SIDE, -1)
    return _means(sums.to(torch.float64) @ lanes.T, height)


def _dense(side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the 65 weighted sums along a side as a matrix, 65 x side."""
    weights, positions, ends = row_sums(side)
    dense = np.zeros((len(ends) - 1, side))
    dense[np.repeat(np.arange(len(dense)), np.diff(ends)), positions] = weights
    return dense


def _means(sums: torch.Tensor, side: int) -> torch.Tensor:
    """Return the 64 weighted means (... x 64 x M) of 65 weighted sums along a side (... x 65 x M)."""
    window = reference.window_size(side)
    means = sums[..., :-1, :].clone()
    if window > 1:
        means[..., -1, :] += sums[..., -1, :] / (window - 1)
    return means / window**2


def _quality(small: torch.Tensor, slack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the quality of each picture, and whether no gradient within `slack` of a whole number decides it."""
    margin = slack[:, None] * 100 / 255
    gradients = torch.cat([small.diff(dim=dim).abs().flatten(1) for dim in (1, 2)], dim=1) * 100 / 255
    least, most = (
        ((gradients + bound).trunc().sum(dim=1).to(torch.int64) // reference.GRADIENT_PER_QUALITY).clamp(
            max=reference.MAX_QUALITY
        )
        for bound in (-margin, margin)
    )
    return least, least == most


def _is_alike(small: torch.Tensor) -> torch.Tensor:
    """Say of each picture what `pdq_rounding` says of one: whether its lines may round alike."""
    steps = torch.cat([small.diff(dim=dim).abs().flatten(1) for dim in (1, 2)], dim=1)
    return (steps < rounding.ALIKE_LEVELS).to(torch.float64).mean(dim=1) > rounding.ALIKE_SHARE


def _is_crowded(ranked: torch.Tensor) -> torch.Tensor:
    """Say of each sorted block (N x 256) what `pdq_rounding.is_crowded` says of one."""
    reach = rounding.MAX_NEAR // 4
    median = ranked[:, rounding.MEDIAN]
    near = (rounding.NEAR_SHARE * torch.maximum(-ranked[:, 0], ranked[:, -1])).clamp(min=rounding.NEAR_LEVELS)
    below, above = ranked[:, rounding.MEDIAN - reach], ranked[:, rounding.MEDIAN + reach]
    return torch.minimum(median - below, above - median) <= near
