"""Canaries: benign entries of ours in every stored list, and the drawn pictures that must hit them in every run.

Owns the pictures and what each must match. Leaves to the store that they are flagged and not counted, to the
pipeline that every worker sends them through its own path.

- A canary's picture is kept as bytes in the list, so that its digests are the same on every machine.
- A code has two: one entry equal to the picture's code, one exactly at the default radius, its differing bits
  spread evenly, so that an index that gives up a band too early misses it.
- They test our path, not the list: for its completeness compare with the owner's stated count.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from classifiers.blocklists.algorithms import CODE_WIDTHS, DEFAULT_RADIUS, DEFAULT_RADIUS_64, UID, URL_WIDTHS
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from classifiers.hashes.registry import find_kind
from classifiers.signals import HashKind

_SIDE = 128
_CELLS = 12
_RECIPES = {"pdq": "pdq:fullres"}  # a code of another algorithm has one recipe, of the same name


@dataclass(frozen=True, slots=True, repr=False)
class Canary:
    """A picture (PNG bytes) and the entry of a list that it must match, `distance` bits away (0 for a digest)."""

    image: bytes
    algorithm: str
    entry: bytes
    distance: int


def make_canaries(algorithms: Sequence[str], seed: int) -> tuple[Canary, ...]:
    """Draw the canaries of a list that holds entries of `algorithms`; other seeds give other pictures."""
    random = np.random.default_rng(seed)
    made: list[Canary] = []
    for algorithm in algorithms:
        if algorithm in DIGEST_WIDTHS:
            image = _draw(random)
            made.append(Canary(image, algorithm, getattr(take_digests(image), algorithm), 0))
        elif algorithm in CODE_WIDTHS:
            made += _of_code(algorithm, random)
        else:
            assert algorithm in (*URL_WIDTHS, UID)  # no path of pixels to test; a uid is a digest's head
    return tuple(made)


def picture_code(canary: Canary) -> bytes:
    """Hash the picture of a canary whose algorithm is one of codes, here and without isolation: we drew it."""
    code = _kind(canary.algorithm).encode(_pixels(canary.image))
    assert code is not None
    return bytes(code.codes[0])


def _kind(algorithm: str) -> HashKind:
    return find_kind(_RECIPES.get(algorithm, algorithm))


def _of_code(algorithm: str, random: np.random.Generator) -> Iterator[Canary]:
    kind = _kind(algorithm)
    for distance in (0, DEFAULT_RADIUS if algorithm in _RECIPES else DEFAULT_RADIUS_64):
        while True:
            image = _draw(random)
            code = kind.encode(_pixels(image))
            if code is not None and code.usable:
                break
        bits = np.unpackbits(code.codes[0])
        # At r = 31 every band of 16 bits but one differs in two bits, so that just one band leads to the entry.
        spread = np.argsort(np.arange(len(bits)) % 16, kind="stable")[:distance]
        bits[spread] ^= 1
        yield Canary(image, algorithm, np.packbits(bits).tobytes(), distance)


def _draw(random: np.random.Generator) -> bytes:
    cells = random.integers(0, 256, (_CELLS, _CELLS, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(cells).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def _pixels(image: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
