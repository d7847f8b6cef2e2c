"""The commands of case owners: keys, opening sealed files, the access record, a draft of a summary.

As `cli.py`: parse, call, print. They print how many, and nothing of any record.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from manifests.commits import RecordError
from pipeline.errors import ConfigError, VerificationError

cases_app = typer.Typer(help="Keys and sealed records, for the people who may open them.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys of the people who can open sealed records.", no_args_is_help=True)
cases_app.add_typer(keys_app, name="keys")

SealedFiles = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Sealed files.", exists=True)]
Identity = Annotated[Path, typer.Option(help="The file of your age key.", exists=True)]
Out = Annotated[Path, typer.Option(help="The file to write (0600); must not exist.")]
By = Annotated[str, typer.Option(help="Who opens them.")]
Why = Annotated[str, typer.Option(help="Why.")]
Record = Annotated[Path, typer.Option(help="The record of openings, which gets a line.")]
WithFeatures = Annotated[bool, typer.Option("--with-features", help="Also embeddings and codes.")]
ThatRecord = Annotated[Path, typer.Argument(metavar="PATH", help="The record.", exists=True)]
Last = Annotated[str, typer.Option(help="A digest printed at an earlier time: its line must be there.")]
Opened = Annotated[Path, typer.Argument(metavar="OPENED", help="What `cases open` wrote.", exists=True)]
Viewed = Annotated[Path | None, typer.Option(help="TOML: [[viewed]] key, by, on.", exists=True)]
Filed = Annotated[
    Path | None, typer.Option(help="TOML: [[filed]] key, by, reported_at, preserve_until.", exists=True)
]


@keys_app.command("new")
def keys_new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the secret key (mode 0600).")],
) -> None:
    """Make an age key for a case owner; keep the file away from the machines that scrub."""
    from manifests import durable
    from manifests.cases import new_identity

    secret, public = new_identity()
    if file.exists():
        raise ConfigError(f"{file}: exists already; a key is never written over")
    durable.make_folder(file.parent, mode=0o700)
    durable.write(file, f"# public key: {public}\n{secret}\n".encode(), replace=False, mode=0o600)
    typer.echo(public)


@cases_app.command("open")
def open_command(
    files: SealedFiles, *, identity: Identity, out: Out, by: By, why: Why, access_record: Record,
    with_features: WithFeatures = False,
) -> None:  # fmt: skip
    """Write the records of sealed files to a file of yours, and who did so to the access record."""
    from pipeline.case_opening import open_cases

    about = {"identity": identity, "record": access_record}
    with _chain_checked():
        opened, count = open_cases(files, out=out, by=by, why=why, with_features=with_features, **about)
    typer.echo(f"{opened} files opened, {count} records")


@cases_app.command("access-record")
def access_record_command(path: ThatRecord, *, last: Last = "") -> None:
    """Check the chain of an access record and print its lines."""
    from manifests.case_access import read_access_record

    with _chain_checked():
        lines, digest = read_access_record(path, last=last)
    for line in lines:
        what = f"{line['records']} records of {len(line['files'])} files"
        typer.echo(f"{line['at']}  {line['by']}: {what}; {line['why']}")
    typer.echo(f"{len(lines)} lines follow from each other; the last is {digest or 'none'}")


@cases_app.command("export")
def export_command(opened: Opened, *, out: Out, viewed: Viewed = None, filed: Filed = None) -> None:
    """Write a neutral draft of what was matched where; files nothing with anybody."""
    from pipeline.case_export import export_cases

    cases, others = export_cases(opened, out, viewed=viewed, filed=filed)
    typer.echo(f"{cases} cases drafted, {others} withheld samples that are none")


@contextmanager
def _chain_checked() -> Iterator[None]:
    try:
        yield
    except RecordError as error:
        raise VerificationError(str(error)) from None
