"""The commands of the list store: import, show, check, remove, diff, withdraw, and its key.

As `cli.py`: parse, call, print. They know counts of entries, and never an entry.
"""
# ruff: noqa: PLC0415 - imports inside commands keep the others light

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli_cases import keys_new
from pipeline.cli_reading import print_stamps
from pipeline.errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from pipeline.lists.store import ListStore

lists_app = typer.Typer(help="Hash lists: import, look after and destroy them.", no_args_is_help=True)
keys_app = typer.Typer(help="The key of a list store.", no_args_is_help=True)
lists_app.add_typer(keys_app, name="keys")
keys_app.command("new", help="Make the key of a list store; keep it outside of the store.")(keys_new)

NewStore = Annotated[Path, typer.Option("--store", help="The folder of the list store.", file_okay=False)]
Store = Annotated[Path, typer.Option("--store", help="The folder of the list store.", file_okay=False, exists=True)]
Key = Annotated[Path | None, typer.Option("--key", help="The key file of the store, outside of it.")]
Plain = Annotated[bool, typer.Option("--unsafe-plain-lists", help="Keep or read entries without encryption.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be destroyed.")]
ListId = Annotated[str, typer.Argument(metavar="ID", help="The list.")]
SomeList = Annotated[str | None, typer.Argument(metavar="ID", help="One list; without it, all of them.")]


@lists_app.command("import")
def import_command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files and folders of one list.", exists=True)
    ],
    *,
    store: NewStore,
    key: Key = None,
    list_id: Annotated[str, typer.Option("--id", help="The list; a known one gets its next version.")],
    purpose: Annotated[
        str, typer.Option(help="csam, exploitative, ncii, terrorism, opt-out, erasure or internal.")
    ],
    format_name: Annotated[str, typer.Option("--format", help="The format; auto looks at the files.")] = "auto",
    algorithm: Annotated[str, typer.Option(help="Of the values, where the files do not say.")] = "",
    categories: Annotated[Path | None, typer.Option(help="TOML: native category = case, remove or ignore.")] = None,
    effect: Annotated[str, typer.Option(help="case or remove, for a list without categories.")] = "",
    received_from: Annotated[str, typer.Option(help="Who gave the list.")] = "",
    agreement: Annotated[str, typer.Option(help="Under which agreement.")] = "",
    permitted_use: Annotated[list[str] | None, typer.Option(help="A use that is permitted; repeat it.")] = None,
    territory: Annotated[str, typer.Option(help="Where it may be used.")] = "",
    expires: Annotated[str | None, typer.Option(help="The last day on which it may be used, YYYY-MM-DD.")] = None,
    contact: Annotated[str, typer.Option(help="Whom to ask.")] = "",
    stated_count: Annotated[int | None, typer.Option(help="Records that its owner says it has.", min=0)] = None,
    tolerance: Annotated[float, typer.Option(help="Share of the records that may be missing.", min=0, max=1)] = 0.0,
    unsafe_plain_lists: Plain = False,
) -> None:
    """Import a list as a new version; prints counts."""
    with open_store(store, key, plain=unsafe_plain_lists) as opened:
        from pipeline.lists.imports import import_list
        from pipeline.lists.manifest import About
        from pipeline.lists.report import manifest_lines, stamps_of

        about = About(
            purpose=purpose,
            received_from=received_from,
            agreement=agreement,
            permitted_uses=tuple(permitted_use or ()),
            territory=territory,
            expires=expires,
            contact=contact,
        )
        done = import_list(
            opened,
            list_id,
            paths,
            about,
            format_name=format_name,
            algorithm=algorithm,
            category_map=categories,
            effect=effect,
            stated_count=stated_count,
            tolerance=tolerance,
        )
        print_stamps(stamps_of([done.manifest]))
        _print(manifest_lines(done.manifest, done.places))


@lists_app.command()
def show(list_id: SomeList = None, *, store: Store) -> None:
    """Print the lists, or all versions of one: counts, dates, where from."""
    with open_store(store, None) as opened:
        from pipeline.lists.report import shown, stamps_of

        manifests, lines = shown(opened, list_id)
        print_stamps(stamps_of(manifests))
        _print(lines)


@lists_app.command()
def check(list_id: SomeList = None, *, store: Store, key: Key = None, unsafe_plain_lists: Plain = False) -> None:
    """Check every version on disk: digests, counts, modes, leftovers, expiry."""
    with open_store(store, key, plain=unsafe_plain_lists) as opened:
        from pipeline.lists.check import check_store

        notes, problems = check_store(opened, list_id)
        _print(notes)
        if problems:
            raise VerificationError("\n".join(problems))
        typer.echo("the lists are as they were imported")


@lists_app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A version, id@version; an id is its newest.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    *,
    store: Store,
    key: Key = None,
    unsafe_plain_lists: Plain = False,
) -> None:
    """Count the entries that only one of two versions has, and those of both."""
    with open_store(store, key, plain=unsafe_plain_lists) as opened:
        from pipeline.lists.report import difference_lines, split_name

        (a, entries), (b, others) = (opened.read(*split_name(name)) for name in (first, second))
        typer.echo(f"first {a.name}, second {b.name}")
        _print(difference_lines(entries, others))


@lists_app.command()
def remove(
    list_id: ListId,
    *,
    store: Store,
    version: Annotated[int, typer.Option(help="The version; its number is not used again.", min=1)],
    yes: Yes = False,
) -> None:
    """Destroy one version of a list."""
    with open_store(store, None) as opened:
        from pipeline.lists.report import destroyed_lines

        _destroy(destroyed_lines(opened, list_id, version), yes)
        opened.remove(list_id, version)
        typer.echo(f"removed {list_id}@{version}")


@lists_app.command()
def withdraw(
    list_id: ListId,
    *,
    store: Store,
    why: Annotated[str, typer.Option(help="Kept with the date and the digests of the sets.")],
    yes: Yes = False,
) -> None:
    """Destroy all versions of a list; its id is not used again."""
    with open_store(store, None) as opened:
        from pipeline.lists.report import destroyed_lines

        _destroy(destroyed_lines(opened, list_id), yes)
        done = opened.withdraw(list_id, why)
        typer.echo(f"withdrawn {list_id}, {len(done.versions)} versions, {done.withdrawn_at}: {done.why}")


@contextmanager
def open_store(store: Path, key: Path | None, *, plain: bool = False) -> Iterator[ListStore]:
    """Open the store, and report what is wrong with a list as any other unusable thing is reported."""
    from classifiers.blocklists.algorithms import ListError
    from pipeline.lists.store import ListStore
    from pipeline.resolve import UnsafeWarning

    if plain:
        warnings.warn("unsafe_plain_lists: list entries lie on the disk unencrypted", UnsafeWarning, stacklevel=3)
    try:
        yield ListStore(store, key, plain)
    except ListError as error:
        raise ConfigError(str(error)) from None


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _destroy(lines: list[str], yes: bool) -> None:
    _print(lines)
    if not yes:
        raise ConfigError("nothing was destroyed; with --yes, all of the above is")
