"""The commands that hand a release on: to those who train, and to outsiders.

As `cli.py`: parse, call, print. What is not in a manifest is named by tar and position only.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manifests.collection import Collection
from pipeline.cli_reading import Run, print_stamps
from pipeline.errors import ConfigError, VerificationError

handover_app = typer.Typer()


@handover_app.command()
def guard(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A release, its manifest/, or one table.")],
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Tars, folders of tars, globs.")],
    *,
    members: Annotated[str, typer.Option(help="Extensions that may lie beside images, with commas.")] = "json,txt",
) -> None:
    """Check before training that data hold nothing that a manifest does not name."""
    from manifests.guard import GuardError
    from manifests.guard import guard as check

    try:
        report = check(manifest, data, members=members.lower().split(","))
    except GuardError as error:
        raise ConfigError(str(error)) from None
    typer.echo(f"checked {report.samples} samples in {report.tars} tars")
    typer.echo(f"{report.absent} samples of the manifest are not in these data")
    typer.echo(f"{report.renamed} samples have another key than in the manifest")
    if report.problem_count:
        raise VerificationError(
            "\n".join([*report.problems, f"{report.problem_count} problems: do not train on this"])
        )
    typer.echo("every sample is in the manifest")


@handover_app.command()
def publish(
    collection: Run,
    *,
    to: Annotated[Path, typer.Option(help="The folder to write; it must not exist yet, or be empty.")],
    previous: Annotated[list[Path], typer.Option(help="An earlier publication that is not recorded.")] = [],  # noqa: B006
    release: Annotated[int | None, typer.Option(help="The release that is meant: the newest settle's.")] = None,
    cover: Annotated[Path | None, typer.Option(help="A secret file: a draw under it drops kept samples.")] = None,
    shards: Annotated[bool, typer.Option("--shards", help="Also the release's tars; not with a cover.")] = False,
) -> None:
    """Write the copy of a release that outsiders may have, if what is missing in it is enough to hide in."""
    from manifests.publish import MixingError, PublishError
    from manifests.publish import publish as write_publication
    from pipeline.mirroring import mirrored

    if cover is None and Collection(collection).config_note.is_file():
        from pipeline.config import load_config
        from pipeline.status import noted_config

        cover = load_config(noted_config(Collection(collection))).publish.cover
    try:
        with mirrored(Collection(collection)):
            close, samples = write_publication(
                collection, to, number=release, previous=previous, cover=cover, shards=shards
            )
    except MixingError as error:
        raise VerificationError(str(error)) from None
    except PublishError as error:
        raise ConfigError(str(error)) from None
    print_stamps(close.stamps)
    typer.echo(f"published {samples} samples of release {close.number:04d}")
