"""The words of a policy file: its tables and keys, the signals it may read, the aliases it gives them.

Owns the checks of names and of the shape of TOML values. Leaves rules and promises to `pipeline.policy`.

- A name that is not known is refused, and the nearest known one is told.
- A comparison stands on the side on which its signal is harmful, and no list distance is compared with more
  than the lists are searched for.
- A list signal that is required must have a list behind it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from pipeline.policy_decide import Alias, Around
from pipeline.policy_language import (
    Comparison,
    Expression,
    Op,
    PolicyError,
    comparisons,
    explain_expression,
    is_signal_name,
    parse_expression,
    words,
)

MAX_MARGIN = 1.0  # scores lie between 0 and 1

# Least, largest and type of each key of [around]. Below a cosine of 0.5 everything is near everything.
_AROUND: dict[str, tuple[float, float, type]] = {
    "near_copies": (0, 31, int),
    "neighbours": (0.5, 1.0, float),
    "max_neighbours": (1, 100_000, int),
}
_SIDES: dict[str, tuple[Op, Op]] = {"high": (">=", ">"), "low": ("<=", "<")}


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """A signal that a policy may read.

    name: as policies name it. worse: which way harm lies. full_names: with digests, what a threshold is bound
    to. radius: for a list distance, how far the lists are searched; None for others. searchable: False where
    the signal is of a list purpose for which no list with fitting entries is configured. makes_case: False where
    no SEAL rule may read it.
    """

    name: str
    worse: Literal["high", "low"]
    full_names: tuple[str, ...]
    radius: int | None
    searchable: bool
    makes_case: bool = True


@dataclass(frozen=True, slots=True)
class Names:
    """What the expressions of one policy may name, and how."""

    specs: Mapping[str, SignalSpec]
    aliases: Mapping[str, Alias]
    bars: Mapping[str, float]

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the signals of which a known name is the maximum."""
        return self.aliases[name].parts if name in self.aliases else (name,)

    def expression(self, text: str, where: str, *, seals: bool = False) -> Expression:
        """Parse an expression, and refuse one that names or compares what it must not; `seals`: of a SEAL rule."""
        expression = parse_expression(text, where=where, bars=self.bars)
        for comparison in comparisons(expression):
            self._check(comparison, where)
            if seals and not all(self.specs[part].makes_case for part in self.parts(comparison.signal)):
                raise PolicyError(
                    f"{where}: {comparison.signal!r} also says that a URL or domain is listed, which names a place "
                    "and no content, and so makes no case; give the rule the action REMOVE, or take those lists out"
                )
        return expression

    def check_bars_used(self, texts: Sequence[str], where: str) -> None:
        """Refuse a named threshold that no rule or promise names: a misspelt one would change nothing."""
        used = set().union(*(words(text) for text in texts))
        for name in self.bars:
            if name not in used:
                raise PolicyError(
                    f"{where} {name}: no rule and no promise names it; correct the name or take it out"
                )

    def _check(self, comparison: Comparison, where: str) -> None:
        name, op, bar = comparison.signal, comparison.op, comparison.bar
        pick(name, [*self.specs, *self.aliases], where, "a signal or an alias")
        spec = self.specs[self.parts(name)[0]]
        if op not in _SIDES[spec.worse]:
            raise PolicyError(
                f"{where}: a {'higher' if spec.worse == 'high' else 'lower'} {name!r} is more harm, so expected "
                f"{' or '.join(_SIDES[spec.worse])} after it, found {op!r}; as it stands a worse sample would "
                f"get away"
            )
        if spec.radius is not None and bar > (spec.radius if op == "<=" else spec.radius + 1):
            raise PolicyError(
                f"{where}: {name!r} is searched up to a distance of {spec.radius}, found "
                f"'{explain_expression(comparison)}', which could miss matches; lower the bar to "
                f"'<= {spec.radius}' or search further"
            )

    def check_speaks(self, name: str, where: str) -> None:
        """Refuse a required name that is unknown, or that no configured list can answer for."""
        pick(name, [*self.specs, *self.aliases], where, "a signal or an alias")
        for part in self.parts(name):
            if not self.specs[part].searchable:
                purpose, _, kind = part.removeprefix("list.").rpartition(".")
                fitting = {"exact": "file digests", "pdq_distance": "PDQ hashes"}.get(kind, "fitting entries")
                raise PolicyError(
                    f"{where}: {part!r} can never speak, for no list of the purpose {purpose!r} with {fitting} "
                    f"is configured; add such a list to the run"
                )


def read_aliases(value: object, where: str, specs: Mapping[str, SignalSpec]) -> dict[str, Alias]:
    """Read the [signal.NAME] tables: of which signals each is the maximum, and its margin."""
    aliases = {}
    for name, one in table(value, where, allowed=None).items():
        here = f"{where[:-1]}.{name}]"
        keys = table(one, here, needed=("from",), allowed=("margin",))
        if name in specs or not is_signal_name(name):
            raise PolicyError(
                f"{here}: expected a name that rules can use and that is no known signal's; rename it"
            )
        parts = tuple(_read_part(part, f"{here} from", specs) for part in strings(keys["from"], f"{here} from"))
        if len(set(parts)) < len(parts):
            raise PolicyError(f"{here} from: one signal stands there twice; name it once")
        margin = finite(keys.get("margin", 0.0), f"{here} margin")
        if not 0 <= margin <= MAX_MARGIN:
            raise PolicyError(
                f"{here} margin: expected a number from 0 to {MAX_MARGIN}, found {margin!r}; give the distance "
                f"from a bar inside which a score says nothing"
            )
        aliases[name] = Alias(name, parts, margin)
    return aliases


def read_bars(
    value: object, where: str, specs: Mapping[str, SignalSpec], aliases: Mapping[str, Alias]
) -> dict[str, float]:
    """Read the [threshold] table: names that may stand for a number in rules and promises."""
    bars = {name: finite(bar, f"{where} {name}") for name, bar in table(value, where, allowed=None).items()}
    for name in bars:
        if name in specs or name in aliases or not is_signal_name(name):
            raise PolicyError(
                f"{where} {name}: expected a name that rules can use and that is no signal's; rename it"
            )
    return bars


def read_around(value: object, where: str) -> Around:
    """Read the [around] table: how far a settle looks around exact list hits."""
    keys = table(value, where, allowed=_AROUND)
    for name, (low, high, kind) in _AROUND.items():
        found = keys.get(name, low)
        if type(found) is not kind or not low <= found <= high:  # type: ignore[operator] # it is a number here
            raise PolicyError(f"{where} {name}: expected a {kind.__name__} from {low} to {high}, found {found!r}")
    return Around(**keys)  # type: ignore[arg-type] # checked above


def _read_part(text: str, where: str, specs: Mapping[str, SignalSpec]) -> str:
    """Read `name@version` or `name@version#<first digits of the digest>`, and return the name."""
    name, pinned, digits = text.partition("#")
    pick(name, list(specs), where, "a known signal")
    if specs[name].worse != "high":
        raise PolicyError(
            f"{where}: an alias is the maximum of its parts, but a lower {name!r} is more harm; compare it in a "
            f"rule of its own"
        )
    digests = [full.partition("#")[2] for full in specs[name].full_names if full.partition("#")[0] == name]
    if pinned and not (digits and digests and all(digest.startswith(digits) for digest in digests)):
        raise PolicyError(
            f"{where}: expected the signal {text!r}, found {list(specs[name].full_names)}; install the weights "
            f"that the policy was written for, or set its bars anew for these"
        )
    return name


def table(
    value: object, where: str, *, needed: Collection[str] = (), allowed: Collection[str] | None = ()
) -> dict[str, object]:
    """Check that a value is a table with the needed keys, and no others than those and `allowed` (None: any)."""
    if not isinstance(value, dict):
        raise PolicyError(f"{where}: expected a table, found {value!r}; correct it")
    if allowed is not None:
        for key in value:
            pick(key, (*needed, *allowed), where, "a key of the policy format")
    for key in needed:
        if key not in value:
            raise PolicyError(f"{where}: expected the key {key!r}, found {sorted(value)}; add it")
    return value


def strings(value: object, where: str) -> tuple[str, ...]:
    """Check that a value is a list of different strings that is not empty."""
    if not isinstance(value, list) or not value:
        raise PolicyError(f"{where}: expected a list of strings that is not empty, found {value!r}; fill it")
    found = tuple(string(one, where) for one in value)
    if len(set(found)) < len(found):
        raise PolicyError(f"{where}: expected different strings, found {value!r}; name each once")
    return found


def string(value: object, where: str) -> str:
    """Check that a value is a string that says something."""
    if not isinstance(value, str) or not value.strip():
        raise PolicyError(f"{where}: expected a string that is not empty, found {value!r}; correct it")
    return value


def finite(value: object, where: str) -> float:
    """Check that a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PolicyError(f"{where}: expected a finite number, found {value!r}; correct it")
    return float(value)


def pick(name: str, known: Collection[str], where: str, expected: str) -> None:
    """Refuse a name that is not known, and say which known one is nearest."""
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise PolicyError(f"{where}: expected {expected}, found {name!r}; {hint}")
