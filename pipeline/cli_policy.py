"""The commands about a policy: what it says, and what it would do. Neither writes to the collection.

As `cli.py`: parse, call, print. `preview` counts by rule, which is for the compliance team (restricted).
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.setup import Setup

policy_app = typer.Typer(help="Policies: explain one, and count what it would do.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration that names the policy.")]
PLANE_STEPS, PICTURE_STEPS = 21, 101


@policy_app.command()
def check(
    config: ConfigFile,
    *,
    across: Annotated[str, typer.Option(help="The signal along the bottom of the plane.")] = "sexual",
    up: Annotated[str, typer.Option(help="The signal along its side.")] = "minor",
    picture: Annotated[Path | None, typer.Option(help="Also draw the plane as SVG, here.")] = None,
) -> None:
    """Explain a policy, prove its promises, find idle rules, draw what it keeps, sweep stored scores."""
    from manifests import durable
    from pipeline.policy import PolicyError
    from pipeline.policy_check import draw_plane, explain_policy, find_idle_rules, plane_svg, plane_text
    from pipeline.policy_preview import stored_scores, sweep_scores

    setup = _setup(config)
    policy = setup.decider.policy
    for line in explain_policy(policy):
        typer.echo(line)
    for line in find_idle_rules(policy):
        typer.echo(f"idle      {line}")
    try:
        for line in plane_text(draw_plane(policy, across, up, PLANE_STEPS)):
            typer.echo(line)
        if picture is not None:
            drawn = plane_svg(draw_plane(policy, across, up, PICTURE_STEPS))
            durable.write(picture, drawn.encode(), replace=True)
            typer.echo(f"wrote {picture}")
    except PolicyError as error:
        if picture is not None:
            raise ConfigError(str(error)) from None
        typer.echo(f"{error}; choose others with --across and --up")
    for line in sweep_scores(stored_scores(setup)):
        typer.echo(line)


@policy_app.command()
def preview(
    config: ConfigFile,
    *,
    threads: Annotated[int, typer.Option(help="Threads of the list search.", min=1)] = 1,
) -> None:
    """Count by rule what settling the stored samples would do, and sweep every threshold (restricted)."""
    from pipeline.policy_preview import preview as count

    setup = _setup(config)
    if not setup.collection.committed_shards():
        raise ConfigError(f"{setup.collection.root}: nothing is examined here yet; run `shardscrub examine` first")
    for line in count(setup, threads=threads).lines():
        typer.echo(line)


def _setup(config: Path) -> Setup:
    from pipeline.executors.protocol import WorkerOptions
    from pipeline.setup import load_setup

    return load_setup(WorkerOptions(config.absolute(), from_stored=True))
