"""The settle of a whole collection: match, find out what decisions lead to elsewhere, decide every shard, close.

Owns the order, resuming, and the bounds that refuse a release. Leaves one shard to `settle.py`.

- Shards are judged in rounds until nothing new follows from anything: a copy of a copy, a URL of a copy.
- What was found out is written down before anything is withheld by it, so that a settle that goes on after a kill
  decides as it would have.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from classifiers.blocklists.match import CodeSearch
from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.commits import Close, ExamineCommit
from manifests.keyed import make_secret, read_keyed, read_secret
from manifests.leaks import find_leaks
from manifests.records import canonical_json
from pipeline.around import AroundSearch, exact_rows, join_seeds, take_seeds, without_cancelled
from pipeline.case_owner import write_notice
from pipeline.config import Config
from pipeline.errors import ExitCode, InputError, RunError
from pipeline.executors.protocol import Outcome, Task, WorkerOptions
from pipeline.hits import encode_hits
from pipeline.leftovers import clear_leftovers
from pipeline.release import begin_settle, close_settle, record_floods, recorded_floods
from pipeline.reviews import reviews_digest
from pipeline.runs import lock, run_tasks
from pipeline.settle import fault_share_problems, load_features, read_commit
from pipeline.settle_matches import match_collection
from pipeline.setup import Setup, settle_search
from pipeline.spread import (
    Entries,
    Spread,
    decode_entries,
    has_spread,
    keyed_entries,
    merge,
    read_around,
    remove_spread,
    reopen_spread,
    write_around,
    write_spread,
)

_NO_ROWS = np.zeros(0, np.int64)


def settle_all(setup: Setup, options: WorkerOptions, *, workers: int) -> tuple[Close, bool]:
    """Settle every examined shard; returns the close and whether it was there already.

    Raises:
        InputError: a shard of the input is not examined yet.
        RunError: a shard could not be settled, or a canary was missed; nothing was released.
    """
    collection = setup.collection
    collection.make()
    make_secret(collection)
    read_secret(collection)
    with lock(collection, alone=True):
        if reviews_digest(collection) != setup.plan.decide.reviews:
            raise RunError("a review was recorded since this run began; run it again")
        shards = collection.committed_shards()
        unexamined = sorted({source.name for source in setup.sources} - set(shards))
        if unexamined:
            raise InputError(
                f"{len(unexamined)} of {len(setup.sources)} shards are not examined yet (the first is "
                f"{unexamined[0]}); run `shardscrub examine` for them, then settle"
            )
        commits = [read_commit(collection, shard, setup.plan) for shard in shards]
        clear_leftovers(collection, commits)
        closed = _closed_already(collection, setup, commits)
        if closed is not None:
            write_notice(collection, setup.config, setup.decider.policy, closed.number)
            return closed, True
        number = collection.next_settle()
        floods = recorded_floods(collection, setup.plan, number)
        search = settle_search(setup, threads=workers)
        matched = match_collection(collection, commits, setup.decider, search, flooded=floods)
        refused = _refusals(setup.config, commits)
        begin_settle(collection, setup.plan, number, release=not refused)
        record_floods(collection, number, matched.flooded)
        hits = {shard: encode_hits(table) for shard, table in matched.hits.items()}
        tasks = [Task("settle", shard, number, release=not refused, hits=hits.get(shard, "")) for shard in shards]
        # Features made since an interrupted attempt (a new shard, a retry) may lead to more for those it decided.
        made = {item.shard: sum(one.why != "withhold" for one in item.rewrites) for item in commits}
        if not has_spread(collection, number) or read_around(collection, number).made != made:
            known = reopen_spread(collection, number)
            for path in (collection.settled(number) / "decisions").glob("*.json"):
                path.unlink()
            found = _look_around(setup, commits, matched.hits, search, number=number)
            write_around(collection, number, read_around(collection, number).joined(found, made))
            _find_spread(setup, options, tasks, known, workers=workers)
        _raise_errors(run_tasks(setup, options, tasks, workers=workers, what="settle"))
        leaks = [] if refused else list(find_leaks(collection, number, shards))
        if leaks:
            raise RunError("\n".join(leaks) + "\nthe release would hold what is not kept; nothing was released")
        close = close_settle(collection, setup.plan, number, shards, refused=refused, matched=matched)
        remove_spread(collection, number)
        write_notice(collection, setup.config, setup.decider.policy, number)
        return close, False


def _look_around(
    setup: Setup, commits: Sequence[ExamineCommit], hits: Mapping[str, pa.Table], search: CodeSearch, *, number: int
) -> dict[str, list[tuple[int, int, bool]]]:
    """Search around the exact hits that are known here, as far as the policy asks."""
    collection, settings = setup.collection, setup.decider.policy.around
    exact = {shard: exact_rows(table) for shard, table in hits.items()}
    parts = []
    for commit in commits if (settings.near_copies, settings.neighbours) != (None, None) else ():
        rows = exact.get(commit.shard, _NO_ROWS)
        if len(rows):
            features = load_features(collection, commit)
            decisions = setup.decider.decide(features, hits[commit.shard])
            parts.append(take_seeds(features, rows, decisions.rows.withheld[rows]))
    if not parts:
        return {}
    decider = setup.decider
    seeds = without_cancelled(join_seeds(parts), decider.lists, decider.overrides.near)
    around = AroundSearch(seeds, settings, search)
    for commit in commits:
        around.add(commit.shard, load_features(collection, commit), exact.get(commit.shard, _NO_ROWS))
    note = collection.journal / f"around-{number:04d}.json"
    stopped = {"seeds_with_too_many_neighbours": around.stopped()}
    durable.write(note, canonical_json(stopped), replace=True, mode=RESTRICTED_FILE_MODE)
    return around.marks()


def _find_spread(
    setup: Setup, options: WorkerOptions, tasks: Sequence[Task], known: Entries, *, workers: int
) -> None:
    """Judge all shards until what they lead to elsewhere no longer grows, and keep it for the settle."""
    collection, number = setup.collection, tasks[0].settle
    secret = read_secret(collection)
    entries = merge([known, *(keyed_entries(read_keyed(collection, task.shard, secret)) for task in tasks)])
    for turn in itertools.count():
        write_spread(collection, number, Spread(entries), final=False)
        judged = [replace(task, kind="judge") for task in tasks]
        # How many rounds there are depends on what is not kept: the console sees one.
        outcomes = run_tasks(setup, options, judged, workers=workers, what="judge", quiet=turn > 0)
        _raise_errors(outcomes)
        grown = merge([entries, *(decode_entries(item.entries) for item in outcomes)])
        if np.array_equal(grown, entries):
            break
        entries = grown
    write_spread(collection, number, Spread(entries), final=True)


def _raise_errors(outcomes: Sequence[Outcome]) -> None:
    errors = [item for item in outcomes if item.error]
    if errors:
        kind = InputError if all(item.exit_code == ExitCode.INPUT for item in errors) else RunError
        raise kind("\n".join(item.error for item in errors) + "\nnothing was released")


def _refusals(config: Config, commits: Sequence[ExamineCommit]) -> list[str]:
    bounds = config.release
    damaged = [
        f"shard {commit.shard}: {commit.damage}; restore it and run again, or name it in [release] accept_damaged"
        for commit in commits
        if commit.damage and commit.shard not in bounds.accept_damaged
    ]
    if not any(commit.samples for commit in commits):
        damaged.append("the input holds no sample")
    return damaged + fault_share_problems(
        commits, shard_bound=bounds.max_fault_share_shard, run_bound=bounds.max_fault_share_run
    )


def _closed_already(collection: Collection, setup: Setup, commits: Sequence[ExamineCommit]) -> Close | None:
    """Return the newest close if it rests on this plan and on exactly these commits."""
    numbers = collection.closed_settles()
    if not numbers:
        return None
    close = Close.read(collection.settled(numbers[-1]) / "close.json")
    if close.plan != setup.plan.decide_digest or set(close.shards) != {commit.shard for commit in commits}:
        return None
    folder = collection.settled(numbers[-1]) / "decisions"
    for commit in commits:
        data = (folder / f"{commit.shard}.json").read_bytes()
        if json.loads(data).get("examined") != hashlib.sha256(commit.encode()).hexdigest():
            return None
    return close
