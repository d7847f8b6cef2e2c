"""The commands that make no collection: what one says of itself, hashes of files, heads.

As `cli.py`: parse, call, print. Restricted verbs say so.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError, VerificationError

reading_app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a collection.")]


@reading_app.command()
def status(
    collection: Run,
    *,
    restricted: Annotated[
        bool, typer.Option("--restricted", help="Exact counts, for the compliance team.")
    ] = False,
) -> None:
    """Print how far a collection is, and what its newest settle counted."""
    from pipeline.status import closed_collection, exact_table, newest_close, progress_of, totals

    home = closed_collection(collection)
    if not home.closed_settles():
        for line in progress_of(home):
            typer.echo(line)
        return
    close = newest_close(home)
    print_stamps(close.stamps)
    for line in exact_table(close, home) if restricted else totals(close):
        typer.echo(line)
    for line in close.refused:
        typer.echo(f"refused: {line}")


@reading_app.command()
def explain(
    collection: Run, key: Annotated[str, typer.Argument(metavar="KEY", help="The sample, written shard/key.")]
) -> None:
    """Say why one sample got its action: signals, thresholds, rule (restricted)."""
    from pipeline.status import closed_collection
    from pipeline.status import explain as explain_sample

    for line in explain_sample(closed_collection(collection), key):
        typer.echo(line)


@reading_app.command()
def quarantine(collection: Run) -> None:
    """Count the quarantined samples by reason, and say what would settle each (restricted)."""
    from pipeline.status import closed_collection, newest_close, quarantine_table

    home = closed_collection(collection)
    for line in quarantine_table(newest_close(home), home):
        typer.echo(line)


@reading_app.command()
def verify(
    collection: Run,
    *,
    lists: Annotated[
        Path | None, typer.Option(help="A list store: also say what became of the lists that were matched.")
    ] = None,
    public_key: Annotated[str, typer.Option(help="The log's verifier key, from whom you trust.")] = "",
    since: Annotated[
        Path | None, typer.Option(help="An older checkpoint, which the log must continue.", exists=True)
    ] = None,
    model_key: Annotated[
        Path | None, typer.Option(help="The public key (PEM) of the signatures model.sig.", exists=True)
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also hash the input again.")] = False,
) -> None:
    """Check a collection from its files alone: counts, identities, digests, the log."""
    from manifests.commits import RecordError
    from manifests.verify import verify as verify_files

    try:
        report = verify_files(collection, public_key=public_key, since=since, model_key=model_key)
        if deep:
            from pipeline.input_digests import compare_input

            compare_input(collection, report)
    except RecordError as error:
        raise ConfigError(str(error)) from None
    for line in report.checked:
        typer.echo(f"checked  {line}")
    print_stamps(report.stamps)
    if lists is not None:
        from pipeline.cli_lists import open_store
        from pipeline.lists.check import matched_lists
        from pipeline.status import closed_collection

        with open_store(lists, None) as store:
            notes, problems = matched_lists(store, closed_collection(collection))
        report.problems.extend(problems)
        for line in notes:
            typer.echo(line)
    if report.problems:
        raise VerificationError("\n".join(report.problems))
    typer.echo("all files agree with each other")


@reading_app.command("train-head")
def train_head(
    collection: Run,
    *,
    labels: Annotated[Path, typer.Option(help="CSV with the header key,label[,group][,source]; labels 0 or 1.")],
    name: Annotated[str, typer.Option(help="name@version of the new head.")],
    out: Annotated[Path, typer.Option(help="The file to write (safetensors); the model card lies beside it.")],
    kind: Annotated[str, typer.Option(help="logistic or mlp.")] = "logistic",
    hidden: Annotated[int, typer.Option(help="Width of the hidden layer of an mlp.", min=1)] = 64,
    l2: Annotated[float, typer.Option(help="Strength of the penalty on the weights.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Deals the rows to fit, calibrate and test; starts an mlp.", min=0)] = 0,
) -> None:
    """Train a head on a collection's stored embeddings and a file of labels (restricted)."""
    from pipeline.model_card import console_lines
    from pipeline.status import closed_collection
    from pipeline.training import train_head as train

    home = closed_collection(collection)
    card = train(home, labels, name=name, out=out, kind=kind, hidden=hidden, l2=l2, seed=seed)
    print_stamps(tuple(card["stamps"]))
    for line in console_lines(card):
        typer.echo(line)
    typer.echo(f'[[head]]\nfile = "{out}"\nsha256 = "{card["head"]["sha256"]}"\nkind = "mlp"')


@reading_app.command("hash")
def hash_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Image files.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a file.")] = False,
    kinds: Annotated[str, typer.Option(help="Kinds of hash, with commas.")] = "pdq:fullres,pdq:turned",
) -> None:
    """Print every digest, hash, quality and view of files; writes nothing."""
    import json

    from classifiers.hashes.registry import find_kind
    from classifiers.plugins import PluginError
    from pipeline.config import VIEWS
    from pipeline.decode import DecodeLimits, Decoder
    from pipeline.hash_files import hash_files
    from pipeline.hash_pictures import PictureHashes

    try:
        hashes = PictureHashes(tuple(find_kind(name) for name in kinds.split(",")), VIEWS)
    except PluginError as error:
        raise ConfigError(f"--kinds: {error}") from None
    with Decoder(DecodeLimits(animated="first-frame", trailing_bytes="copy")) as decoder:
        for found in hash_files(files, hashes, decoder):
            typer.echo(json.dumps(found.record()) if as_json else "\n".join(found.lines()))


@reading_app.command("make-prompts")
def make_prompts(
    prompts: Annotated[str, typer.Argument(metavar="PROMPTS", help="A file, or sexual, minor, drawn, banknote.")],
    *,
    folder: Annotated[Path, typer.Option(help="The model folder whose text tower reads them.", file_okay=False)],
    sha256: Annotated[str, typer.Option(help="The folder's pin, as [embedder] has it.")],
    model: Annotated[str, typer.Option(help="The model's name@version, as [embedder] has it.")],
    out: Annotated[Path, typer.Option(help="The file to write (safetensors).")],
) -> None:
    """Make a zero-shot head of a file of prompts; prints what to paste into the configuration."""
    import hashlib

    from classifiers.heads.prompts import find_prompts, make_prompt_head
    from manifests import durable

    try:
        data = make_prompt_head(find_prompts(prompts), folder, name=model, sha256=sha256)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    durable.make_folder(out.parent)
    durable.write(out, data, replace=True)
    typer.echo(f'[[head]]\nfile = "{out}"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nkind = "zero-shot"')


@reading_app.command()
def leakscan(collection: Run) -> None:
    """Join every cell of the newest release with what was not kept; a leak is named by file and row only."""
    from manifests.leaks import scan_newest

    close, leaks = scan_newest(collection)
    print_stamps(close.stamps)
    if leaks:
        raise VerificationError("\n".join(leaks))
    kept, lost = close.counts.keep, close.counts.samples - close.counts.keep
    typer.echo(f"release {close.number:04d}: {kept} kept samples joined with {lost} not kept, no leak found")


def print_stamps(stamps: tuple[str, ...]) -> None:
    """Print every `unsafe_` option that a collection was made under."""
    for stamp in stamps:
        typer.echo(f"UNSAFE    {stamp}")
