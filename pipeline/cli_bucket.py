"""The command of a collection that lives in a bucket. As `cli.py`: parse, call, print."""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

bucket_app = typer.Typer()


@bucket_app.command()
def pull(config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration (TOML).")]) -> None:
    """Bring into the folder all that it lacks of what lies in the collection's bucket."""
    from pipeline.config import load_config
    from pipeline.mirroring import join
    from pipeline.runs import lock

    bucket = join(load_config(config))
    if bucket is None:
        raise ConfigError(f"{config}: no `bucket` is set; the collection lies in its folder alone")
    with lock(bucket.home, alone=False):
        bucket.pull()
    typer.echo(f"{len(bucket.there)} files, all as they lie in the bucket")
