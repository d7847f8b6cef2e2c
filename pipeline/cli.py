"""The command `shardscrub`: parse, call, print, exit code. No logic lives here.

- The only module that prints results, and it knows in, kept, not kept and faults; restricted verbs say so.
- Nothing heavy is imported before a command needs it, so that `--help` and `verify` never load torch.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

import resource
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manifests.records import FilesError
from pipeline.cli_bucket import bucket_app
from pipeline.cli_cases import cases_app
from pipeline.cli_download import download_app
from pipeline.cli_evidence import evidence_app
from pipeline.cli_handover import handover_app
from pipeline.cli_keys import keys_app
from pipeline.cli_lifetime import lifetime_app
from pipeline.cli_lists import lists_app
from pipeline.cli_models import models_app
from pipeline.cli_nightly import nightly_app
from pipeline.cli_policy import policy_app
from pipeline.cli_reading import Run, print_stamps, reading_app
from pipeline.cli_report import report_app
from pipeline.cli_screen import screen_app
from pipeline.errors import ConfigError, ExitCode, ScrubError

if TYPE_CHECKING:
    from pipeline.executors.protocol import WorkerOptions
    from pipeline.runs import Examined, Part
    from pipeline.setup import Setup
    from pipeline.unsealing import Opening

app = typer.Typer(
    name="shardscrub",
    help="Scrub image-text training sets before anyone trains on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Every mistake on the command line; typer keeps the class itself private.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration (TOML).")]
Workers = Annotated[int | None, typer.Option(help="Shards at a time; 0 is one a core, or one a GPU.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Serial = Annotated[bool, typer.Option("--serial", help="One shard after the other, nothing side by side.")]
Profiled = Annotated[bool, typer.Option("--profile", help="Say where the time went.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write scrub.toml and policy.toml.")],
) -> None:
    """Write a commented configuration and the default policy to edit."""
    from pipeline.starting import write_starter

    for path in write_starter(folder):
        typer.echo(f"wrote {path}")
    typer.echo(f"edit them, then: shardscrub run {folder / 'scrub.toml'} --dry-run")


@app.command()
def run(
    config: ConfigFile,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; write nothing.")] = False,
    workers: Workers = None,
    device: Device = "auto",
    serial: Serial = False,
    profile: Profiled = False,
) -> None:
    """Examine every shard, then settle them all into a release."""
    from pipeline.prepare import prepare

    setup, options, count = prepare(config, 1 if serial else workers, device, writes=not dry_run)
    if dry_run:
        from pipeline.dry_run import describe

        for line in describe(setup, workers=count):
            typer.echo(line)
        return
    examined = _examine(setup, options, count, _part("1/1"), profile=profile)
    _settle(setup, options, count, examined)


@app.command()
def examine(
    config: ConfigFile,
    *,
    part: Annotated[str, typer.Option(help="Share i of n of the shards, written i/n, for array jobs.")] = "1/1",
    workers: Workers = None,
    device: Device = "auto",
    serial: Serial = False,
    profile: Profiled = False,
) -> None:
    """Examine shards: digests, hashes, embeddings, scores. Leaves deciding a release to settle."""
    from pipeline.prepare import prepare

    setup, options, count = prepare(config, 1 if serial else workers, device)
    _examine(setup, options, count, _part(part), profile=profile)


@app.command()
def settle(
    config: ConfigFile,
    *,
    policy: Annotated[str, typer.Option(help="Another policy: a .toml file or a profile.")] = "",
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="ID[@VERSION] of a list to use, not the configured ones.")
    ] = None,
    shards: Annotated[bool | None, typer.Option(help="Write tars of kept samples, or none.")] = None,
    identity: Annotated[Path | None, typer.Option(help="Your age key: decide withheld samples anew.")] = None,
    by: Annotated[str, typer.Option(help="Who opens them.")] = "",
    why: Annotated[str, typer.Option(help="Why.")] = "",
    access_record: Annotated[Path | None, typer.Option(help="The record of openings, which gets a line.")] = None,
    workers: Workers = None,
    device: Device = "auto",
) -> None:
    """Decide all examined shards from stored features and write a release."""
    from pipeline.prepare import prepare
    from pipeline.unsealing import Opening

    named = tuple(lists or ())
    if (identity is None) != (access_record is None):
        raise ConfigError("--identity and --access-record: expected both or neither")
    opening = Opening(identity, by, why, access_record) if identity and access_record else None
    if opening is not None:
        opening.read_key()
    setup, options, count = prepare(
        config, workers, device, policy=policy, lists=named, shards=shards, from_stored=True,
        readable=opening is not None or None,
    )  # fmt: skip
    if not setup.sources:
        typer.echo("the configured input is not there; settling what was examined")
    _settle(setup, options, count, None, opening)


@app.command()
def retry(
    collection: Run,
    *,
    reasons: Annotated[str, typer.Option(help="Fault reasons, with commas: wall_limit,decoder_crash.")],
    workers: Workers = None,
    device: Device = "auto",
) -> None:
    """Examine quarantined samples again, then settle."""
    from manifests.records import FaultKind
    from pipeline.prepare import prepare, require_examined
    from pipeline.runs import retry as retry_all
    from pipeline.status import closed_collection, noted_config

    wanted = [text.removeprefix("fault:").strip() for text in reasons.split(",")]
    for text in wanted:
        if text not in set(FaultKind):
            raise ConfigError(f"--reasons: {text!r} is no fault reason; they are {', '.join(FaultKind)}")
    setup, options, count = prepare(noted_config(closed_collection(collection)), workers, device)
    examined = retry_all(setup, options, workers=count, reasons=wanted)
    require_examined(examined)
    typer.echo(f"examined {examined.done} samples again")
    _settle(setup, options, count, examined)


def _part(text: str) -> Part:
    from pipeline.runs import Part

    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise ConfigError(f"--part: expected i/n with 1 <= i <= n, found {text!r}")
    return Part(int(first), int(second))


def _examine(setup: Setup, options: WorkerOptions, workers: int, part: Part, *, profile: bool) -> Examined:
    from pipeline.prepare import require_examined
    from pipeline.runs import examine_all

    typer.echo(f"examine plan {setup.plan.examine_digest[:12]}, decide plan {setup.plan.decide_digest[:12]}")
    examined = examine_all(setup, options, workers=workers, part=part)
    require_examined(examined)
    typer.echo(f"examined {examined.done} shards; {examined.skipped} were examined before")
    if examined.profile is not None:
        for line in examined.profile.summary(setup.config.run.price_per_hour):
            typer.echo(f"examine: {line}", err=True)  # as progress: times are no result
        for line in examined.profile.lines() if profile else ():
            typer.echo(f"examine: {line}", err=True)
    return examined


def _settle(
    setup: Setup, options: WorkerOptions, workers: int, examined: Examined | None, opening: Opening | None = None
) -> None:
    from pipeline.prepare import require_released
    from pipeline.settles import settle_all
    from pipeline.status import totals

    _require_collection(setup)
    close, before = settle_all(setup, options, workers=workers, opening=opening)
    if before:
        typer.echo(f"nothing to do: settle {close.number:04d} stands for this input, these lists and this policy")
    print_stamps(close.stamps)
    for line in totals(close):
        typer.echo(line)
    require_released(close)
    typer.echo(f"release   {setup.collection.release(close.number)}")


def _require_collection(setup: Setup) -> None:
    if not setup.collection.examine_plan.is_file():
        raise ConfigError(f"{setup.collection.root}: nothing is examined here yet; run `shardscrub examine` first")


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    typer.echo(f"warning: {message}", err=True)


app.add_typer(reading_app)
app.add_typer(bucket_app)
app.add_typer(screen_app)
app.add_typer(download_app)
app.add_typer(nightly_app)
app.add_typer(handover_app)
app.add_typer(lifetime_app)
app.add_typer(report_app)
app.add_typer(evidence_app)
app.add_typer(cases_app, name="cases")
app.add_typer(keys_app, name="keys")
app.add_typer(lists_app, name="lists")
app.add_typer(models_app, name="models")
app.add_typer(policy_app, name="policy")


def main() -> None:
    """Run the command and exit with its code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels
    warnings.showwarning = _show_warning  # type: ignore[assignment] # two unused parameters are folded into one
    try:
        # typer makes the interrupt of a command its return value.
        code = ExitCode(app(standalone_mode=False, prog_name="shardscrub") or ExitCode.FINISHED)
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
    except ScrubError as error:
        typer.echo(f"error: {error}", err=True)
        code = error.exit_code
    except FilesError as error:
        typer.echo(f"error: {error}", err=True)
        code = ExitCode.FAILED
    except ModuleNotFoundError as error:
        needs = f"this command needs {error.name}, which a plain install leaves out"
        typer.echo(f"error: {needs}: pip install 'shardscrub[run]'", err=True)
        code = ExitCode.USAGE
    except _UsageError as error:
        error.show()  # type: ignore[attr-defined] # as above
        code = ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted; run again to go on from here", err=True)
        code = ExitCode.INTERRUPTED
    except OSError as error:
        place = f": {error.filename}" if isinstance(error.filename, str) else ""
        typer.echo(f"error: {error.strerror or type(error).__name__}{place}", err=True)
        code = ExitCode.FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
