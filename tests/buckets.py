"""Collections that live in a bucket: made on loopback, and what must hold of the bucket at every moment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from object_store import BUCKET, ObjectStore
from scrapes import Scrape, outputs, to_toml

PLACE = f"s3://{BUCKET}/c"
OWN = "bucket.json"


def machine(scrape: Scrape, name: str, store: ObjectStore | None, **settings: object) -> Scrape:
    """The same scrape on another machine: a folder and a configuration of its own; in no bucket without a store."""
    root = scrape.root / name
    root.mkdir()
    inputs = [{"shards": str(scrape.shards / "*.tar")}]
    lists = {"store": str(scrape.root / "list-store"), "key": str(scrape.root / "lists.key")}
    changed = {**scrape.settings, "input": inputs, "lists": lists, **settings}
    if store is not None:
        changed |= {"bucket": PLACE, "remote": store.settings()}
    made = Scrape(root, scrape.identity, changed)
    made.config.write_text(to_toml(changed))
    return made


def what_counts(scrape: Scrape) -> dict[str, str]:
    """What law 11 covers of a folder: all outputs but the note of the bucket."""
    return {name: digest for name, digest in outputs(scrape.collection, scrape.identity).items() if name != OWN}


def broken(store: ObjectStore) -> list[str]:
    """What `head`, and marks of shards that it does not name, name and the bucket does not hold whole."""
    there = {name.removeprefix("c/") for name in store.names("c/")}

    def read(name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(store.data(f"c/{name}"))
        return found

    lists = read("head")["lists"] if "head" in there else {}
    assert isinstance(lists, dict)
    named = {f"lists/{group}.{digest[:16]}" for group, digest in lists.items()}
    problems = [f"{name}: missing" for name in named - there]
    files = {file: about for name in named & there for file, about in read(name)["files"].items()}  # type: ignore[attr-defined]
    for mark in sorted(name for name in there if name.startswith("marks/")):
        if f"examined/{Path(mark).name}" not in files:
            files |= read(mark)["files"]  # type: ignore[arg-type]
    for name, (sha256, size, _) in files.items():
        key = name if name.startswith("releases/") else f"{name}.{sha256[:16]}"
        data = store.data(f"c/{key}") if key in there else b""
        if (hashlib.sha256(data).hexdigest(), len(data)) != (sha256, size):
            problems.append(f"{key}: not what is named")
    return problems
