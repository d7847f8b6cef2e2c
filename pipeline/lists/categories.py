"""What the native categories of a list lead to: the user's category map, and the entries that it leaves.

- Nothing has a default: a category that occurs and is not mapped is an error.
- An entry in several categories has the strictest effect; one that is only ignored is not stored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import ListError, Rows
from classifiers.blocklists.entries import NO_CATEGORY, Collected
from classifiers.blocklists.stored import EFFECTS, Effect, strictest
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Matched:
    """The entries of an import that are to be matched, and counts of all of its entries by effect and algorithm."""

    rows: dict[str, Rows]
    masks: dict[str, NDArray[np.uint64]]
    by_effect: dict[str, dict[str, int]]


def known_effects(category_map: Path | None, effect: str) -> dict[str, Effect]:
    """Return what the user says of categories.

    Args:
        category_map: TOML with a table `[effects]`, native category = "case", "remove" or "ignore"; None where
            there is none.
        effect: "case" or "remove", for a list without categories; "" where there is a map.

    Raises:
        ConfigError: there is neither or both, or one of them is not usable.
    """
    if (category_map is None) == (not effect):
        raise ConfigError(
            "say in one way what a match leads to: --categories FILE maps native categories to effects; for a list "
            "without categories, --effect case or --effect remove"
        )
    if category_map is None:
        if effect not in ("case", "remove"):
            raise ConfigError(f"--effect: expected case or remove, found {effect!r}")
        return {NO_CATEGORY: effect}  # type: ignore[dict-item] # one of two, as was just seen
    try:
        raw: dict[str, Any] = tomllib.loads(category_map.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{category_map}: cannot be read as TOML: {error}") from None
    effects = raw.get("effects")
    if set(raw) != {"effects"} or not isinstance(effects, dict):
        raise ConfigError(f"{category_map}: expected the table [effects] and nothing else")
    for name, value in effects.items():
        if value not in EFFECTS:
            raise ConfigError(f"{category_map}: {name!r}: expected {' | '.join(EFFECTS)}, found {value!r}")
    return effects


def count_categories(collected: Collected) -> dict[str, dict[str, int]]:
    """Count distinct entries by category and algorithm; one with several categories counts in each."""
    counts: dict[str, dict[str, int]] = {name: {} for name in collected.categories}
    for algorithm, mask in collected.masks.items():
        for bit, name in enumerate(collected.categories):
            if count := int(np.count_nonzero(mask & np.uint64(1 << bit))):
                counts[name][algorithm] = count
    return counts


def effects_of(collected: Collected, known: Mapping[str, Effect]) -> dict[str, Effect]:
    """Return the effect of every category that occurs in an import.

    Raises:
        ConfigError: one of them has none.
    """
    missing = [name for name in collected.categories if name not in known]
    if missing:
        counts = count_categories(collected)
        told = ", ".join(f"{name!r} ({sum(counts[name].values())} entries)" for name in missing)
        raise ConfigError(
            f"no effect is given for these categories of the list: {told}; "
            f"map each to {' | '.join(EFFECTS)} with --categories FILE"
        )
    return {name: known[name] for name in collected.categories}


def keep_matched(collected: Collected, effects: Mapping[str, Effect]) -> Matched:
    """Leave out the entries that are only ignored, and count.

    Raises:
        ListError: nothing is left to match.
    """
    matched = Matched({}, {}, {name: {} for name in EFFECTS})
    for algorithm, rows in collected.rows.items():
        masks = collected.masks[algorithm]
        effect = strictest(masks, collected.categories, effects)
        for place in np.unique(effect).tolist():
            matched.by_effect[EFFECTS[place]][algorithm] = int(np.count_nonzero(effect == place))
        kept = effect != EFFECTS.index("ignore")
        if kept.any():
            whole = kept.all()  # then there is nothing to copy
            matched.rows[algorithm] = rows if whole else rows[kept]
            matched.masks[algorithm] = masks if whole else masks[kept]
    if not matched.rows:
        ignored = sum(matched.by_effect["ignore"].values())
        raise ListError(f"nothing to match is left: {ignored} entries were read, all of them in ignored categories")
    return matched
