"""The same twelve samples in every layout that an input may have."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from scrapes import jpeg, write_sidecar, write_tar

SHARD = "00007"
SEALED, REMOVED, CUT, SAME = 3, 5, 7, 9


@dataclass(frozen=True, slots=True)
class Drawing:
    """One sample as a crawl would have it."""

    key: str
    image: bytes
    url: str
    caption: str

    @property
    def about(self) -> dict[str, str]:
        return {"key": self.key, "url": self.url, "caption": self.caption, "uid": f"{int(self.key) + 1:032x}"}

    @property
    def members(self) -> list[tuple[str, bytes]]:
        own = {"jpg": self.image, "txt": self.caption.encode(), "json": json.dumps(self.about).encode()}
        return [(f"{self.key}.{extension}", data) for extension, data in own.items()]


def drawings() -> list[Drawing]:
    """Twelve samples; one is cut short, and one has the bytes of another."""
    found = []
    for number in range(12):
        image = jpeg(number if number != SAME else 0)
        image = image[:-300] if number == CUT else image
        key = f"{7:05d}{number:04d}"
        found.append(Drawing(key, image, f"http://example.invalid/{key}.jpg", f"drawing {number}: é"))
    return found


def as_tar(folder: Path) -> dict[str, object]:
    tar = write_tar(folder / f"{SHARD}.tar", [member for one in drawings() for member in one.members])
    write_sidecar(tar, [{**one.about, "status": "success"} for one in drawings()])
    return {"shards": str(tar)}


def as_parquet(folder: Path) -> dict[str, object]:
    """As img2dataset writes it, with a row whose download failed, in row groups of five."""
    rows = [{**one.about, "jpg": one.image, "txt": one.caption, "status": "success"} for one in drawings()]
    rows.insert(4, {**rows[4], "key": "000079999", "jpg": None, "txt": None, "status": "failed_to_download"})
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{SHARD}.parquet", row_group_size=5)
    return {"shards": str(folder / "*.parquet")}


def as_hugging_face(folder: Path) -> dict[str, object]:
    """With the image in a struct, and columns of other names."""
    rows = [
        {
            "picture": {"bytes": one.image, "path": f"{one.key}.jpg"},
            "alt": one.caption,
            "href": one.url,
            "id": one.key,
            "mask": b"\xff\xd8\xff",
            "label": [1, 2],
        }
        for one in drawings()
    ]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{SHARD}.parquet")
    columns = {"image": "picture", "caption": "alt", "url": "href", "key": "id"}
    named = {f"columns.{part}": name for part, name in columns.items()}
    return {"shards": str(folder / f"{SHARD}.parquet"), **named}


def as_files(folder: Path) -> dict[str, object]:
    """As img2dataset writes it."""
    as_folder(folder)
    write_sidecar(folder / f"{SHARD}.tar", [{**one.about, "status": "success"} for one in drawings()])
    return {"shards": str(folder / "0000?")}


def as_folder(folder: Path) -> dict[str, object]:
    (folder / SHARD).mkdir(parents=True)
    for name, data in (member for one in drawings() for member in one.members):
        (folder / SHARD / name).write_bytes(data)
    return {"shards": str(folder / SHARD)}


# By kind and variant; each writes the samples below a folder and returns the [[input]] that leads there.
LAYOUTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "tar": as_tar,
    "parquet": as_parquet,
    "parquet hugging face": as_hugging_face,
    "files": as_files,
    "folder": as_folder,
}
