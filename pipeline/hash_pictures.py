"""Which perceptual hashes are taken of a picture: every configured kind, of every configured view it has.

Owns the names of hash columns (`kind.view`) and the thumbnail's part in them. Leaves views of pixels to
`classifiers.hashes.views`, finding a thumbnail's bytes to `exif_thumbnail`, decoding to the isolated decoder.

- A view is hashed only where it differs from the oriented picture.
- An embedded thumbnail is hashed without its border: cameras put bars round it. One that cannot be decoded gives
  no hash; it can lead to a match and to nothing milder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from classifiers.hashes.views import picture_views, stripped_view
from classifiers.signals import HashCode, HashKind
from manifests.records import FaultKind
from pipeline.config import THUMBNAIL
from pipeline.decode import Decoder, Picture
from pipeline.exif_thumbnail import find_thumbnail


@dataclass(frozen=True, slots=True)
class PictureHashes:
    """The hashes of a plan: kinds, and the names of the views they are taken of."""

    kinds: tuple[HashKind, ...]
    views: tuple[str, ...]

    @property
    def columns(self) -> dict[str, HashKind]:
        """Every hash column by name, with its kind."""
        return {f"{kind.name}.{view}": kind for kind in self.kinds for view in self.views}

    def of_picture(self, picture: Picture) -> Iterator[tuple[str, HashCode]]:
        """Yield (column, code) of every view of a decoded picture that can be hashed."""
        wanted = [view for view in self.views if view != THUMBNAIL]
        for view, pixels in picture_views(picture.pixels, picture.orientation, wanted):
            for kind in self.kinds:
                code = kind.encode(pixels)
                if code is not None:
                    yield f"{kind.name}.{view}", code

    def find_thumbnail(self, data: bytes) -> bytes | None:
        """Return the thumbnail embedded in an image file, if thumbnails are to be hashed and there is one."""
        return find_thumbnail(data) if THUMBNAIL in self.views else None

    def of_thumbnails(
        self, thumbnails: Mapping[int, bytes], decoder: Decoder
    ) -> Iterator[tuple[int, str, HashCode]]:
        """Yield (row, column, code) of every thumbnail, by row, that can be decoded and hashed."""
        for row, picture in zip(thumbnails, decoder.decode(thumbnails.values()), strict=True):
            if isinstance(picture, FaultKind):
                continue
            stripped = stripped_view(picture.pixels)
            for kind in self.kinds:
                code = kind.encode(picture.pixels if stripped is None else stripped)
                if code is not None:
                    yield row, f"{kind.name}.{THUMBNAIL}", code
