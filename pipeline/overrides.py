"""Override records: two people say, with a reason and an end, that a near hit or a model's score is wrong.

Owns reading them and what they may cancel. Leaves what follows to the policy: every other rule stands.

- A near hit is cancelled by entry: list, digest of its set, algorithm, number. An exact digest hit never is.
- A model's rule is cancelled for one sample. A rule that reads a list signal cannot be cancelled.
- A record past its end refuses the run: what a run decides must not depend on the day it happens on.
- A sample that is withheld stays withheld.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import CODE_WIDTHS
from classifiers.blocklists.lists import HashList
from pipeline.errors import ConfigError
from pipeline.policy import Policy
from pipeline.policy_language import comparisons

_SIGNED = ("by", "reason", "expires")
_NEAR_HIT = ("list", "set_digest", "algorithm", "entry")
_RULE = ("sample", "rule")
_SHORTEST_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Overrides:
    """The records in force. near: entries by list id, algorithm, number. rules: rule ids by sample (shard/key).

    record: all of them as plain values, for the plan.
    """

    near: frozenset[tuple[str, str, int]]
    rules: Mapping[str, frozenset[str]]
    record: tuple[tuple[str, ...], ...]

    def cancelled(
        self, shards: Sequence[str | None], keys: Sequence[str | None], policy: Policy
    ) -> NDArray[np.bool_] | None:
        """Return bool [rows, rules]: which rules are cancelled for which rows; None where none is."""
        if not self.rules:
            return None
        found = np.zeros((len(keys), len(policy.rules)), np.bool_)
        for row, (shard, key) in enumerate(zip(shards, keys, strict=True)):
            named = self.rules.get(f"{shard}/{key}", frozenset())
            for place, rule in enumerate(policy.rules):
                found[row, place] = rule.id in named
        return found


NO_OVERRIDES = Overrides(frozenset(), MappingProxyType({}), ())


def read_overrides(path: Path | None, lists: Sequence[HashList], policy: Policy, *, today: date) -> Overrides:
    """Read the file of override records; None stands for no file.

    Raises:
        ConfigError: the file is not usable, or a record names what is not there, may not be cancelled, is signed by
            fewer than two people, or is past its end.
    """
    if path is None:
        return NO_OVERRIDES
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"[policy] overrides {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigError(f"[policy] overrides {path}: expected TOML with tables [[override]]") from None
    items = raw.pop("override", None)
    if raw or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ConfigError(f"{path}: expected tables [[override]] and nothing else")
    near: set[tuple[str, str, int]] = set()
    rules: dict[str, frozenset[str]] = {}
    for number, item in enumerate(items, start=1):
        where = f"{path}: override {number}"
        _check_signed(item, where, today)
        if item.keys() == {*_SIGNED, *_NEAR_HIT}:
            near.add(_near_hit(item, where, lists))
        elif item.keys() == {*_SIGNED, *_RULE}:
            sample, rule = _rule(item, where, policy)
            rules[sample] = rules.get(sample, frozenset()) | {rule}
        else:
            raise ConfigError(
                f"{where}: expected the keys {', '.join(_SIGNED)} and either {', '.join(_NEAR_HIT)} or "
                f"{', '.join(_RULE)}; found {', '.join(sorted(item))}"
            )
    record = tuple(tuple(f"{key}={item[key]}" for key in sorted(item)) for item in items)
    return Overrides(frozenset(near), MappingProxyType(rules), record)


def _check_signed(item: Mapping[str, Any], where: str, today: date) -> None:
    by = item.get("by")
    names = {name.strip().casefold() for name in by if isinstance(name, str)} if isinstance(by, list) else set()
    if len(names - {""}) < 2:  # two people, by design
        raise ConfigError(f"{where}: by: expected the names of two different people")
    if not isinstance(item.get("reason"), str) or not item["reason"].strip():
        raise ConfigError(f"{where}: reason: expected a text")
    expires = item.get("expires")
    if type(expires) is not date:
        raise ConfigError(f"{where}: expires: expected a date, written 2027-01-31")
    if expires < today:
        raise ConfigError(f"{where}: expired on {expires}; take it out, or have it signed anew")


def _near_hit(item: Mapping[str, Any], where: str, lists: Sequence[HashList]) -> tuple[str, str, int]:
    feeds = [one for one in lists if one.list_id == item["list"]]
    if not feeds:
        raise ConfigError(f"{where}: list: expected the id of a list of this run, found {item['list']!r}")
    digest = item["set_digest"]
    if not isinstance(digest, str) or len(digest) < _SHORTEST_DIGEST or not feeds[0].set_digest.startswith(digest):
        raise ConfigError(
            f"{where}: set_digest: expected at least {_SHORTEST_DIGEST} digits of the set digest of the list as it "
            "is now; numbers of entries mean nothing in another version"
        )
    algorithm, entry = item["algorithm"], item["entry"]
    if algorithm not in tuple(CODE_WIDTHS):
        raise ConfigError(
            f"{where}: algorithm: expected one of {', '.join(CODE_WIDTHS)}; a hit on a digest is never cancelled"
        )
    stored = max((one.columns[algorithm].stored for one in feeds if algorithm in one.columns), default=0)
    if type(entry) is not int or not 0 <= entry < stored:
        raise ConfigError(
            f"{where}: entry: expected the number of a {algorithm} entry, from 0 and below {stored}, as many as "
            "the list has"
        )
    return item["list"], algorithm, entry


def _rule(item: Mapping[str, Any], where: str, policy: Policy) -> tuple[str, str]:
    rule = next((one for one in policy.rules if one.id == item["rule"]), None)
    if rule is None:
        raise ConfigError(f"{where}: rule: expected the id of a rule of policy {policy.name!r}")
    read = {part for one in comparisons(rule.when) for part in policy.alias_of(one.signal).parts}
    if any(name.startswith("list.") for name in read):
        raise ConfigError(
            f"{where}: rule {rule.id!r} reads a list; an exact hit is never cancelled, and a near one by its entry"
        )
    if not isinstance(item["sample"], str) or "/" not in item["sample"]:
        raise ConfigError(f"{where}: sample: expected shard/key")
    return item["sample"], rule.id
