"""The commands for the keys that sign the audit log.

As `cli.py`: parse, call, print. What they print is public; a private key is only ever written to a file.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from manifests.signers import Signer

keys_app = typer.Typer(help="Keys that sign the audit log.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration (TOML).")]
NewFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private key (mode 0600).")]


@keys_app.command("new")
def new(
    file: NewFile, *, origin: Annotated[str, typer.Option(help="The name of the log, as in [log] origin.")]
) -> None:
    """Make the key that signs a log; prints its verifier key, which auditors need."""
    from manifests.signers import check_name, new_key, vkey

    name = check_name(origin)
    typer.echo(vkey(name, new_key(file).public_key().public_bytes_raw()))


@keys_app.command("show")
def show(config: ConfigFile) -> None:
    """Print the verifier key of a configured log, after a trial signature."""
    from manifests.signers import vkey

    signer, _ = _configured(config)
    signer.sign(b"a trial")
    typer.echo(vkey(signer.name, signer.public_key))


@keys_app.command("rotate")
def rotate(
    config: ConfigFile,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where to write a new key.")] = None,
    *,
    statement: Annotated[Path, typer.Option(help="Where to write who follows whom, signed by both keys.")],
    to: Annotated[Path | None, typer.Option(help="Instead of FILE: the configuration with the next [log].")] = None,
) -> None:
    """State which key follows the configured one, signed by both: a new one, or that of the next configuration."""
    from manifests import durable
    from manifests.key_rotation import rotation
    from manifests.signers import FileSigner, check_place, new_key, vkey

    old, collection = _configured(config)
    if statement.exists():
        raise ConfigError(f"{statement}: exists already")
    if (file is None) == (to is None):
        raise ConfigError("expected either FILE, for a new key, or --to with the configuration that names the next")
    old.sign(b"a trial")  # before anything is written
    if to is not None:
        follower, _ = _configured(to)
    elif file is not None:
        check_place(file, collection)
        new_key(file)
        follower = FileSigner.read(old.name, file, outside=collection)
    durable.write(statement, rotation(old, follower), replace=False)
    typer.echo(vkey(follower.name, follower.public_key))


def _configured(path: Path) -> tuple[Signer, Path]:
    from pipeline.config import load_config
    from pipeline.log_config import open_signer

    config = load_config(path)
    if config.log is None:
        raise ConfigError(f"{path}: no [log]; nothing is signed there")
    return open_signer(config.log, config.collection), config.collection
