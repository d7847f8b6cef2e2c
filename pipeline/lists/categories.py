"""What the native categories of a list lead to: the user's category map, and the entries that it leaves.

- Nothing has a default: a category that occurs and is not mapped is an error.
- An entry in several categories has the strictest effect; one that is only ignored is not stored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import ListError, Rows
from classifiers.blocklists.entries import NO_CATEGORY, Collected
from classifiers.blocklists.stored import EFFECTS, Effect, strictest
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Matched:
    """The entries of an import that are to be matched, and counts of all of its entries by algorithm."""

    rows: Mapping[str, Rows]
    masks: Mapping[str, NDArray[np.uint64]]
    by_category: dict[str, dict[str, int]]
    by_effect: dict[str, dict[str, int]]


def read_map(path: Path) -> dict[str, Effect]:
    """Read a category map: TOML with a table `[effects]`, native category = "case", "remove" or "ignore".

    Raises:
        ConfigError: it cannot be read, or is no such map.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    effects = raw.get("effects")
    if set(raw) != {"effects"} or not isinstance(effects, dict):
        raise ConfigError(f"{path}: expected the table [effects] and nothing else")
    for name, effect in effects.items():
        if effect not in EFFECTS:
            raise ConfigError(f"{path}: [effects] {name!r}: expected {' | '.join(EFFECTS)}, found {effect!r}")
    return effects


def known_effects(category_map: Path | None, effect: str) -> dict[str, Effect]:
    """Return what the user says of categories.

    Args:
        category_map: a file for `read_map`; None where there is none.
        effect: "case" or "remove", for a list without categories; "" where there is a map.

    Raises:
        ConfigError: there is neither or both, or one of them is not usable.
    """
    if (category_map is None) == (not effect):
        raise ConfigError(
            "say in one way what a match leads to: --categories FILE maps native categories to effects; for a list "
            "without categories, --effect case or --effect remove"
        )
    if category_map is not None:
        return read_map(category_map)
    if effect == "case":
        return {NO_CATEGORY: "case"}
    if effect == "remove":
        return {NO_CATEGORY: "remove"}
    raise ConfigError(f"--effect: expected case or remove, found {effect!r}")


def effects_of(collected: Collected, known: Mapping[str, Effect]) -> dict[str, Effect]:
    """Return the effect of every category that occurs in an import.

    Raises:
        ConfigError: one of them has none.
    """
    missing = {name: 0 for name in collected.categories if name not in known}
    for name in missing:
        bit = np.uint64(1 << collected.categories.index(name))
        missing[name] = sum(int(((mask & bit) != 0).sum()) for mask in collected.masks.values())
    if missing:
        counts = ", ".join(f"{name!r} ({count} entries)" for name, count in missing.items())
        raise ConfigError(
            f"no effect is given for these categories of the list: {counts}; "
            f"map each to {' | '.join(EFFECTS)} with --categories FILE"
        )
    return {name: known[name] for name in collected.categories}


def keep_matched(collected: Collected, effects: Mapping[str, Effect]) -> Matched:
    """Leave out the entries that are only ignored, and count.

    Raises:
        ListError: nothing is left to match.
    """
    rows: dict[str, Rows] = {}
    masks: dict[str, NDArray[np.uint64]] = {}
    by_category: dict[str, dict[str, int]] = {name: {} for name in collected.categories}
    by_effect: dict[str, dict[str, int]] = {name: {} for name in EFFECTS}
    for algorithm, values in collected.rows.items():
        mask = collected.masks[algorithm]
        for bit, name in enumerate(collected.categories):
            count = int(((mask & np.uint64(1 << bit)) != 0).sum())
            by_category[name] |= {algorithm: count} if count else {}
        effect = strictest(mask, collected.categories, effects)
        for position, count in enumerate(np.bincount(effect, minlength=len(EFFECTS)).tolist()):
            by_effect[EFFECTS[position]] |= {algorithm: count} if count else {}
        kept = effect != EFFECTS.index("ignore")
        if kept.all():  # nothing to leave out, and nothing to copy
            rows[algorithm], masks[algorithm] = values, mask
        elif kept.any():
            rows[algorithm], masks[algorithm] = values[kept], mask[kept]
    if not rows:
        ignored = sum(by_effect["ignore"].values())
        raise ListError(f"nothing to match is left: {ignored} entries were read, all of them in ignored categories")
    return Matched(rows, masks, by_category, by_effect)
