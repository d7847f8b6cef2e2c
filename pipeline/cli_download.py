"""The command that downloads what a screen left.

As `cli.py`: parse, call, print. It knows in, kept (downloaded), not kept and faults, and nothing of a row.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_reading import print_stamps
from pipeline.errors import ConfigError

download_app = typer.Typer()


@download_app.command()
def download(
    tables: Annotated[
        list[Path] | None, typer.Argument(metavar="[TABLE...]", help="Folders of screens, or tables of URLs.")
    ] = None,
    *,
    config: Annotated[Path, typer.Option(help="The configuration (TOML).")],
    to: Annotated[Path, typer.Option(help="The folder to stage in; the same command goes on with what is there.")],
    purge_staging: Annotated[
        bool, typer.Option("--purge-staging", help="Destroy the staged shards that the collection is done with.")
    ] = False,
    by: Annotated[str, typer.Option(help="With --purge-staging: who decides.")] = "",
    why: Annotated[str, typer.Option(help="With --purge-staging: why.")] = "",
) -> None:
    """Download images, behind a gateway that decides what may be contacted, into shards that a run reads."""
    if purge_staging and (not by.strip() or not why.strip()):
        raise ConfigError("--purge-staging: expected --by and --why, a name and a reason")
    if not tables and not purge_staging:
        raise ConfigError("expected the folder of a screen, or tables; or --purge-staging")
    if tables:
        from pipeline.download.run import DownloadOptions, download_all

        summary = download_all(DownloadOptions(tuple(tables), config.absolute(), to))
        print_stamps(tuple(summary["stamps"]))
        for name in ("in", "kept", "not_kept", "faults"):
            typer.echo(f"{name.replace('_', ' '):<10}{summary[name]}")
        typer.echo(f"shards    {to / 'shards'}")
    if purge_staging:
        from pipeline.download.purge import purge

        gone, left = purge(to, config, today=datetime.now(UTC).date(), by=by, why=why)
        typer.echo(f"destroyed {gone} staged shards; left: {left}")
