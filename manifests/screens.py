"""The folder of a screen, checked from its files alone, and what a collection records of the screens before it.

Owns the places of a screen's files, what of them must agree, and the chain `screens.jsonl`, whose state every
settle logs as a commitment. Leaves writing a screen to `pipeline.screen_run`.

- Every row of every table has one decision: rows are numbered without a gap from part to part, and as many are to
  be downloaded as were kept.
- Of a withheld row the decisions hold its number and nothing else.
- The chain says when a screen began and what it ended with: counts, and digests of policy, lists and downloads; the
  lists as a commitment under the collection's secret.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.audit.entries import Committer
from manifests.collection import Collection
from manifests.commits import FileDigest
from manifests.keyed import read_secret
from manifests.lifetime import append, read_chain
from manifests.records import Action, digest_json, readable_json
from manifests.verify_release import Report, file_problems, verify_names

SCREEN_KEYS = {"phase", "plan", "about", "on"}
_SUFFIXES = {"parts": "json", "sealed": "age"}


def part_file(folder: Path, kind: str, table: str, number: int) -> Path:
    """Return the place of a file of a part."""
    return folder / kind / f"{table}-{number:05d}.{_SUFFIXES.get(kind, 'parquet')}"


def record_screen(collection: Collection, phase: str, plan: Mapping[str, Any], about: Mapping[str, object]) -> None:
    """Record that a screen was opened or closed, once.

    Raises:
        RecordError: the chain is not as it was written.
        KeyedError: the collection's secret is missing.
    """
    digest = digest_json(plan)
    lists = Committer(read_secret(collection), 0).commit(f"screen:{digest}", [plan["lists"], plan["internal"]])
    record = {"phase": phase, "plan": digest, "about": {"policy": plan["policy_digest"], "lists": lists, **about}}
    with collection.secret.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(record.items() <= one.items() for one in read_chain(collection.screens, SCREEN_KEYS)[0]):
            append(collection.screens, [{**record, "on": datetime.now(UTC).date().isoformat()}])


def part_problems(folder: Path, commit: Mapping[str, Any], first: int, plan: str) -> Iterator[str]:
    """Find what of a part does not agree with its commit; its rows are numbered from `first`."""
    where = (commit["table"], commit["part"])
    path = part_file(folder, "decisions", *where)
    decided = pq.read_table(path, columns=["row", "withheld", "action"])
    kept = pc.sum(pc.equal(decided["action"], Action.KEEP.name)).as_py() or 0
    downloads = pq.read_metadata(part_file(folder, "download", *where)).num_rows
    counted = [kept, downloads, pc.sum(decided["withheld"]).as_py() or 0]
    if commit["plan"] != plan:
        yield f"{path}: was decided under another plan"
    if not np.array_equal(decided["row"].to_numpy(), np.arange(first, first + commit["rows"])):
        yield f"{path}: not one decision for each row, in order"
    if counted != [commit["kept"], commit["kept"], commit["withheld"]]:
        yield f"{path}: decisions, downloads and the commit count otherwise"


def verify_screen(folder: Path) -> Report:
    """Check the folder of a screen; whatever is wrong is in the report."""
    report = Report()
    try:
        close = json.loads((folder / "screen.json").read_bytes())
        plan = json.loads((folder / "plan.json").read_bytes())
        report.problems += _problems(folder, close, plan)
        report.stamps = tuple(close["summary"]["stamps"])
        report.checked.append(f"screen: {len(close['parts'])} parts: decisions, downloads, sealed files, counts")
    except FileNotFoundError as error:
        report.problems.append(
            f"{error.filename}: missing; a screen counts when it is closed: run it again to go on"
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        report.problems.append(f"{folder}: damaged ({type(error).__name__}); screen again, to another folder")
    return report


def _problems(folder: Path, close: dict[str, Any], plan: dict[str, Any]) -> Iterator[str]:
    totals, firsts, report = Counter[str](), Counter[str](), Report()
    named: dict[str, set[str]] = {name: set() for name in ("parts", "decisions", "download", "sealed")}
    if digest_json(plan) != close["plan"] or {one[0] for one in close["parts"]} != plan["tables"].keys():
        yield f"{folder / 'plan.json'}: is not the plan of this screen, or it lacks a table"
    if (folder / "summary.json").read_bytes() != readable_json(close["summary"]):
        yield f"{folder / 'summary.json'}: not what the screen was closed with"
    for table, number, sha256 in close["parts"]:
        path = part_file(folder, "parts", table, number)
        data = path.read_bytes()
        commit = json.loads(data)
        if hashlib.sha256(data).hexdigest() != sha256 or [commit["table"], commit["part"]] != [table, number]:
            yield f"{path}: not the commit that the screen was closed with"
        for kind, digest in {"parts": sha256, **commit["files"]}.items():
            file = part_file(folder, kind, table, number)
            named[kind].add(file.name)
            yield from file_problems(file.parent, FileDigest(file.name, digest, file.stat().st_size))
        yield from part_problems(folder, commit, firsts[table], close["plan"])
        decided = pq.read_table(part_file(folder, "decisions", table, number), filters=[("withheld", "=", True)])
        if any(decided[name].null_count < len(decided) for name in set(decided.column_names) - {"row", "withheld"}):
            yield f"{path}: decisions of withheld rows hold more than their numbers"
        firsts[table] += commit["rows"]
        totals.update({name: commit[name] for name in ("rows", "kept", "faults")})
    counts = {"in": totals["rows"], "kept": totals["kept"], "not_kept": totals["rows"] - totals["kept"]}
    if not {**counts, "faults": totals["faults"]}.items() <= close["summary"].items():
        yield f"{folder / 'screen.json'}: counts otherwise than its parts"
    for kind, names in named.items():
        verify_names(folder / kind, names, report)
    yield from report.problems
