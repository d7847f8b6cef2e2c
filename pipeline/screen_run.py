"""Screening whole tables: parts over worker processes, files, commits, and the close.

Owns the folder that a screen writes:

    plan.json               what it was screened by: tables, policy and lists by digest (restricted)
    download/               the rows to download, a file for each part, columns as they were
    decisions/              one decision a row (restricted)
    sealed/                 records of withheld rows, a file for each part whether there are any or not
    parts/                  a commit for each part, written last (restricted)
    summary.json            in, kept, not kept, faults
    screen.json             the close: totals, and that every row of every table has one decision (restricted)

- Whatever has no commit is made again; what has one is left as it is. Another plan needs another folder.
- The same tables, policy and lists give the same files, but for what encryption draws, with any number of workers.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import cases, durable, schema
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE
from manifests.keyed import make_secret
from manifests.records import SCHEMA_VERSION, Action, canonical_json, digest_json, readable_json
from manifests.screens import part_problems, record_screen
from pipeline.errors import ConfigError, ExitCode, InputError, RunError, ScrubError
from pipeline.plan import RECIPE
from pipeline.screen_job import Job, ScreenOptions, load_job
from pipeline.screen_tables import Part, Table, read_batches, sha256_of

_PR_SET_PDEATHSIG = 1
_FOLDERS = {"download": 0o755, **dict.fromkeys(("decisions", "sealed", "parts", "journal"), RESTRICTED_FOLDER_MODE)}
_COUNTS = ("rows", "kept", "faults", "withheld")


def screen_all(options: ScreenOptions, *, workers: int) -> dict[str, Any]:
    """Screen all tables, or what is left of them; returns what `summary.json` holds.

    Raises:
        ConfigError: something is not usable, or the folder holds a screen under another plan.
        ScrubError: a part could not be read, a worker died, or a row has no decision; run again to go on.
    """
    job = load_job(options)
    digests = {table.name: sha256_of(table.path) for table in job.tables}
    plan = canonical_json({**job.plan, "tables": digests})
    to = options.to
    for name, mode in _FOLDERS.items():
        durable.make_folder(to / name, mode=mode)
    try:
        durable.write(to / "plan.json", plan, replace=False, mode=RESTRICTED_FILE_MODE)
    except durable.DurableError:
        raise ConfigError(
            f"{to}: was begun with other tables, lists or another policy; name another --to"
        ) from None
    with (to / "journal" / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{to}: another screen is at work here; wait for it") from None
        known = json.loads(plan)
        if job.logged is not None:
            job.logged.make()
            make_secret(job.logged)
            record_screen(job.logged, "open", known, {})
        _do_all(job, digest_json(known), workers)
        return _close(job, known, digests)


def _do_all(job: Job, plan: str, workers: int) -> None:
    for name in _FOLDERS:
        durable.sweep(job.options.to / name)
    job.screener.check_canaries()
    parts = job.parts()
    left = [number for number, one in enumerate(parts) if not job.path("parts", *one).is_file()]
    if workers == 1 or len(left) < 2:
        for number in left:
            screen_part(job, *parts[number], plan)
    else:
        _spread(job, left, plan, workers)


def screen_part(job: Job, table: Table, part: Part, plan: str) -> None:
    """Screen one part and commit it."""
    counts: Counter[str] = Counter()
    sealed: list[pa.Table] = []
    batches = read_batches(table, part)
    first = next(batches, pa.RecordBatch.from_pylist([], schema=table.columns))
    stamped = schema.stamp(job.screener.columns, plan=plan, stamps=job.stamps)
    own = {**(first.schema.metadata or {}), **stamped.metadata}
    with (
        _open(job.path("download", table, part), first.schema.with_metadata(own), 0o644) as download,
        _open(job.path("decisions", table, part), stamped, RESTRICTED_FILE_MODE) as decisions,
    ):
        for batch in _chain(first, batches):
            done = job.screener.screen(batch, table, part.first + counts["rows"])
            kept = done.action == Action.KEEP
            if kept.any():
                download.write_batch(batch.filter(pa.array(kept)).replace_schema_metadata(own))
            decisions.write_batch(done.decisions.replace_schema_metadata(stamped.metadata))
            if done.sealed is not None and done.sealed.num_rows:
                sealed.append(done.sealed)
            counts["rows"] += len(kept)
            counts["kept"] += int(kept.sum())
            counts["withheld"] += int(done.withheld.sum())
            counts["faults"] += int((done.fault & (done.action == Action.QUARANTINE) & ~done.withheld).sum())
    named = ["download", "decisions"]
    if job.recipients:
        judged_under = digest_json([job.plan["policy_digest"], job.plan["lists"]])
        about = {"judged_under": judged_under, "recipe": RECIPE, "software": job.plan["software"]}
        rows = pa.concat_tables(sealed) if sealed else pa.table({})
        rows = rows.cast(schema.stamp(rows.schema, plan=plan, stamps=job.stamps, **about))
        # Four bytes of padding a row: what is withheld of a table is small beside it.
        data, _ = cases.seal(rows, samples=counts["rows"] >> 6, recipients=job.recipients)
        durable.write(job.path("sealed", table, part), data, replace=True, mode=RESTRICTED_FILE_MODE)
        named.append("sealed")
    commit = {
        "schema": SCHEMA_VERSION,
        "plan": plan,
        "table": table.name,
        "part": part.number,
        "first": part.first,
        **{name: counts[name] for name in _COUNTS},
        "files": {name: sha256_of(job.path(name, table, part)) for name in named},
    }
    path = job.path("parts", table, part)
    durable.write(path, canonical_json(commit), replace=False, mode=RESTRICTED_FILE_MODE)


def _chain(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others


@contextmanager
def _open(path: Path, columns: pa.Schema, mode: int) -> Iterator[pq.ParquetWriter]:
    with ExitStack() as stack:
        file = stack.enter_context(durable.create(path, replace=True, mode=mode))
        few = [name for name in ("action", "rule", "reason") if name in columns.names]
        writer = pq.ParquetWriter(file, columns, compression="snappy", use_dictionary=few, write_statistics=False)
        yield stack.enter_context(writer)


def _spread(job: Job, left: Sequence[int], plan: str, workers: int) -> None:
    """Give the parts to worker processes in turn, and wait for all of them."""
    options = {name: value for name, value in asdict(job.options).items() if name != "lists_fd"}
    children = []
    with ExitStack() as stack:
        for number in range(min(workers, len(left))):
            order = {"options": options, "lists_fd": job.lists_fd, "plan": plan, "stamps": job.stamps}
            order |= {"parts": left[number::workers], "parent": os.getpid()}
            log = stack.enter_context((job.options.to / "journal" / f"worker-{number}.log").open("wb"))
            os.fchmod(log.fileno(), RESTRICTED_FILE_MODE)
            command = [sys.executable, "-W", "ignore", "-m", "pipeline.screen_run", json.dumps(order, default=str)]
            child = subprocess.Popen(  # noqa: S603 - our own module, our own arguments
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, pass_fds=(job.lists_fd,)
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            children.append(child)
        errors = []
        for child in children:
            answer, code = child.communicate()[0], child.returncode
            if code:
                with suppress(ValueError):
                    errors.append(RunError(json.loads(answer)))
                    errors[-1].exit_code = ExitCode(code)
                    continue
                errors.append(RunError(f"a worker died ({code}); see {job.options.to / 'journal'}, then run again"))
        if errors:
            raise errors[0]


def _close(job: Job, plan: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    """Prove that every row of every table has one decision and is where that says, and close.

    Raises:
        RunError: it has not; nothing of this folder may be used.
        InputError: a table is no longer the one that was screened.
    """
    totals: Counter[str] = Counter()
    commits, downloads, digest = [], {}, digest_json(plan)
    for table in job.tables:
        if sha256_of(table.path) != digests[table.name]:
            raise InputError(f"{table.path}: changed while it was screened; screen it again, to another folder")
        rows = 0
        for part in table.parts:
            path = job.path("parts", table, part)
            commit = json.loads(path.read_bytes())
            for problem in part_problems(job.options.to, commit, rows, digest):
                raise RunError(f"{problem}; delete {job.options.to}, and screen again")
            rows += commit["rows"]
            downloads[job.path("download", table, part).name] = commit["files"]["download"]
            totals.update({name: commit[name] for name in _COUNTS})
            commits.append([table.name, part.number, sha256_of(path)])
        if table.path.suffix == ".parquet" and rows != pq.read_metadata(table.path).num_rows:
            raise RunError(f"{table.path}: {rows} rows were decided, and it has others; delete {job.options.to}")
    counted = {"in": totals["rows"], "kept": totals["kept"], "not_kept": totals["rows"] - totals["kept"]}
    summary = {"schema": SCHEMA_VERSION, **counted, "faults": totals["faults"], "stamps": list(job.stamps)}
    to = job.options.to
    durable.write(to / "summary.json", readable_json(summary), replace=True)
    close = canonical_json({"schema": SCHEMA_VERSION, "plan": digest, "parts": commits, "summary": summary})
    durable.write(to / "screen.json", close, replace=False, mode=RESTRICTED_FILE_MODE)
    if job.logged is not None:
        counted |= {"faults": totals["faults"]}
        record_screen(job.logged, "close", plan, {**counted, "download": digest_json(downloads)})
    return summary


def _work(order: dict[str, Any]) -> None:
    """Do the parts of an order, in a process of its own that ends with its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order["parent"]:
        return  # it died before this process could ask to be told
    said = order["options"]
    tables, lists = tuple(map(Path, said["tables"])), tuple(said["lists"])
    config, to = Path(said["config"]), Path(said["to"])
    home = None if said["collection"] is None else Path(said["collection"])
    options = ScreenOptions(tables, config, to, said["policy"], lists, home, order["lists_fd"])
    job = replace(load_job(options, worker=True), stamps=tuple(order["stamps"]))
    parts = job.parts()
    for number in order["parts"]:
        table, part = parts[number]
        screen_part(job, table, part, order["plan"])


if __name__ == "__main__":
    try:
        _work(json.loads(sys.argv[1]))
    except ScrubError as error:
        sys.stdout.write(json.dumps(str(error)))
        sys.exit(error.exit_code)
