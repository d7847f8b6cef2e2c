"""Handing a release to those who train: iterate the kept samples, each held against the manifest.

Owns reading `releases/N`. Needs numpy, pyarrow and the standard library; no torch, no lists, no key.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from manifests import schema
from manifests.collection import Collection
from manifests.commits import RecordError
from manifests.contents import contents_in_tar, digest_images
from manifests.lifetime import say_missing
from manifests.records import FilesError, split_member_name
from manifests.tars import is_image


class KeptSetError(FilesError):
    """The files of a release do not hold what its manifest says."""


@dataclass(frozen=True, slots=True)
class KeptSample:
    """One kept sample: its KEY, content id, url, caption, and the bytes of its members by extension.

    sha256: of the first image as it was judged, also where the members hold it encoded anew.
    """

    key: str
    sha256: bytes
    url: str | None
    caption: str | None
    members: Mapping[str, bytes]


def open_kept(collection: Path, *, number: int | None = None) -> Iterator[KeptSample]:
    """Iterate the kept samples of a closed release, the newest by default, in shard order.

    Args:
        collection: the folder of a collection, or a copy of it with `current` and `releases/`.
        number: which release; None is the one that `current` names.

    Raises:
        RecordError: there is no closed release.
        KeptSetError: a tar and its manifest do not agree, an image is not the judged one, or the release is gone.
        TableError: a manifest is damaged.
    """
    home = Collection(collection)
    if number is None:
        try:
            number = int(home.current.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            raise RecordError(f"{home.current}: no closed release in this collection") from None
    release = home.release(number)
    if not (release / "summary.json").is_file():
        raise KeptSetError(say_missing(release / "summary.json"))
    if not (release / "shards").is_dir():
        raise KeptSetError(f"{release}: was made without tars; read its manifest and your own copy of the shards")
    for manifest in sorted((release / "manifest").glob("*.parquet")):
        yield from _open_shard(manifest, release / "shards" / f"{manifest.stem}.tar")


def _open_shard(manifest: Path, tar: Path) -> Iterator[KeptSample]:
    try:
        yield from _read_shard(manifest, tar)
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise KeptSetError(f"{tar}: not a readable tar archive ({type(error).__name__})") from None


def _read_shard(manifest: Path, tar: Path) -> Iterator[KeptSample]:
    table = schema.read(manifest)
    if not schema.is_manifest(table):
        raise KeptSetError(f"{manifest}: not a manifest of a release")
    rows, contents, anew = table.to_pylist(), contents_in_tar(table), schema.IN_TAR in table.column_names
    position = 0
    with tarfile.open(tar, mode="r:", encoding="utf-8", errors="strict") as archive:
        for key, group in groupby(archive, key=lambda info: split_member_name(info.name)[0]):
            row = rows[position] if position < len(rows) else None
            if row is None or row["key"] != key:
                raise KeptSetError(f"{tar}: its sample number {position + 1} is not the one its manifest names")
            members: dict[str, bytes] = {}
            for info in group:
                extension = split_member_name(info.name)[1]
                file = archive.extractfile(info) if info.isreg() else None
                if file is None or extension in members:
                    raise KeptSetError(
                        f"{tar}: sample number {position + 1} holds a member that is no file, or one member twice"
                    )
                members[extension] = file.read()
            images = [data for extension, data in sorted(members.items()) if is_image(extension, data)]
            digests = [hashlib.sha256(data).digest() for data in images]
            known = (row["images"], contents[position], row["sha256"])
            if not digests or (len(digests), digest_images(digests), known[2] if anew else digests[0]) != known:
                raise KeptSetError(f"{tar}: sample number {position + 1} does not hold the image that was judged")
            yield KeptSample(f"{row['shard']}/{key}", row["sha256"], row["url"], row["caption"], members)
            position += 1
    if position != len(rows):
        raise KeptSetError(f"{tar}: holds {position} samples, its manifest names {len(rows)}")
