"""The commands of models: list, pull, verify, add.

As `cli.py`: parse, call, print.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classifiers.weights import WeightsError
from pipeline.errors import ConfigError, VerificationError
from pipeline.models.known import add, choose, known_models

models_app = typer.Typer(help="Models: which are known, getting them, checking them.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Models, name@version.")]
Models = Annotated[Path, typer.Option("--models", help="The folder of models; each has its own in it.")]
Registry = Annotated[Path | None, typer.Option(help="A registry of yours, else models.toml there.", exists=True)]
Origin = Annotated[str, typer.Option("--from", help="A folder or mirror to ask, not where files are published.")]
Golden = Annotated[Path | None, typer.Option(help="A folder of published embeddings with images.", exists=True)]
_HERE = Path("models")


@models_app.command("list")
def list_command(*, models: Models = _HERE, registry: Registry = None) -> None:
    """Print the models that are known: task, licence, kind, pinned or not, there or not."""
    rows = [("name", "task", "licence", "kind", "pinned", "there")]
    for model in known_models(models, registry).values():
        pinned = "yes" if all(file.sha256 for file in model.file) else "no"
        there = "yes" if all((models / model.name / file.path).is_file() for file in model.file) else "no"
        rows.append((model.name, model.task, model.licence, model.kind, pinned, there))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@models_app.command("pull")
def pull_command(names: Names, *, models: Models = _HERE, origin: Origin = "", registry: Registry = None) -> None:
    """Get models, the only command with a network; prints the lines for a configuration."""
    from pipeline.models.pull import pull, toml_table

    known = known_models(models, registry)
    chosen = choose(known, names or ())
    try:
        for model in chosen:
            pull(model, models, origin, typer.echo)
    except WeightsError as error:
        raise ConfigError(str(error)) from None
    for model in chosen:
        typer.echo(f"\n{toml_table(model, models, known)}")


@models_app.command("verify")
def verify_command(
    names: Names = None, *, models: Models = _HERE, golden: Golden = None, registry: Registry = None
) -> None:
    """Check files against their pins, load what can be loaded, compare with published embeddings."""
    from pipeline.models.check import verify

    known, failed = known_models(models, registry), 0
    chosen = choose(known, names or [name for name in known if (models / name).exists()])
    if not chosen:
        raise ConfigError(f"{models}: holds no model that is known; pull one, or say where they are with --models")
    for model in chosen:
        try:
            typer.echo(f"{model.name}: verified, {verify(model, models, golden)}")
        except WeightsError as error:
            failed += 1
            typer.echo(f"{model.name}: {error}")
    if failed:
        raise VerificationError(f"{models}: {failed} of {len(chosen)} models are not as pinned")


@models_app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it, name@version.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Its files.", exists=True, dir_okay=False)],
    *,
    kind: Annotated[str, typer.Option(help="open-clip, or the kind of a [[head]] or a [[net]].")],
    task: Annotated[str, typer.Option(help="embedding, sexual, violence, inappropriate or age.")],
    licence: Annotated[str, typer.Option(help="Of its weights.")],
    models: Models = _HERE,
    registry: Registry = None,
) -> None:
    """Pin files of yours: copy them into the folder of models and record their digests."""
    about = {"name": name, "task": task, "kind": kind, "licence": licence}
    for file in add(files, about, models, registry).file:
        typer.echo(f"{name}: {file.path}: sha256 {file.sha256}")
