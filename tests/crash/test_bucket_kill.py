"""Kill runs that put into a bucket at any request, then run again: as if nothing had happened, there and here."""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from buckets import broken, machine, what_counts
from crash_runs import copy_folder, make_scrape, processes_of, start_run, wait_until, write_known
from object_store import ObjectStore, serve
from scrapes import Scrape, jpeg

from manifests.verify import verify

pytestmark = pytest.mark.crash

_WRITES = ("PUT", "POST", "DELETE")


def names(store: ObjectStore) -> set[str]:
    """The objects there, without the digests in their names."""
    return set(map(plain, store.names()))


def plain(name: str) -> str:
    return re.sub(r"\.[0-9a-f]{16}$", "", name)


def run(scrape: Scrape, store: ObjectStore, *, kill_at: int = -1, carried_out: bool = True) -> tuple[int, int]:
    """Run, and kill it at its n-th writing request, carried out or not; return how many it made, and its exit code.

    Before each of them all that the bucket names must be there, and whole.
    """
    seen, problems = 0, []
    with start_run(scrape) as process:

        def watch(method: str, path: str) -> None:
            nonlocal seen
            if method in _WRITES:
                problems.extend(broken(store))
                seen += 1
                if seen == kill_at + 1:
                    os.killpg(process.pid, signal.SIGKILL)
                    if not carried_out:
                        raise ConnectionAbortedError

        store.on_request = watch
        process.wait()
        store.on_request = None
    wait_until(lambda: not processes_of(scrape), "processes outlived the run")
    assert problems == []
    return seen, process.returncode


@dataclass(frozen=True, slots=True)
class State:
    """What an undisturbed run left: the folder, the objects, what counts, and how many writing requests it made."""

    folder: Path
    objects: dict[str, bytes]
    outputs: dict[str, str]
    requests: int

    @classmethod
    def of(cls, scrape: Scrape, store: ObjectStore, version: int) -> State:
        """Settle with a version of the list, from where the scrape is."""
        scrape.settings["list"] = [{"id": "known", "version": version}]
        scrape.write()
        requests, code = run(scrape, store)
        assert code == 0, (scrape.root / "text").read_text()
        folder = scrape.root / f"state-{version}"
        shutil.copytree(scrape.collection, folder)
        return cls(folder, {name: store.data(name) for name in store.names()}, what_counts(scrape), requests)

    def restore(self, scrape: Scrape, store: ObjectStore) -> None:
        """Let folder and bucket be as they were."""
        for name in store.names():
            store.drop(name)
        for name, data in self.objects.items():
            store.fill(name, data)
        copy_folder(self.folder if self.objects else None, scrape.collection)


def test_runs_killed_at_random_requests_end_as_an_undisturbed_one(tmp_path, crash_rounds: int) -> None:
    """Of a first run, and of a settle that withholds what was kept before."""
    made = make_scrape(tmp_path, shards=3, samples=5)
    images = [jpeg(1000 * shard + number) for shard in range(3) for number in (1, 3)]
    write_known(made, images)
    with serve() as store:
        scrape = machine(made, "machine", store)
        for name in ("cwd", "tmp"):
            (scrape.root / name).mkdir()
        states = [State(tmp_path, {}, {}, 0), *(State.of(scrape, store, version) for version in (2, 3))]
        for number in range(crash_rounds):
            random, after = Random(number), 1 + number % 2
            states[after - 1].restore(scrape, store)
            scrape.settings["list"] = [{"id": "known", "version": after + 1}]
            scrape.write()
            hit = []
            for _ in range(random.randint(1, 2)):
                hit.append(random.randrange(states[after].requests))
                run(scrape, store, kill_at=hit[-1], carried_out=random.random() < 0.5)
            if random.random() < 0.3:  # the machine is gone: as the error says, the claim is removed
                shutil.rmtree(scrape.collection, ignore_errors=True)
                if "c/claim" in store.names():
                    store.drop("c/claim")
            _, code = run(scrape, store)
            told = f"round {number}, killed at {hit}"
            assert code == 0, f"{told}: {(scrape.root / 'text').read_text()}"
            assert what_counts(scrape) == states[after].outputs, told
            assert broken(store) == []
            assert names(store) == set(map(plain, states[after].objects)), told
            assert verify(scrape.collection).problems == []
