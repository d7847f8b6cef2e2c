"""Every digest, hash, quality and view of files that a person names.

Owns the shape of that answer. The same decoder, views and hashes as in a run; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifiers.hashes.digests import Digests, take_digests
from classifiers.signals import HashCode
from manifests.records import FaultKind
from pipeline.decode import Decoder
from pipeline.hash_pictures import PictureHashes


@dataclass(frozen=True, slots=True)
class ViewHash:
    """The codes of one view under one kind: hex, the picture first, then turned and mirrored where the kind can."""

    column: str
    codes: tuple[str, ...]
    quality: int | None
    usable: bool


@dataclass(frozen=True, slots=True)
class FileHashes:
    """What is known of one file; `fault` says why there are no pixels."""

    path: Path
    size: int
    digests: Digests
    fault: FaultKind | None
    format: str | None
    width: int | None
    height: int | None
    orientation: int | None
    hashes: tuple[ViewHash, ...]

    def record(self) -> dict[str, object]:
        """Return the answer as JSON values."""
        return {
            "file": str(self.path),
            "size": self.size,
            **{name: getattr(self.digests, name).hex() for name in ("md5", "sha1", "sha256")},
            "fault": self.fault,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "orientation": self.orientation,
            "hashes": [
                {"column": item.column, "quality": item.quality, "usable": item.usable, "codes": list(item.codes)}
                for item in self.hashes
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield the answer for a person."""
        what = self.fault or f"{self.format}, {self.width} x {self.height}, EXIF orientation {self.orientation}"
        yield f"{self.path}: {self.size} bytes, {what}"
        for name in ("md5", "sha1", "sha256"):
            yield f"  {name:<8}{getattr(self.digests, name).hex()}"
        for item in self.hashes:
            rated = "" if item.quality is None else f", quality {item.quality}"
            yield f"  {item.column}{rated}{'' if item.usable else ', not usable: never matched'}"
            for variant, code in enumerate(item.codes):
                yield f"    {variant}  {code}"


def hash_files(paths: Sequence[Path], hashes: PictureHashes, decoder: Decoder) -> Iterator[FileHashes]:
    """Yield the hashes of every file, in order.

    Raises:
        OSError: a file cannot be read.
    """
    for path in paths:
        data = path.read_bytes()
        digests = take_digests(data)
        found: list[ViewHash] = []
        fault: FaultKind | None = None
        described: tuple[str | None, int | None, int | None, int | None] = (None, None, None, None)
        for picture in decoder.decode([data]):
            if isinstance(picture, FaultKind):
                fault = picture
            else:
                found += [_view(name, code) for name, code in hashes.of_picture(picture)]
                described = (picture.format, picture.width, picture.height, picture.orientation)
        thumbnail = None if fault else hashes.find_thumbnail(data)
        if thumbnail is not None:
            found += [_view(name, code) for _, name, code in hashes.of_thumbnails({0: thumbnail}, decoder)]
        yield FileHashes(path, len(data), digests, fault, *described, tuple(found))


def _view(name: str, code: HashCode) -> ViewHash:
    return ViewHash(name, tuple(row.tobytes().hex() for row in code.codes), code.quality, code.usable)
