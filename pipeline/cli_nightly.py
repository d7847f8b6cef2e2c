"""The command `nightly`. As `cli.py`: parse, call, print."""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

nightly_app = typer.Typer()


@nightly_app.command()
def nightly(
    *,
    config: Annotated[Path, typer.Option(help="The configuration (TOML).")],
    workers: Annotated[int | None, typer.Option(help="Shards at a time; 0 is one a core or GPU.", min=0)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Do what is new since the last night, stage by stage; prints one line of JSON for each."""
    from pipeline.nightly import run_night

    run_night(config, workers=workers, device=device, say=typer.echo)
