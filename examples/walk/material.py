"""Draws what the walk-through in docs/operating.md scrubs: three shards of drawings, and two deliveries of a list.

Run as `python examples/walk/material.py FOLDER`. The list names drawings, and random digests.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))

from draw import Drawing, encode, paint

SEED, PER_SHARD = 11, 8
LISTED = {"2026-11-01.csv": [3], "2026-12-01.csv": [3, 9]}  # indexes of drawings


def main(out: Path) -> None:
    """Write the material below `out`, which must not be there yet."""
    (out / "shards").mkdir(parents=True)
    for name in ("inbox/hotline", "later"):
        (out / name).mkdir(parents=True)
    md5s = {}
    for shard in range(3):
        folder = out / ("shards" if shard < 2 else "later")
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for index in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
                picture, caption = paint(Drawing(index, "none", marked=False, format="jpeg"), SEED)
                data = encode(picture, "jpeg")
                md5s[index] = hashlib.md5(data).hexdigest()
                about = {"url": f"https://example.invalid/{index}.jpg", "caption": caption}
                add(archive, f"{index:05d}.jpg", data)
                add(archive, f"{index:05d}.json", json.dumps(about).encode())
    for name, indexes in LISTED.items():
        others = [hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(50)]
        entries = [f"md5,{md5s[index]}" for index in indexes] + [f"pdq,{other}" for other in others]
        folder = out / ("inbox/hotline" if name == min(LISTED) else "later")
        (folder / name).write_text("\n".join(["algorithm,value", *entries, ""]))


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
