"""Who has the public input, two releases and what the console said cannot tell which of the missing is a case.

Worlds of one input: which missing samples a csam list holds, and which another list does, differs between them. As
all that is public is the same in every world, no script can tell one world from another, whatever it computes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from in_process import call
from scrapes import Scrape, jpeg, write_list, write_sidecar, write_tar

from manifests.commits import Close
from pipeline import status

SHARDS, SAMPLES = 3, 12
COUNT = SHARDS * SAMPLES
MISSING = np.random.default_rng(5).permutation(COUNT)
FIRST, SECOND = MISSING[:14], MISSING[14:20]  # missing from the first release on, and from the second on
CUT = (FIRST[1], FIRST[8], FIRST[12])  # anybody who has the input knows that these cannot be decoded


def image_of(number: int) -> bytes:
    data = jpeg(int(number), quality=60)
    return data[:-300] if number in CUT else data


def digests_of(numbers: np.ndarray) -> list[tuple[str, bytes]]:
    return [("md5", hashlib.md5(image_of(number)).digest()) for number in sorted(numbers)]


@dataclass(frozen=True, slots=True)
class World:
    """What one world shows: lines of the console, and every public file by name, with mode and size."""

    scrape: Scrape
    console: list[str]
    files: dict[str, tuple[int, int]]


def masked(text: str, home: Path) -> list[str]:
    """Lines of the console without place, times, and the digests of plans, which are new for any new list."""
    text = text.replace(str(home), "PLACE")
    text = re.sub(r"[\d.]+/s, \d+ s left|pace +[\d.]+ images/s", "RATE", text)
    return re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", text).splitlines()


def make_world(root: Path, shards: Path, cases: np.ndarray) -> World:
    """`cases` are the numbers that the csam list holds; the other list holds the rest of what is missing."""
    scrape = Scrape.make(root, list=[{"id": name} for name in ("csam", "other")])
    shutil.copytree(shards, scrape.shards)
    console = []
    for missing in (FIRST, np.concatenate([FIRST, SECOND])):
        listed = np.isin(missing, cases)
        far = [("pdq", bytes(range(32))), ("md5", b"\1" * 16)]
        write_list(root / "lists/csam.csv", far + digests_of(missing[listed]))
        write_list(root / "lists/other.csv", far + digests_of(missing[~listed]))
        for arguments in (("run", scrape.config, "--workers", 1), ("status", scrape.collection)):
            done = call(*arguments)
            assert done.code == 0, done.err
            console += masked(done.out + done.err, scrape.collection)
    public = [path for path in (scrape.collection / "releases").rglob("*") if path.is_file()]
    stats = {path.relative_to(scrape.collection).as_posix(): path.stat() for path in public}
    files = {name: (stat.st_mode, stat.st_size) for name, stat in sorted(stats.items())}
    sealed = {row["key"] for row in scrape.sealed()}
    assert sealed == {key_of(number) for number in cases}  # the world is the one that was meant
    return World(scrape, console, files)


def key_of(number: int) -> str:
    return f"{int(number) // SAMPLES:05d}{int(number) % SAMPLES:04d}"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> list[World]:
    shards = tmp_path_factory.mktemp("input")
    for shard in range(SHARDS):
        members, rows = [], []
        for number in range(shard * SAMPLES, (shard + 1) * SAMPLES):
            key, about = (
                key_of(number),
                {"url": f"http://example.invalid/{number}.jpg", "caption": f"drawing {number}"},
            )
            members += [(f"{key}.jpg", image_of(number)), (f"{key}.json", json.dumps(about).encode())]
            rows.append({"key": key, "status": "success", **about})
        write_sidecar(write_tar(shards / f"{shard:05d}.tar", members), rows)
    few, others = np.concatenate([FIRST[:3], SECOND[:2]]), np.concatenate([FIRST[7:10], SECOND[3:5]])
    cases = {"none": FIRST[:0], "few": few, "others": others, "all": np.concatenate([FIRST, SECOND])}
    root = tmp_path_factory.mktemp("worlds")
    return [make_world(root / name, shards, numbers) for name, numbers in cases.items()]


def content_of(world: World, name: str) -> object:
    """A public file, without the digest of the plan that made it."""
    path = world.scrape.collection / name
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        stamp = json.loads(table.schema.metadata[b"shardscrub"])
        assert re.fullmatch(r"[0-9a-f]{64}", stamp.pop("plan"))
        return stamp, str(table.schema.remove_metadata()), table.to_pylist()
    if path.suffix == ".json":
        record = json.loads(path.read_bytes())
        assert re.fullmatch(r"[0-9a-f]{64}", record.pop("decide_plan"))
        return record
    if path.suffix == ".html":  # the digests of the plan, and of the files that carry it
        return re.sub(rb"[0-9a-f]{64}", b"digest", path.read_bytes())
    return path.read_bytes()


def test_both_releases_are_there_and_lack_what_they_should(worlds):
    for world in worlds:
        for number, missing in ((1, FIRST), (2, np.concatenate([FIRST, SECOND]))):
            kept = {
                row["key"]
                for path in (world.scrape.collection / f"releases/{number:04d}/manifest").glob("*.parquet")
                for row in pq.read_table(path).to_pylist()
            }
            assert kept == {key_of(one) for one in range(COUNT) if one not in missing}


def test_every_public_file_is_the_same_in_every_world(worlds):
    first, *others = worlds
    assert {name.split("/")[2] for name in first.files} >= {"manifest", "shards", "uids.npy", "summary.json"}
    for other in others:
        assert other.files == first.files
        for name in first.files:
            assert content_of(other, name) == content_of(first, name), name


def test_the_console_says_the_same_in_every_world(worlds):
    assert any(line.startswith("not kept") for line in worlds[0].console)
    assert [world.console for world in worlds[1:]] == [worlds[0].console] * 3


def rank_by(world: World, score: Callable[[str, World], float]) -> list[str]:
    """What an attacker does: all missing samples, by anything that can be computed from what is public."""
    return sorted((key_of(number) for number in MISSING[:20]), key=lambda key: (score(key, world), key))


def public_of(key: str, world: World) -> float:
    """A stand-in for any such score: it moves with every public byte."""
    text = "".join(map(str, [world.console, sorted(world.files.items()), key]))
    digest = hashlib.sha256(text.encode())
    for name in world.files:
        digest.update(str(content_of(world, name)).encode())
    return int.from_bytes(digest.digest()[:6], "big") / 2**48


def test_an_attacker_finds_as_many_cases_in_the_world_where_there_are_none(worlds):
    ranks = [rank_by(world, public_of) for world in worlds]
    assert ranks[1:] == [ranks[0]] * 3


def test_a_count_of_cases_on_the_console_would_be_found(worlds):
    """The test above does find it: lines of a mutant that counts what is withheld differ from world to world."""
    said = set()
    for world in worlds:
        close = Close.read(world.scrape.collection / "settled/0002/close.json")
        lines = [*status.totals(close), f"sealed {close.counts.withheld:>12}"]
        said.add("\n".join([*world.console, *lines]))
    assert len(said) == 3  # few and others hold equally many, and are told apart by nothing


def test_sealed_files_have_the_same_names_and_about_the_same_sizes(worlds):
    """Presence and size of what is sealed say nothing, as far as the padding goes."""
    names = [sorted(path.name for path in world.scrape.collection.glob("sealed/*")) for world in worlds]
    assert names[1:] == [names[0]] * 3
