"""The commands of a person's decisions on samples, and of the end of what is stored (both restricted).

As `cli.py`: parse, call, print.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from manifests.lifetime import TIERS, destroy, find_files
from pipeline.cli_reading import Run
from pipeline.errors import ConfigError

lifetime_app = typer.Typer()

Keys = Annotated[list[str], typer.Argument(metavar="KEY...", help="The samples, written shard/key.")]
ReviewAction = Annotated[str, typer.Option(help="QUARANTINE or REMOVE; a review only tightens.")]
By = Annotated[str, typer.Option(help="Who decides.")]
Why = Annotated[str, typer.Option(help="Why; stands in the restricted record alone.")]
TierName = Annotated[str, typer.Option(help="restricted, journal, sealed or release; with --due all by default.")]
Due = Annotated[bool, typer.Option("--due", help="Only what was written longer ago than [retention] says.")]
Number = Annotated[int | None, typer.Option(help="Only the decisions, or the release, of this settle.")]
NewestToo = Annotated[bool, typer.Option("--all", help="The newest release too.")]
Owner = Annotated[str, typer.Option(help="The case owner, another person than --by; for the tier sealed.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would go.")]


@lifetime_app.command()
def review(collection: Run, keys: Keys, *, action: ReviewAction, by: By, why: Why) -> None:
    """Record a person's decision on samples, for the next settle (restricted)."""
    from pipeline.reviews import record_reviews
    from pipeline.runs import lock
    from pipeline.status import closed_collection

    home, on = closed_collection(collection), datetime.now(UTC).date().isoformat()
    _check_signed(by, why)
    with lock(home, alone=True):
        count = record_reviews(home, keys, action=action, by=by, why=why, on=on)
    typer.echo(f"recorded {count} reviews; they take effect at the next settle")


@lifetime_app.command("destroy")
def destroy_command(
    collection: Run,
    *,
    by: By,
    why: Why,
    tier: TierName = "",
    due: Due = False,
    settle: Number = None,
    everything: NewestToo = False,
    case_owner_agrees: Owner = "",
    yes: Yes = False,
) -> None:
    """Destroy the files of a tier for good, and record that before (restricted)."""
    from pipeline.config import load_config
    from pipeline.runs import lock
    from pipeline.status import closed_collection, noted_config

    home, today = closed_collection(collection), datetime.now(UTC).date()
    _check_signed(by, why)
    if tier not in (*TIERS, *([""] if due else [])):
        raise ConfigError(f"--tier: expected {', '.join(TIERS)}, found {tier!r}")
    days: dict[str, int | None] = {tier: None}
    if due:
        path = noted_config(home)
        kept = load_config(path).retention
        days = {one: kept.of(one) for one in TIERS if kept.of(one) and tier in ("", one)}
        if not days:
            raise ConfigError(f"{path}: [retention] says of no such tier how many days it is kept; nothing is due")
    if settle is not None and (tier not in ("restricted", "release") or settle not in home.closed_settles()):
        raise ConfigError("--settle: expected the number of a closed settle, for the tiers restricted and release")
    if "sealed" in days and case_owner_agrees.strip().casefold() in ("", by.strip().casefold()):
        raise ConfigError("tier sealed: expected --case-owner-agrees and the name of another person than --by")
    with lock(home, alone=True):
        for one, most in days.items():
            files, held = find_files(home, one, settle=settle, newest_too=everything, today=today, days=most)
            size = sum(path.stat().st_size for path in files)
            if yes:
                signed = {"on": today.isoformat(), "by": by, "agreed": case_owner_agrees, "why": why}
                destroy(home, files, tier=one, settle=settle, **signed)
            told = f"{'destroyed' if yes else 'would destroy'} {len(files)} files, {size} bytes"
            typer.echo(f"{f'{one}: ' if due else ''}{told}; on hold and left: {held}")


def _check_signed(by: str, why: str) -> None:
    if not by.strip() or not why.strip():
        raise ConfigError("--by and --why: expected a name and a reason")
