"""The table of failure points: a run that ends before any of its changes of the disk goes on as if it had not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crash_points import Stopper, stopper
from crash_runs import copy_folder, make_scrape, problems, write_known
from scrapes import Scrape, jpeg, list_store, outputs

pytestmark = pytest.mark.crash


@dataclass(frozen=True, slots=True)
class Tiny:
    """Two shards of four samples, the collection of a first run beside, and the warm process."""

    scrape: Scrape
    first: Path
    stopper: Stopper


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    root = tmp_path_factory.mktemp("points")
    scrape = make_scrape(root / "scrape", shards=2, samples=4)
    with stopper(root / "notes") as stops:
        done = stops.run("run", scrape.config, "--workers", 1)
        assert done.code == 0, done.text
        copy_folder(scrape.collection, root / "first")
        yield Tiny(scrape, root / "first", stops)


def points(count: int, crash_rounds: int) -> range:
    """All points for 30 rounds; for fewer, fewer of them, evenly spread, the last among them."""
    return range(count, 0, -max(1, 30 // crash_rounds))


def check_all(tiny: Tiny, start: Path | None, crash_rounds: int, *, without: str = "") -> None:
    """Hold a run that is killed at each point, and run again, against one that is not killed."""
    scrape, command = tiny.scrape, ("run", tiny.scrape.config, "--workers", 1)
    copy_folder(start, scrape.collection)
    undisturbed = tiny.stopper.run(*command, without=without)
    assert undisturbed.code == 0, undisturbed.text
    truth = outputs(scrape.collection, scrape.identity)
    assert problems(scrape, truth) == []
    wrong = {}
    for point in points(undisturbed.changes, crash_rounds):
        copy_folder(start, scrape.collection)
        assert tiny.stopper.run(*command, at=point, without=without).code == -9
        again = tiny.stopper.run(*command, without=without)
        wrong[point] = problems(scrape, truth) + ([again.text] if again.code else [])
    assert not any(wrong.values()), {point: texts for point, texts in wrong.items() if texts}


@pytest.mark.parametrize("without", ["", "tmpfile"])
def test_a_first_run_goes_on_from_any_point(tiny: Tiny, crash_rounds: int, without: str) -> None:
    check_all(tiny, None, crash_rounds, without=without)


def test_a_settle_that_withholds_more_goes_on_from_any_point(tiny: Tiny, crash_rounds: int) -> None:
    write_known(tiny.scrape, [jpeg(1), jpeg(1001), jpeg(3), jpeg(1000)])
    try:
        check_all(tiny, tiny.first, crash_rounds)
    finally:
        store = list_store(tiny.scrape.root)
        store.remove("known", store.versions("known")[-1])  # the version from before is the newest again


def test_a_retry_that_is_given_up_at_any_point_leaves_nothing_behind(tiny: Tiny, crash_rounds: int) -> None:
    scrape = tiny.scrape
    command = ("retry", scrape.collection, "--reasons", "truncated", "--workers", 1)
    copy_folder(tiny.first, scrape.collection)
    decided = scrape.decisions()
    undisturbed = tiny.stopper.run(*command)
    assert undisturbed.code == 0, undisturbed.text
    for point in points(undisturbed.changes, crash_rounds):
        copy_folder(tiny.first, scrape.collection)
        assert tiny.stopper.run(*command, at=point).code == -9
        again = tiny.stopper.run("run", scrape.config, "--workers", 1)
        assert again.code == 0, again.text
        assert problems(scrape, outputs(scrape.collection, scrape.identity)) == [], point
        assert scrape.decisions(len(list((scrape.collection / "settled").iterdir()))) == decided


@pytest.mark.parametrize(
    ("mutant", "stop"),
    [
        ("commit_first", {"at": 1, "after": "examined/00000.json"}),
        ("commit_in_halves", {"at": 2, "after": "examined/00000.keyed", "only": ["fsync"]}),
    ],
)
def test_a_run_that_does_not_write_its_commit_last_and_whole_would_be_found(
    tiny: Tiny, mutant: str, stop: dict[str, Any]
) -> None:
    scrape, command = tiny.scrape, ("run", tiny.scrape.config, "--workers", 1)
    truth = outputs(tiny.first, scrape.identity)
    copy_folder(None, scrape.collection)
    assert tiny.stopper.run(*command, mutant=mutant).code == 0
    assert problems(scrape, truth) == [], "unkilled, the mutant does no harm"
    copy_folder(None, scrape.collection)
    assert tiny.stopper.run(*command, mutant=mutant, **stop).code == -9
    again = tiny.stopper.run(*command, mutant=mutant)
    assert again.code != 0
    assert problems(scrape, truth) != []
