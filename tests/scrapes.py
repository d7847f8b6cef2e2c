"""Small scrapes for tests: drawn pictures, tars with and without damage, configurations, and the command itself."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from manifests import schema
from manifests.cases import new_identity, open_sealed
from pipeline.lists.imports import import_list
from pipeline.lists.manifest import About
from pipeline.lists.store import ListStore

ROOT = Path(__file__).resolve().parents[1]


def draw(seed: int, *, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A textured scene of drawn shapes, with features enough for a usable PDQ."""
    random = np.random.default_rng(seed)
    width, height = size
    coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(8, width // 2), random.integers(8, height // 2)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        (pen.rectangle if random.random() < 0.5 else pen.ellipse)([x, y, x + w, y + h], fill=colour)
    return picture


def encode(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def jpeg(seed: int, **options: object) -> bytes:
    return encode(draw(seed), "JPEG", **{"quality": 90, **options})


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar of (name, bytes); names may be anything."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_sidecar(tar: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write img2dataset's table beside a tar."""
    path = tar.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def write_plain_shards(folder: Path, shards: int, samples: int, *, seed: int = 0) -> None:
    """Write `shards` tars of `samples` good samples each, with captions and metadata."""
    for shard in range(shards):
        members = []
        for number in range(samples):
            key = f"{shard:03d}{number:05d}"
            members += [
                (f"{key}.jpg", jpeg(seed + shard * 100_000 + number)),
                (f"{key}.txt", f"drawing {number}".encode()),
                (f"{key}.json", json.dumps({"url": f"http://example.invalid/{key}.jpg"}).encode()),
            ]
        write_tar(folder / f"{shard:05d}.tar", members)


STORE = "list-store"
LISTS_KEY = "lists.key"


def write_list(
    path: Path, entries: Iterable[tuple[str, bytes]], *, purpose: str | None = None, **about: object
) -> Path:
    """Write a list as CSV, and import it as the next version of the list of that name.

    The store and its key lie beside the folder of the file. Purpose: csam, but ncii for a list named other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{algorithm},{value.hex()}" for algorithm, value in entries]
    path.write_text("\n".join(["algorithm,value", *rows]) + "\n")
    wanted = purpose or ("ncii" if path.stem == "other" else "csam")
    import_list(list_store(path.parent.parent), path.stem, [path], About(purpose=wanted, **about), effect="case")
    return path


def list_store(root: Path) -> ListStore:
    """The list store of a scrape, with a key."""
    key = root / LISTS_KEY
    if not key.exists():
        key.write_text(new_identity()[0])
        key.chmod(0o600)
    return ListStore(root / STORE, key)


def write_random_list(path: Path, *, seed: int = 1, count: int = 20) -> Path:
    """Write a list of random digests and codes that match nothing."""
    random = np.random.default_rng(seed)
    entries = [("md5", random.bytes(16)) for _ in range(count)] + [("pdq", random.bytes(32)) for _ in range(count)]
    return write_list(path, entries)


@dataclass(frozen=True, slots=True)
class Command:
    """What a run of the command left."""

    code: int
    out: str
    err: str


def shardscrub(*arguments: object, cwd: Path | None = None, timeout_s: float = 240) -> Command:
    """Run the command as a user does, in its own process."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Command(done.returncode, done.stdout, done.stderr)


@dataclass(slots=True)
class Scrape:
    """A folder with shards, lists, a key and a configuration; change `settings` before `write`."""

    root: Path
    identity: str = ""
    settings: dict[str, object] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, **settings: object) -> Scrape:
        root.mkdir(parents=True, exist_ok=True)
        identity, recipient = new_identity()
        write_random_list(root / "lists" / "known.csv")
        scrape = cls(
            root,
            identity,
            {
                "collection": "collection",
                "input": [{"shards": "shards/*.tar"}],
                "lists": {"store": STORE, "key": LISTS_KEY},
                "list": [{"id": "known"}],
                "policy": {"profile": "lists-only"},
                "sealed": {
                    "recipients": [recipient],
                    "case_owner_role": "case owner of the drawings",
                    "case_owner_contact": "drawings@example.invalid",
                },
                "release": {"max_fault_share_shard": 1.0, "max_fault_share_run": 1.0},
                "run": {"workers": 1},  # the start of a worker takes longer than the few pictures of most tests
                **settings,
            },
        )
        scrape.write()
        return scrape

    @property
    def config(self) -> Path:
        return self.root / "scrub.toml"

    @property
    def collection(self) -> Path:
        return self.root / "collection"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    def write(self) -> None:
        self.config.write_text(to_toml(self.settings))

    def run(self, *arguments: object) -> Command:
        return shardscrub("run", self.config, *arguments)

    def decisions(self, number: int = 1) -> list[dict[str, object]]:
        folder = self.collection / "settled" / f"{number:04d}" / "decisions"
        return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]

    def sealed(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for path in sorted((self.collection / "sealed").glob("*.age")):
            rows += open_sealed(path.read_bytes(), identity=self.identity, source=path.name).to_pylist()
        return rows


def to_toml(settings: Mapping[str, object]) -> str:
    """Write a configuration: plain values, tables and lists of tables, one level deep."""
    plain = [f"{key} = {_value(value)}" for key, value in settings.items() if not _is_table(value)]
    blocks = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            blocks.append("\n".join([f"[{key}]", *(f"{k} = {_value(v)}" for k, v in value.items())]))
        elif _is_table(value):
            blocks += [
                "\n".join([f"[[{key}]]", *(f"{k} = {_value(v)}" for k, v in item.items())]) for item in value
            ]
    return "\n\n".join(["\n".join(plain), *blocks]) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _value(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


def outputs(collection: Path, identity: str) -> dict[str, str]:
    """Digest of everything that law 11 covers: all files but the journal and what the secret keys; sealed files
    after opening."""
    found = {}
    for path in sorted(collection.rglob("*")):
        name = path.relative_to(collection).as_posix()
        keyed = name == "secret" or path.suffix == ".keyed"
        if path.is_file() and not name.startswith("journal/") and not keyed:
            data = path.read_bytes()
            if path.suffix == ".age":
                data = schema.encode(open_sealed(data, identity=identity, source=name))
            found[name] = hashlib.sha256(data).hexdigest()
    return found
