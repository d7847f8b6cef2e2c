"""The command that screens tables before anything is downloaded.

As `cli.py`: parse, call, print. It knows in, kept, not kept and faults, and nothing of a row.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_reading import print_stamps

screen_app = typer.Typer()


@screen_app.command()
def screen(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Parquet, CSV or JSON lines of URLs.")],
    *,
    config: Annotated[Path, typer.Option(help="The configuration (TOML).")],
    to: Annotated[Path, typer.Option(help="The folder to write; the same command goes on with what is there.")],
    policy: Annotated[str, typer.Option(help="A .toml file or a profile, not the configured one.")] = "",
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="ID[@VERSION] of a list to use, not the configured ones.")
    ] = None,
    collection: Annotated[
        Path | None, typer.Option(help="The collection whose withheld samples are known, not the configured one.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Parts at a time; 0 is one a core.", min=0)] = 0,
) -> None:
    """Decide which rows of tables to download, from lists, scores and words; fetches nothing."""
    from pipeline.screen_job import ScreenOptions
    from pipeline.screen_run import screen_all

    options = ScreenOptions(tuple(tables), config.absolute(), to, policy, tuple(lists or ()), collection)
    summary = screen_all(options, workers=workers or len(os.sched_getaffinity(0)))
    print_stamps(tuple(summary["stamps"]))
    for name in ("in", "kept", "not_kept", "faults"):
        typer.echo(f"{name.replace('_', ' '):<10}{summary[name]}")
    typer.echo(f"download  {to / 'download'}")
