"""The command `report`. As `cli.py`: parse, call, print."""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_reading import Run
from pipeline.errors import ConfigError

report_app = typer.Typer()


@report_app.command()
def report(
    collection: Run,
    *,
    to: Annotated[Path, typer.Option(help="A folder outside of the collection for the reports.")],
    settle: Annotated[int | None, typer.Option(help="The number of the settle; the newest by default.")] = None,
    lists: Annotated[Path | None, typer.Option(help="A list store: also say when the lists were imported.")] = None,
) -> None:
    """Write what a settle did as pages: one for a release, one with all counts (restricted)."""
    from manifests.report_page import write_reports
    from pipeline.status import closed_collection, newest_close

    home = closed_collection(collection)
    number = newest_close(home).number if settle is None else settle
    if number not in home.closed_settles():
        raise ConfigError(f"--settle: {collection} has no closed settle {number}")
    if to.resolve().is_relative_to(home.root.resolve()):
        raise ConfigError(f"--to: {to} lies in the collection, where every file must be named by a record")
    imported: dict[str, str] = {}
    if lists is not None:
        from pipeline.cli_lists import open_store
        from pipeline.lists.report import import_days

        with open_store(lists, None) as store:
            imported = import_days(store)
    for file in write_reports(home, number, to=to, imported=imported):
        typer.echo(f"wrote {to / file.name}")
