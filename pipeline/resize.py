"""Images of kept samples made smaller, for the tars of a release.

Owns what becomes of the pixels. Leaves decoding to `decode`, and which images to `kept_tars`.

- The decoders are those of examine, under its limits: hostile bytes meet no decoder here either.
- Only pixels go on, upright and in RGB: no metadata, no profile, no thumbnail, no further frame.
- The shorter side is brought down to the bound, never up. An image that is small enough is encoded anew as well.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Final

from PIL import Image

from manifests.records import FaultKind
from pipeline.decode import DecodeLimits, Decoder, Picture
from pipeline.kept_tars import Encode
from pipeline.setup import Setup

_JPEG_SIDE: Final = 65_500  # libjpeg writes no longer one


@contextmanager
def open_encoder(setup: Setup) -> Iterator[Encode]:
    """Start a decoder, which ends with the block, and yield what makes the images of a release."""
    config = setup.config
    limits = DecodeLimits(
        **asdict(setup.plan.examine.decode),
        trailing_bytes="copy" if config.members.trailing_bytes == "copied" else "quarantine",
    )
    with Decoder(limits) as decoder:
        yield partial(_encode, decoder, side=config.release.resize, quality=config.release.quality)


def _encode(decoder: Decoder, image: bytes, *, side: int, quality: int) -> bytes | FaultKind:
    with closing(decoder.decode([image])) as outcomes:
        found = next(outcomes)
        return found if isinstance(found, FaultKind) else encode_jpeg(found, side=side, quality=quality)


def encode_jpeg(picture: Picture, *, side: int, quality: int) -> bytes:
    """Return a picture as JPEG, with a shorter side of at most `side` and a longer one that JPEG can have."""
    image, size = Image.fromarray(picture.pixels), (picture.width, picture.height)
    scale = min(side / min(size), _JPEG_SIDE / max(size))
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
