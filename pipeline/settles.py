"""The settle of a whole collection: match, find out what decisions lead to elsewhere, decide every shard, close.

Owns the order, resuming, and the bounds that refuse a release. Leaves one shard to `settle.py`.

- Shards are judged once; what follows from that for others is found in rounds, until nothing new follows: a copy
  of a copy, a URL of a copy.
- What no list came near to under the same lists is not matched again; the canaries are asked all the same.
- What was found out is written down before anything is withheld by it, so that a settle that goes on after a kill
  decides as it would have.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pyarrow as pa

from classifiers.blocklists.match import CodeSearch
from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.commits import Close, ExamineCommit, RecordError, SettleCommit
from manifests.keyed import make_secret, read_keyed, read_secret
from manifests.records import canonical_json
from pipeline.around import AroundSearch, Seeds, exact_rows, join_seeds, take_seeds, without_cancelled
from pipeline.case_owner import write_notice
from pipeline.config import Config
from pipeline.crew import Crew
from pipeline.errors import ExitCode, InputError, RunError
from pipeline.evidence import finish_settle
from pipeline.executors.protocol import Outcome, Task, WorkerOptions
from pipeline.hits import encode_hits
from pipeline.leftovers import clear_leftovers
from pipeline.release import begin_settle, close_settle, record_floods, recorded_floods
from pipeline.reviews import reviews_digest
from pipeline.runs import lock
from pipeline.settle import fault_share_problems, load_features, read_commit
from pipeline.settle_matches import match_collection
from pipeline.setup import Setup, settle_search
from pipeline.spread import (
    Entries,
    find_spread,
    has_spread,
    keyed_entries,
    merge,
    read_around,
    read_judged,
    remove_spread,
    reopen_spread,
    working,
    write_around,
    write_spread,
)
from pipeline.unsealing import Opening, unseal

_NO_ROWS = np.zeros(0, np.int64)


def settle_all(
    setup: Setup, options: WorkerOptions, *, workers: int, opening: Opening | None = None
) -> tuple[Close, bool]:
    """Settle every examined shard, withheld samples too with `opening`; returns the close and whether it stood.

    Raises:
        InputError: a shard of the input is not examined yet.
        RunError: a shard could not be settled, or a canary was missed; nothing was released.
    """
    collection = setup.collection
    collection.make()
    make_secret(collection)
    read_secret(collection)
    with ExitStack() as stack:
        stack.enter_context(lock(collection, alone=True))
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
        for last in collection.closed_settles()[-1:]:  # a settle that was killed after its close is finished first
            finish_settle(setup, Close.read(collection.settled(last) / "close.json"))
        closed = _closed_already(collection, setup, commits)
        if closed is not None:
            write_notice(collection, setup.config, setup.decider.policy, closed.number)
            return closed, True
        number = collection.next_settle()
        opened = []
        if opening is not None:
            opened = unseal(setup, commits, opening, number=number)
            commits = [read_commit(collection, shard, setup.plan) for shard in shards]
        floods = recorded_floods(collection, setup.plan, number)
        search = settle_search(setup, threads=workers)
        asking = _to_match(setup, commits)
        matched = match_collection(collection, asking, setup.decider, search, flooded=floods)
        refused = _refusals(setup.config, commits)
        begin_settle(collection, setup.plan, number, release=not refused)
        record_floods(collection, number, matched.flooded)
        hits = {shard: encode_hits(table) for shard, table in matched.hits.items()}
        tasks = [Task("settle", shard, number, release=not refused, hits=hits.get(shard, "")) for shard in shards]
        # Features made since an interrupted attempt (a new shard, a retry) may lead to more for those it decided.
        made = {item.shard: sum(one.why != "withhold" for one in item.rewrites) for item in commits}
        shutil.rmtree(working(collection, number), ignore_errors=True)
        durable.make_folder(working(collection, number), mode=RESTRICTED_FOLDER_MODE)
        crew = stack.enter_context(Crew(setup, options, workers=workers))
        if not has_spread(collection, number) or read_around(collection, number).made != made:
            known = reopen_spread(collection, number)
            for path in (collection.settled(number) / "decisions").glob("*.json"):
                path.unlink()
            found = _look_around(setup, commits, matched.hits, search, opened, number=number)
            write_around(collection, number, read_around(collection, number).joined(found, made))
            _find_spread(crew, tasks, known)
        _raise_errors(crew.run(tasks, what="settle"))
        if not refused:
            _raise_errors(crew.run([replace(task, kind="scan") for task in tasks], what="scan"))
        close = close_settle(collection, setup.plan, number, shards, refused=refused, matched=matched)
        remove_spread(collection, number)
        finish_settle(setup, close)
        write_notice(collection, setup.config, setup.decider.policy, number)
        return close, False


def _look_around(
    setup: Setup,
    commits: Sequence[ExamineCommit],
    hits: Mapping[str, pa.Table],
    search: CodeSearch,
    opened: Sequence[Seeds],
    *,
    number: int,
) -> dict[str, list[tuple[int, int, bool]]]:
    """Search around the exact hits that are known here, as far as the policy asks."""
    collection, settings = setup.collection, setup.decider.policy.around
    exact = {shard: exact_rows(table) for shard, table in hits.items()}
    asked = (settings.near_copies, settings.neighbours) != (None, None)
    parts = [one for one in opened if asked and len(one.hidden)]
    for commit in commits if asked else ():
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


def _to_match(setup: Setup, commits: Sequence[ExamineCommit]) -> list[ExamineCommit]:
    """Return the shards that the newest settle did not ask these lists about, or that were near to an entry."""
    collection, numbers = setup.collection, setup.collection.closed_settles()
    if not numbers:
        return list(commits)
    folder = collection.settled(numbers[-1])
    close = Close.read(folder / "close.json")
    before, now = json.loads((folder / "plan.json").read_bytes())["decide"], setup.plan.record()["decide"]
    if any(before[name] != now[name] for name in ("lists", "overrides")):
        return list(commits)

    def unmatched(commit: ExamineCommit) -> bool:
        try:
            record = SettleCommit.read(folder / "decisions" / f"{commit.shard}.json")
        except RecordError:
            return False  # it was destroyed, or `verify` tells
        closed = close.shards.get(commit.shard) == hashlib.sha256(record.encode()).hexdigest()
        same = record.examined == hashlib.sha256(commit.encode()).hexdigest()
        return closed and same and not record.matched

    return [commit for commit in commits if not unmatched(commit)]


def _find_spread(crew: Crew, tasks: Sequence[Task], known: Entries) -> None:
    """Judge all shards, find what follows from that elsewhere, and keep it for the settle."""
    collection, number = crew.collection, tasks[0].settle
    secret = read_secret(collection)
    folder = working(collection, number)
    _raise_errors(crew.run([replace(task, kind="judge") for task in tasks], what="judge"))
    shards = [task.shard for task in tasks]
    before = merge([known, *(keyed_entries(read_keyed(collection, shard, secret)) for shard in shards)])
    found, hides = find_spread(shards, lambda shard: read_judged(folder / f"{shard}.judged"), before)
    around = read_around(collection, number)
    write_around(collection, number, replace(around, hides=hides or around.hides))
    write_spread(collection, number, found)


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
