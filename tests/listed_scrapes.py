"""Listed pictures: codes at a chosen distance, lists through the command, spoiled lists, a search for entries."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyrage
from in_process import call
from PIL import Image
from scrapes import Command, Scrape, list_store

from classifiers.blocklists.canaries import Canary
from classifiers.blocklists.stored import encode_list
from classifiers.hashes.registry import find_kind
from manifests.records import canonical_json
from pipeline.lists.store import ListStore

KINDS = ("pdq:fullres", "pdq:turned")  # those of a configuration that names none
ONE_CATEGORY = '[effects]\n"A" = "case"\n"B" = "remove"\n"0" = "ignore"\n'


def codes_of(data: bytes, kind: str = "pdq:fullres") -> np.ndarray:
    """The codes of a picture, uint8 variants x width: the first is the picture as it is."""
    code = find_kind(kind).encode(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert code is not None
    assert code.usable
    return np.asarray(code.codes)


def distances(data: bytes, entry: bytes, kind: str = "pdq:fullres") -> list[int]:
    """How far each variant of a picture's code is from an entry."""
    difference = codes_of(data, kind) ^ np.frombuffer(entry, np.uint8)
    return [int(count) for count in np.bitwise_count(difference).sum(axis=1)]


def entry_at(data: bytes, distance: int, kind: str = "pdq:fullres") -> bytes:
    """An entry exactly that far from the nearest code of a picture, over both kinds of PDQ."""
    bits = np.unpackbits(codes_of(data, kind)[0])
    bits[(np.arange(distance) * 7 + 3) % len(bits)] ^= 1
    entry = np.packbits(bits).tobytes()
    for each in KINDS if kind in KINDS else (kind,):
        assert min(distances(data, entry, each)) == distance
    return entry


def write_rows(path: Path, rows: Iterable[tuple[str, bytes, str]]) -> Path:
    """Write algorithm, value, category as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{algorithm},{value.hex()},{category}" for algorithm, value, category in rows]
    path.write_text("\n".join(["algorithm,value,category", *lines]) + "\n")
    return path


def store_options(scrape: Scrape, *, key: bool = True) -> tuple[object, ...]:
    store = list_store(scrape.root)
    return ("--store", store.root, *(("--key", store.key) if key else ()))


def import_rows(
    scrape: Scrape, list_id: str, rows: Iterable[tuple[str, bytes, str]], purpose: str, *options: object
) -> Command:
    """Import rows by the command, with categories A (case), B (remove) and 0 (ignore)."""
    path = write_rows(scrape.root / "given" / f"{list_id}.csv", rows)
    categories = scrape.root / "given" / "map.toml"
    categories.write_text(ONE_CATEGORY)
    wanted = ("--id", list_id, "--purpose", purpose, "--categories", categories)
    done = call("lists", "import", path, *store_options(scrape), *wanted, *options)
    assert done.code == 0, done.err
    return done


def write_policy(scrape: Scrape, *, required: str, rules: Iterable[tuple[str, str, str]]) -> None:
    """Give a scrape a policy of its own: rules of id, condition, action."""
    lines = ['name = "own"', f'required = ["{required}"]']
    for name, when, action in rules:
        lines.append(f'[[rule]]\nid = "{name}"\nwhen = "{when}"\naction = "{action}"')
    (scrape.root / "policy.toml").write_text("\n".join(lines) + "\n")
    scrape.settings["policy"] = {"file": "policy.toml"}
    scrape.write()


def actions(scrape: Scrape, number: int = 1) -> dict[str, object]:
    """What became of every sample: its action, SEAL where it was withheld."""
    return {str(row["key"]): "SEAL" if row["withheld"] else row["action"] for row in scrape.decisions(number)}


def spoil_canary(store: ListStore, list_id: str, algorithm: str, distance: int) -> dict[Path, bytes]:
    """Change one bit of a canary of the newest version, and its digests with it; returns the files before that."""
    manifest, stored = store.read(list_id)

    def spoiled(one: Canary) -> Canary:
        if (one.algorithm, one.distance) != (algorithm, distance):
            return one
        return replace(one, entry=one.entry[:-1] + bytes([one.entry[-1] ^ 1]))

    canaries = tuple(spoiled(one) for one in stored.canaries)
    assert sum(a.entry != b.entry for a, b in zip(canaries, stored.canaries, strict=True)) == 1
    assert store.key is not None
    key = pyrage.x25519.Identity.from_str(store.key.read_text())
    data = pyrage.encrypt(encode_list(replace(stored, canaries=canaries)), [key.to_public()])
    folder = store.folder(list_id, manifest.version)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (folder / "entries.age").write_bytes(data)
    change_manifest(store, list_id, file_sha256=hashlib.sha256(data).hexdigest())
    return before


def change_manifest(store: ListStore, list_id: str, **values: object) -> None:
    """Write other values into the manifest of the newest version, as somebody who knows its form would."""
    path = store.folder(list_id, store.versions(list_id)[-1]) / "manifest.json"
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | values) + b"\n")


def spellings(value: bytes) -> set[bytes]:
    """A value as bytes and as text; of text the part that stays the same whatever is joined to it."""
    hexed = value.hex().encode()
    texts = {base64.b64encode(value), base64.urlsafe_b64encode(value), base64.b32encode(value)}
    texts |= {text.rstrip(b"=") for text in texts} | {base64.b32encode(value).lower().rstrip(b"=")}
    part = max(16, len(hexed) // 2)  # half of a value is as bad
    return {value, hexed[:part], hexed[:part].upper(), hexed[-part:], hexed[-part:].upper(), *texts}


def plain_bytes(path: Path) -> Iterator[bytes]:
    """A file as it lies; of a table, its columns without compression too."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        table, sink = pq.read_table(path), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        yield sink.getvalue().to_pybytes()


def places_of(needles: frozenset[bytes], *folders: Path) -> set[tuple[str, bytes]]:
    """Which needles lie in which files."""
    return {
        (path.name, needle)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
        for data in plain_bytes(path)
        for needle in needles
        if needle in data
    }
