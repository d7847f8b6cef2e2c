"""Holding what is about to be trained on against a manifest: nothing else may come in.

Owns the comparison by content: a sample is in the manifest if the number of its images and the SHA-256 of them all
(`contents.digest_images`) are; of a release that encoded images anew, of these and not of the originals. Leaves
reading a release to `handover`.

- What is not in the manifest may be something that was removed: it is named by tar and position, never by its key.
- A tar that is damaged, and a member that nobody judged, are refused: fail closed.
- A sample counts as often as the manifest names its content; once more is once too often.
- Memory: 44 bytes a sample of the manifest (twice that while it is sorted), one tar's index, one sample.
"""

from __future__ import annotations

import glob
import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests import schema
from manifests.contents import contents_in_tar, digest_images
from manifests.records import FilesError
from manifests.tars import Member, index_tar, is_image, read_member

TEXT_MEMBERS = frozenset({"json", "txt"})
SHOWN_PROBLEMS = 20


class GuardError(FilesError):
    """There is nothing to check, or nothing to check it against."""


class NotInManifestError(FilesError):
    """A sample that is about to be trained on is not in the manifest."""


@dataclass(slots=True)
class GuardReport:
    """What was compared.

    samples: checked. absent: samples of the manifest that are not in the data. renamed: samples under a key that
    the manifest does not have for their content. problem_count: all; `problems` holds the first ones in words, by
    tar and number of the sample in it, from 1 (0: the tar itself).
    """

    tars: int = 0
    samples: int = 0
    absent: int = 0
    renamed: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, tar: Path, sample: int, why: str) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.problem_count += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(f"{tar.name}: sample {sample}: {why}")


@dataclass(frozen=True, slots=True)
class KeptContents:
    """All contents that a manifest names, sorted: rows of digest, images and CRC-32 of the key, S40 [N]."""

    rows: NDArray[np.bytes_]

    @classmethod
    def load(cls, manifest: Path) -> KeptContents:
        """Read a `manifest/` folder, the release folder around it, or one table.

        Raises:
            GuardError: there is no manifest.
            TableError: a table cannot be read.
        """
        folder = manifest / "manifest" if (manifest / "manifest").is_dir() else manifest
        parts = []
        for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]:
            table = schema.read(path)
            if not schema.is_manifest(table):
                raise GuardError(f"{path}: not a manifest of a release")
            columns = contents_in_tar(table), table["images"].to_pylist(), table["key"].to_pylist()
            parts.append(np.array([_row(*row) for row in zip(*columns, strict=True)], "S40"))
        if not parts:
            raise GuardError(f"{manifest}: holds no manifest (*.parquet)")
        rows = np.concatenate(parts)
        rows.sort()
        return cls(rows)

    def find(self, parts: Sequence[tuple[str, object]], members: Collection[str]) -> slice:
        """Return which `rows` are of a sample's content, given its members as (extension, bytes).

        Raises:
            NotInManifestError: there are none, or the sample is not one that may be kept; it says why.
        """
        held = [(extension, data) for extension, data in parts if isinstance(data, bytes)]
        images = [part for part in held if is_image(*part)]
        others = {extension for extension, _ in parts} - {extension for extension, _ in images}
        if not images or len(held) < len(parts):
            raise NotInManifestError("no image: a member that belongs to no sample, or that is decoded already")
        if len({extension for extension, _ in parts}) < len(parts) or not others <= {*members}:
            raise NotInManifestError("two members of one extension, or one that may not lie beside images")
        digest = digest_images([hashlib.sha256(data).digest() for _, data in sorted(images)])
        content = digest + len(images).to_bytes(4, "big")
        ends = np.array([content, content + b"\xff" * 4], "S40")
        first, last = int(self.rows.searchsorted(ends[0])), int(self.rows.searchsorted(ends[1], side="right"))
        if first == last:
            raise NotInManifestError("not in the manifest, or its image was changed")
        return slice(first, last)


def guard(manifest: Path, data: Sequence[str | Path], *, members: Collection[str] = TEXT_MEMBERS) -> GuardReport:
    """Hold tars against a manifest.

    Args:
        manifest: a `manifest/` folder, a release folder, or one table of either.
        data: tars, folders of tars, globs.
        members: extensions of what may lie beside images. A manifest does not bind their bytes.

    Raises:
        GuardError: there is no manifest, or no tar.
        TableError: a manifest is damaged.
        OSError: a tar cannot be read.
    """
    kept, report = KeptContents.load(manifest), GuardReport()
    seen = np.zeros(len(kept.rows), np.uint32)  # how often, at the first row of each content
    for tar in _find_tars(data):
        report.tars += 1
        index, samples = index_tar(tar), dict[str, list[Member]]()
        if index.damage:
            report.add(tar, 0, index.damage)
        for member in index.members:
            samples.setdefault(member.key, []).append(member)
        with tar.open("rb") as file:
            for number, (key, group) in enumerate(samples.items(), 1):
                report.samples += 1
                try:
                    if any(member.fault for member in group):
                        raise NotInManifestError("a member that is cut short, no plain file, or badly named")
                    rows = kept.find([(one.extension, read_member(file, one)) for one in group], members)
                    if seen[rows.start] == rows.stop - rows.start:
                        raise NotInManifestError("more often in the data than in the manifest")
                except NotInManifestError as error:
                    report.add(tar, number, str(error))
                    continue
                seen[rows.start] += 1
                crcs = (row.ljust(40, b"\0")[36:] for row in kept.rows[rows].tolist())
                report.renamed += _crc(key) not in crcs
    report.absent = len(kept.rows) - int(seen.sum())
    return report


def guarded(
    samples: Iterable[Mapping[str, Any]], manifest: Path, *, members: Collection[str] = TEXT_MEMBERS
) -> Iterator[Mapping[str, Any]]:
    """Pass on samples as webdataset makes them (`__key__` and bytes by extension), before anything decodes them.

    Raises:
        GuardError: there is no manifest.
        NotInManifestError: a sample is not in it; none after it is passed on.
    """
    kept = KeptContents.load(manifest)
    for number, sample in enumerate(samples, 1):
        try:
            kept.find([item for item in sample.items() if not item[0].startswith("__")], members)
        except NotInManifestError as error:
            raise NotInManifestError(f"sample number {number}: {error}") from None
        yield sample


def _row(digest: bytes, images: int, key: str) -> bytes:
    return digest + images.to_bytes(4, "big") + _crc(key)


def _crc(key: str) -> bytes:
    return zlib.crc32(key.encode()).to_bytes(4, "big")


def _find_tars(data: Sequence[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for item in data:
        paths = [Path(item)] if Path(item).exists() else [Path(name) for name in glob.glob(str(item))]
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        # A loader may read compressed tars too: they are told as no tars rather than passed over.
        tars = [file for file in files if file.is_file() and (file in paths or {".tar", ".tgz"} & {*file.suffixes})]
        if not tars:
            raise GuardError(f"{item}: no tar there")
        found |= {tar.resolve(): tar for tar in tars}
    return sorted(found.values())
