"""Hashes, heads and list formats that other distributions bring, by their entry points (`docs/plugins.md`).

Owns finding and loading them, and saying whose they are. Leaves what one must keep to its registry.

- A plug-in is looked for only where a name is none of ours, and one that bears a name of ours is refused.
- Its distribution and version stand in the plan: they change the output.
- Whatever goes wrong in it is an error that names the distribution and the entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from classifiers.blocklists.algorithms import ListError
from classifiers.weights import WeightsError

CLASSIFIERS = "shardscrub.classifiers"
HASHES = "shardscrub.hashes"
IMPORTERS = "shardscrub.importers"
_ASKED_BY = {CLASSIFIERS: "[[head]] kind", HASHES: "[hashes] kinds", IMPORTERS: "--format"}
_Made = TypeVar("_Made")


class PluginError(ListError, WeightsError):
    """A name is neither ours nor a plug-in's, or a plug-in is not usable: an error of whatever it should bring."""


def make_plugin(group: str, name: str, ours: Collection[str], build: Callable[[Any], _Made]) -> _Made:
    """Return what `build` makes of the object that an entry point names.

    Args:
        group: the entry point's.
        name: its name, none of `ours`.
        ours: the names that nothing replaces.
        build: makes and checks; it may raise anything, as what it is given is not ours.

    Raises:
        PluginError: there is no such plug-in or two, a name of ours is claimed, or it cannot be imported or built.
    """
    entry = _find(group, name, ours)
    try:
        return build(entry.load())
    except Exception as error:
        text = f"{_describe(entry)}: {type(error).__name__}: {error}"
        raise PluginError(f"{text}; mend what it says, or else ask who made the plug-in") from error


def distributions_of(group: str, names: Collection[str], ours: Collection[str]) -> set[str]:
    """Return `name==version` of what brings each of `names` that is none of `ours`.

    Raises:
        PluginError: one is not there, or a name of ours is claimed.
    """
    return {_distribution(_find(group, name, ours)) for name in names if name not in ours}


def _find(group: str, name: str, ours: Collection[str]) -> EntryPoint:
    found = entry_points(group=group)
    for entry in found:
        if entry.name in ours:
            raise PluginError(f"{_describe(entry)}: the name is shardscrub's own, never replaced; uninstall it")
    named = [entry for entry in found if entry.name == name]
    if len(named) > 1:
        raise PluginError(f"{' and '.join(map(_describe, named))} bear one name; uninstall all but one")
    if not named:
        known = [*ours, *sorted(found.names)]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise PluginError(f"{_ASKED_BY[group]}: {name!r} is unknown; {hint}")
    return named[0]


def _distribution(entry: EntryPoint) -> str:
    assert entry.dist is not None
    return f"{entry.dist.name}=={entry.dist.version}"


def _describe(entry: EntryPoint) -> str:
    return f"plug-in {entry.name!r} of {_distribution(entry)} ({entry.group}: {entry.value})"
