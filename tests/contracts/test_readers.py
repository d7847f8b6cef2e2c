"""What every reader keeps, whatever layout it reads. A new one in the registry is found here."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from in_process import call
from layouts import CUT, LAYOUTS, REMOVED, SAME, SEALED, SHARD, as_tar, drawings
from scrapes import Scrape, to_toml, write_list

from classifiers.hashes.digests import take_digests
from manifests.cases import open_sealed
from pipeline.ingest.readers import READERS

LISTED = {"csam": SEALED, "other": REMOVED}


@dataclass(frozen=True)
class Outcome:
    """What a run makes of the samples, in words that no layout changes."""

    decisions: dict[str, tuple[object, ...]]
    manifest: dict[str, tuple[object, ...]]
    uids: str
    images: dict[str, bytes]
    sealed: set[bytes]


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    root = tmp_path_factory.mktemp("readers")
    for name, number in LISTED.items():
        entries = [("md5", take_digests(drawings()[number].image).md5), ("pdq", bytes(range(32)))]
        write_list(root / "lists" / f"{name}.csv", entries)
    return Scrape.make(root, list=[{"id": name} for name in LISTED])


def run(scrape: Scrape, name: str, **item: object) -> Path:
    """Run over one input into a collection of its own; returns that."""
    collection = scrape.root / f"collection {name}"
    config = scrape.root / f"{name}.toml"
    config.write_text(to_toml({**scrape.settings, "collection": str(collection), "input": [item]}))
    done = call("run", config, "--workers", 1)
    assert done.code == 0, done.err
    done = call("verify", collection)
    assert done.code == 0, done.err
    return collection


def outcome(scrape: Scrape, collection: Path) -> Outcome:
    found = Scrape(collection.parent, scrape.identity)
    release = collection / "releases/0001"
    decisions = pq.read_table(collection / f"settled/0001/decisions/{SHARD}.parquet").to_pylist()
    manifest = pq.read_table(release / f"manifest/{SHARD}.parquet").to_pylist()
    with tarfile.open(release / f"shards/{SHARD}.tar") as tar:
        images = {one.name: tar.extractfile(one).read() for one in tar if one.name.endswith(".jpg")}
    opened = [row for row in sealed_rows(found, collection) if row["action"] == "SEAL"]
    return Outcome(
        {f"{row['shard']}/{row['key']}": (row["action"], row["reason"], row["withheld"]) for row in decisions},
        {row["key"]: tuple(row[n] for n in ("sha256", "uid", "images", "url", "caption")) for row in manifest},
        hashlib.sha256((release / "uids.npy").read_bytes()).hexdigest(),
        images,
        {row["sha256"] for row in opened},
    )


def sealed_rows(scrape: Scrape, collection: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for path in sorted((collection / "sealed").glob("*.age")):
        rows += open_sealed(path.read_bytes(), identity=scrape.identity, source=path.name).to_pylist()
    return rows


@pytest.fixture(scope="module")
def expected(scrape):
    return outcome(scrape, run(scrape, "expected", **as_tar(scrape.root / "expected")))


def test_every_reader_has_a_layout_here():
    assert {name.partition(" ")[0] for name in LAYOUTS} == {"tar", *READERS}


def test_the_twelve_samples_meet_every_fate(expected):
    fates = {key[-2:]: fate for key, fate in expected.decisions.items()}
    assert len(fates) == 12
    assert fates[f"{SEALED:02d}"] == (None, None, True)
    assert fates[f"{REMOVED:02d}"] == ("REMOVE", "rule:listed-other", False)
    assert fates[f"{CUT:02d}"][:2] == ("QUARANTINE", "fault:truncated")
    assert fates[f"{SAME:02d}"] == fates["00"] == ("KEEP", None, False)
    assert len(expected.manifest) == 9
    assert expected.sealed == {hashlib.sha256(drawings()[SEALED].image).digest()}


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "tar"])
def test_every_layout_has_the_decisions_digests_uids_and_keys_of_the_tar(scrape, expected, name):
    collection = run(scrape, name, **LAYOUTS[name](scrape.root / name))
    assert outcome(scrape, collection) == expected
    assert not list((collection / "journal/spool").iterdir())
