"""A listed file is sealed whatever becomes of its decoder."""

from __future__ import annotations

import hashlib

import hostile_images as hostile
import pytest
from hostile_runs import examine, make_scrape, settle
from scrapes import Scrape, jpeg, write_list

ALGORITHMS = ("md5", "sha1", "sha256")
FAULTS = {"cut": "truncated", "hang": "wall_limit", "crash": "decoder_crash"}


def harmed(kind: str, number: int) -> bytes:
    if kind == "cut":
        return jpeg(number)[:-700]
    return hostile.marked_bytes(hostile.HANG if kind == "hang" else hostile.SEGV) + b"%d" % number


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """Each kind of harm: listed by each digest, and once not listed; and good images around them."""
    images = {"good-0": jpeg(100), "good-1": jpeg(101)}
    entries = []
    for kind in FAULTS:
        for number, algorithm in enumerate(ALGORITHMS):
            image = harmed(kind, number)
            images[f"{kind}-{algorithm}"] = image
            entries.append((algorithm, hashlib.new(algorithm, image).digest()))
        images[f"{kind}-unlisted"] = harmed(kind, len(ALGORITHMS))
    images["good-2"] = jpeg(102)
    scrape = make_scrape(tmp_path_factory.mktemp("digests"), images)
    write_list(scrape.root / "lists" / "known.csv", [*entries, ("pdq", hashlib.sha256(b"nothing").digest())])
    examine(scrape)
    settle(scrape)
    return scrape


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("kind", "fault"), FAULTS.items())
def test_a_listed_image_is_sealed_though_it_cannot_be_decoded(
    scrape: Scrape, kind: str, fault: str, algorithm: str
) -> None:
    (row,) = (row for row in scrape.sealed() if row["key"] == f"{kind}-{algorithm}")
    assert (row["action"], row["rule"], row["fault"]) == ("SEAL", "listed", fault)
    hits = row["hits"]
    assert isinstance(hits, list)
    assert [(hit["list"], hit["basis"], hit["algorithm"]) for hit in hits] == [("known", "listed-exact", algorithm)]


def test_nothing_else_is_sealed_and_the_others_are_decided_as_ever(scrape: Scrape) -> None:
    assert len(scrape.sealed()) == len(FAULTS) * len(ALGORITHMS)
    decided = {row["key"]: row for row in scrape.decisions()}
    for kind, fault in FAULTS.items():
        row = decided[f"{kind}-unlisted"]
        assert (row["action"], row["reason"]) == ("QUARANTINE", f"fault:{fault}")
        for algorithm in ALGORITHMS:
            row = decided[f"{kind}-{algorithm}"]
            assert row["withheld"]
            assert {name for name, value in row.items() if value is not None} == {
                "shard", "index", "key", "withheld"
            }  # fmt: skip
    assert [decided[f"good-{number}"]["action"] for number in range(3)] == ["KEEP"] * 3
