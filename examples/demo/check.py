"""Holds what the scrub decided against what was drawn and planted, and says where to look.

Run as `python check.py OUT`. Reads the truth table, the decisions, the release manifest, and the sealed files
with the throw-away key: what only a case owner can do, since withheld samples are blank everywhere else.

- Fails if a sample is not accounted for exactly once, if a required plant was missed, if a damaged sample was
  kept, or if the release holds anything that was not decided KEEP.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from plant import KINDS

from manifests.cases import open_sealed

LABELLED_SHARDS = 3  # the heads saw these; what they do on the others is what counts
OPEN_SEALED = (
    "import sys, pathlib, manifests.cases as c; file, key = map(pathlib.Path, sys.argv[1:]); "
    "print(c.open_sealed(file.read_bytes(), identity=key.read_text(), source=file.name)"
    ".select(['key', 'action', 'rule']).to_pylist())"
)
WIDTHS = "{:<52}{:<34}{:>12}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one sample; of a withheld one only the sealed file says so."""

    action: str
    reason: str
    withheld: bool


def main(out: Path) -> int:
    """Print expected against found; returns the exit code."""
    with (out / "truth.csv").open(newline="") as file:
        truth = list(csv.DictReader(file))
    collection = out / "collection"
    number = (collection / "current").read_text().strip()
    outcomes, problems = read_outcomes(collection, number, (out / "keys" / "case.key").read_text())
    problems += [f"{text}: {count}" for text, count in _unaccounted(truth, outcomes)]
    print(WIDTHS.format("planted", "expected", "found"))
    for name, kind in KINDS.items():
        found = [outcomes.get(row["key"]) for row in truth if row["plant"] == name]
        hits = sum(o is not None and o.action == kind.action and kind.reason in ("", o.reason) for o in found)
        kept = sum(o is None or o.action == "KEEP" for o in found)
        expected = " ".join(filter(None, (kind.action, kind.reason)))
        print(WIDTHS.format(kind.text, expected, f"{hits} of {len(found)}"))
        if kind.required and (hits < len(found) or kept):
            problems.append(f"{kind.text}: {len(found) - hits} not {kind.action}, {kept} of them kept")
    print()
    _print_separation(truth, outcomes)
    _print_totals(truth, outcomes)
    _print_places(out, number, asked=next(row["key"] for row in truth if row["plant"] == "cut"))
    for problem in problems:
        print(f"FAILED  {problem}")
    return 1 if problems else 0


def read_outcomes(collection: Path, number: str, identity: str) -> tuple[dict[str, Outcome], list[str]]:
    """Join decisions, sealed records and release manifest of one settle.

    Returns:
        Outcome by `shard/key`, and what does not fit together.
    """
    decided = list(_rows((collection / "settled" / number / "decisions").glob("*.parquet")))
    sealed = {}
    for path in sorted((collection / "sealed").glob("*.age")):
        for row in open_sealed(path.read_bytes(), identity=identity, source=str(path)).to_pylist():
            sealed[f"{row['shard']}/{row['key']}"] = Outcome(row["action"], row["reason"] or "", withheld=True)
    outcomes = {}
    for key, row in decided:
        outcomes[key] = Outcome(row["action"] or "", row["reason"] or "", withheld=False)
        if row["withheld"]:
            outcomes[key] = sealed.pop(key, Outcome("lost", "", withheld=True))
    kept = Counter(key for key, _ in _rows((collection / "releases" / number / "manifest").glob("*.parquet")))
    problems = {
        "samples with two decisions": len(decided) - len(outcomes),
        "withheld without a sealed record": sum(outcome.action == "lost" for outcome in outcomes.values()),
        "sealed but not withheld": len(sealed),
        "decided KEEP but not released, or released otherwise": len(
            kept.keys() ^ {key for key, outcome in outcomes.items() if outcome.action == "KEEP"}
        ),
        "released twice": kept.total() - len(kept),
    }
    return outcomes, [f"{text}: {count}" for text, count in problems.items() if count]


def _rows(paths: Iterable[Path]) -> Iterator[tuple[str, dict[str, object]]]:
    for path in sorted(paths):
        for row in pq.read_table(path).to_pylist():
            yield f"{row['shard']}/{row['key']}", row


def _unaccounted(truth: list[dict[str, str]], outcomes: dict[str, Outcome]) -> Iterator[tuple[str, int]]:
    drawn = {row["key"] for row in truth}
    if missing := drawn - outcomes.keys():
        yield "drawn and downloaded, but without a decision", len(missing)
    if extra := outcomes.keys() - drawn:
        yield "decided, but never drawn", len(extra)


def _print_separation(truth: list[dict[str, str]], outcomes: dict[str, Outcome]) -> None:
    print(f"stand-in heads, on the shards after the first {LABELLED_SHARDS}, which they were not fitted on")
    unseen = [r for r in truth if not r["plant"] and int(r["key"].partition("/")[0]) >= LABELLED_SHARDS]
    groups = {
        "mark with a small figure (recall of the separation)": ("not kept", ["small+mark"]),
        "mark with a tall figure (recall of the sexual rule)": ("not kept", ["tall+mark"]),
        "small figure, no mark (an ordinary picture)": ("KEEP", ["small"]),
        "tall figure or scene, no mark": ("KEEP", ["tall", "scene"]),
    }
    for text, (expected, kinds) in groups.items():
        found = [outcomes[row["key"]] for row in unseen if row["kind"] in kinds and row["key"] in outcomes]
        hits = sum((outcome.action == "KEEP") == (expected == "KEEP") for outcome in found)
        print(WIDTHS.format(text, expected, f"{hits} of {len(found)}"))


def _print_totals(truth: list[dict[str, str]], outcomes: dict[str, Outcome]) -> None:
    actions = Counter(outcome.action for outcome in outcomes.values())
    parts = " + ".join(f"{count} {action}" for action, count in sorted(actions.items()))
    withheld = sum(outcome.withheld for outcome in outcomes.values())
    print(f"\nin {len(truth)} = {parts}; {withheld} of them withheld\n")


def _print_places(out: Path, number: str, asked: str) -> None:
    collection = out / "collection"
    places = {
        "for those who train": collection / "releases" / number,
        "for the compliance team": collection / "settled" / number,
        "for the case owner": collection / "sealed",
        "the case owner's key": out / "keys" / "case.key",
        "what was really drawn": out / "truth.csv",
    }
    for text, path in places.items():
        print(f"{text:<26}{path}")
    sealed = min((collection / "sealed").glob("*.age"))
    print(f"\nto ask about one sample:\n  shardscrub explain {collection} {asked}")
    print(f'to open a sealed file:\n  python -c "{OPEN_SEALED}" {sealed} {out / "keys" / "case.key"}')


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
