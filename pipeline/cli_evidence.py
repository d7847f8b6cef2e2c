"""The commands that prove what became of one sample, and check such a proof.

As `cli.py`: parse, call, print. `prove` is restricted; `check-proof` needs the file and the verifier key alone.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manifests.records import FilesError
from pipeline.cli_reading import Run
from pipeline.errors import ConfigError, VerificationError

evidence_app = typer.Typer()


@evidence_app.command()
def prove(
    collection: Run,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The sample, written shard/key.")],
    *,
    out: Annotated[Path, typer.Option(help="The new file, outside of the collection (mode 0600).")],
    settle: Annotated[int | None, typer.Option(help="The number of the settle; the newest by default.")] = None,
    outcome: Annotated[bool, typer.Option("--outcome", help="Show action and reason too.")] = False,
    index: Annotated[int | None, typer.Option(help="Its place in the shard, where several have the key.")] = None,
) -> None:
    """Write a proof that one sample was judged, and kept or not kept (restricted)."""
    from manifests import durable
    from manifests.audit.sample_proof import SampleProofError, prove_sample
    from manifests.collection import RESTRICTED_FILE_MODE
    from pipeline.status import closed_collection

    home = closed_collection(collection)
    folders = (home.root, home.releases, home.log, home.sealed)
    if out.exists() or any(out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise ConfigError(f"--out: expected a new file outside of the collection, found {out}")
    shard, _, name = key.partition("/")
    try:
        data = prove_sample(home, shard, name, settle=settle, index=index, outcome=outcome)
    except SampleProofError as error:
        raise ConfigError(str(error)) from None
    durable.write(out, data, replace=False, mode=RESTRICTED_FILE_MODE)
    typer.echo(f"wrote {out}")


@evidence_app.command("check-proof")
def check_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `prove` wrote.")],
    *,
    public_key: Annotated[str, typer.Option(help="The log's verifier key, from whom you trust.")],
) -> None:
    """Check the proof of one sample from the file alone, and say what it shows."""
    from manifests.audit.proof import MAX_PROOF_BYTES
    from manifests.audit.sample_proof import check_sample
    from manifests.audit.tiles import read_file

    try:
        lines = check_sample(read_file(file, MAX_PROOF_BYTES), public_key)
    except FilesError as error:
        raise VerificationError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None
    for line in lines:
        typer.echo(line)
