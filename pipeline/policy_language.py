"""The language of a rule: signals compared with bars, joined by `and`, `or` and brackets.

Owns tokens, parser, text form and Kleene evaluation; which signals exist, and actions, are `pipeline.policy`'s.

- There is no `not`, and a signal stands on one side only: more harm never makes an expression less true.
- Truth is int8 with FALSE < UNKNOWN < TRUE, so `and` is the minimum and `or` the maximum (strong Kleene logic).
- NaN is looked for before anything is compared, and is UNKNOWN. An infinity is a value.
- A bar is rounded to float32 and compared with float32 columns: 0.45 is the same number on both sides, so a
  score stored as 0.45 reaches the bar 0.45.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Truths = NDArray[np.int8]
Op: TypeAlias = Literal[">=", ">", "<=", "<"]

NO_BARS: Mapping[str, float] = MappingProxyType({})
MAX_NESTING = 32
MAX_ALTERNATIVES = 4096

_TOKEN = re.compile(
    r"[ \t\r\n]*(?:(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_.@/-]*)|(?P<op>>=|<=|>|<)|(?P<bracket>[()])|(?P<end>\Z))"
)
_RESERVED = ("and", "or", "not")
_OPERATORS: dict[Op, np.ufunc] = {
    ">=": np.greater_equal,
    ">": np.greater,
    "<=": np.less_equal,
    "<": np.less,
}


class PolicyError(ValueError):
    """A policy cannot be loaded or applied. The message says where, what was expected and found, what to do."""


class Truth(IntEnum):
    """A Kleene truth value; the order makes `and` the minimum and `or` the maximum."""

    FALSE = 0
    UNKNOWN = 1
    TRUE = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """`signal op bar`. `bar` is the shortest decimal that names the float32 which is compared."""

    signal: str
    op: Op
    bar: float


@dataclass(frozen=True, slots=True)
class And:
    """TRUE where all parts are, FALSE where one is. Never holds another And."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """TRUE where one part is, FALSE where all are. Never holds another Or."""

    parts: tuple[Expression, ...]


Expression: TypeAlias = Comparison | And | Or


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int  # counted from 1


def is_signal_name(text: str) -> bool:
    """Say whether an expression could name a signal so."""
    found = _TOKEN.fullmatch(text)
    return found is not None and found["name"] == text and text not in _RESERVED


def parse_expression(text: str, *, where: str, bars: Mapping[str, float] = NO_BARS) -> Expression:
    """Parse one expression: `and` binds tighter than `or`, brackets override both.

    Args:
        text: the expression, as it stands in a policy.
        where: file and rule or key, the start of every error message.
        bars: the named thresholds that may stand for a number.

    Raises:
        PolicyError: the text is no expression; the message holds the place of the first wrong word.
    """
    parser = _Parser(text, _tokens(text, where), where, bars)
    expression = parser.either(0)
    parser.take("end", "`and`, `or` or the end")
    return expression


def explain_expression(expression: Expression) -> str:
    """Return the one text form of an expression: parsing it gives an equal expression back."""
    if isinstance(expression, Comparison):
        whole = expression.bar.is_integer() and abs(expression.bar) < 1e15
        return f"{expression.signal} {expression.op} {int(expression.bar) if whole else expression.bar!r}"
    if isinstance(expression, Or):
        return " or ".join(explain_expression(part) for part in expression.parts)
    texts = (explain_expression(part) for part in expression.parts)
    return " and ".join(
        f"({text})" if isinstance(part, Or) else text for part, text in zip(expression.parts, texts, strict=True)
    )


def comparisons(expression: Expression) -> Iterator[Comparison]:
    """Yield every comparison of an expression, left to right."""
    if isinstance(expression, Comparison):
        yield expression
    else:
        for part in expression.parts:
            yield from comparisons(part)


def words(text: str) -> set[str]:
    """Return the names in an expression that parses: signals and named thresholds."""
    return {found["name"] for found in _TOKEN.finditer(text) if found["name"]}


def evaluate(expression: Expression, truths_of: Callable[[Comparison], Truths]) -> Truths:
    """Evaluate an expression in Kleene logic.

    Args:
        expression: what to evaluate.
        truths_of: the truth of one comparison, int8[N].

    Returns:
        int8[N] of `Truth` values.
    """
    if isinstance(expression, Comparison):
        return truths_of(expression)
    join = np.minimum if isinstance(expression, And) else np.maximum
    return reduce(join, (evaluate(part, truths_of) for part in expression.parts))


def compare(values: Values, comparison: Comparison, margin: float = 0.0) -> Truths:
    """Compare float32[N] with a bar, in float32.

    UNKNOWN where the value is NaN or, with a margin, where |value - bar| < margin; that distance is taken in
    float64, where the difference of the two float32 numbers is not rounded to float32 again.
    """
    bar = np.float32(comparison.bar)
    unknown = np.isnan(values)
    reached = np.zeros(values.shape, bool)
    _OPERATORS[comparison.op](values, bar, out=reached, where=~unknown)
    if margin > 0:
        unknown |= np.abs(values.astype(np.float64) - np.float64(bar)) < margin
    truths = np.where(reached, np.int8(Truth.TRUE), np.int8(Truth.FALSE))
    truths[unknown] = Truth.UNKNOWN
    return truths


def least_value(comparison: Comparison) -> np.float32:
    """Return the least harmful float32 for which a comparison is TRUE (margins aside)."""
    bar = np.float32(comparison.bar)
    if comparison.op in (">=", "<="):
        return bar
    # Above the largest finite float32 comes infinity, which is what is meant there.
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(np.nextafter(bar, np.float32(np.inf if comparison.op == ">" else -np.inf)))


def alternatives(
    expression: Expression, parts_of: Callable[[str], tuple[str, ...]], *, where: str
) -> list[tuple[Comparison, ...]]:
    """Expand an expression to its disjunctive normal form.

    Args:
        expression: what to expand.
        parts_of: the signals of which a name is the maximum; a comparison with a maximum is the `or` of
            the comparisons with its parts.
        where: file and key, the start of an error message.

    Raises:
        PolicyError: there are more than `MAX_ALTERNATIVES` conjunctions.
    """
    if isinstance(expression, Comparison):
        parts = parts_of(expression.signal)
        return [(Comparison(part, expression.op, expression.bar),) for part in parts]
    found: list[tuple[Comparison, ...]] = [()] if isinstance(expression, And) else []
    for part in expression.parts:
        more = alternatives(part, parts_of, where=where)
        total = len(found) * len(more) if isinstance(expression, And) else len(found) + len(more)
        if total > MAX_ALTERNATIVES:
            raise PolicyError(
                f"{where}: multiplied out, this has more than {MAX_ALTERNATIVES} alternatives; "
                f"write it as several shorter expressions"
            )
        found = [a + b for a in found for b in more] if isinstance(expression, And) else found + more
    return found


def _tokens(text: str, where: str) -> tuple[_Token, ...]:
    """Split a text into tokens, the last of which is of the kind `end`."""
    tokens: list[_Token] = []
    at = 0
    while not tokens or tokens[-1].kind != "end":
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            rest = text[at:].lstrip()
            raise PolicyError(
                f"{where}: cannot read {rest.split()[0]!r} at character {len(text) - len(rest) + 1} of {text!r}; "
                f"expected signals, numbers, >=, >, <=, <, `and`, `or` and round brackets"
            )
        word = found[found.lastgroup]
        kind = word if word in (*_RESERVED, "(", ")") else found.lastgroup
        tokens.append(_Token(kind, word, found.start(found.lastgroup) + 1))
        at = found.end()
    return tuple(tokens)


class _Parser:
    """Recursive descent: either = both {or both}; both = one {and one}; one = (either) | signal op number."""

    def __init__(self, text: str, tokens: tuple[_Token, ...], where: str, bars: Mapping[str, float]) -> None:
        self._text, self._tokens, self._where, self._bars, self._next = text, tokens, where, bars, 0

    def take(self, kind: str, expected: str) -> _Token:
        token = self._tokens[self._next]
        if token.kind == "not":
            raise PolicyError(
                f"{self._where}: there is no `not` (character {token.place} of {self._text!r}): with it more harm "
                f"could give a milder action; say what is harmful with >=, >, <=, <, `and`, `or`"
            )
        if token.kind != kind:
            found = "the end" if token.kind == "end" else repr(token.text)
            raise PolicyError(
                f"{self._where}: expected {expected}, found {found} at character {token.place} of {self._text!r}"
            )
        self._next += 1
        return token

    def either(self, depth: int) -> Expression:
        return self._joined("or", Or, self._both, depth)

    def _both(self, depth: int) -> Expression:
        return self._joined("and", And, self._one, depth)

    def _joined(self, word: str, join: type[And | Or], part: Callable[[int], Expression], depth: int) -> Expression:
        parts = [part(depth)]
        while self._tokens[self._next].kind == word:
            self._next += 1
            parts.append(part(depth))
        # Brackets that change nothing leave no trace, so one meaning has one text.
        flat = [leaf for one in parts for leaf in (one.parts if isinstance(one, join) else (one,))]
        return flat[0] if len(flat) == 1 else join(tuple(flat))

    def _one(self, depth: int) -> Expression:
        if self._tokens[self._next].kind != "(":
            return self._comparison()
        if depth == MAX_NESTING:
            raise PolicyError(f"{self._where}: more than {MAX_NESTING} brackets inside each other; simplify it")
        self._next += 1
        inner = self.either(depth + 1)
        self.take(")", "`and`, `or` or `)`")
        return inner

    def _comparison(self) -> Comparison:
        signal = self.take("name", "a signal or `(`").text
        op = self.take("op", f"one of >=, >, <=, < after {signal!r}").text
        if self._tokens[self._next].text in self._bars:
            token = self.take("name", "a named threshold")
            number = self._bars[token.text]
        else:
            token = self.take("number", f"a finite number or a named threshold after {op!r}")
            number = float(token.text)
        with np.errstate(over="ignore", under="ignore"):
            bar = np.float32(number)
        if not math.isfinite(bar) or (bar == 0 and number != 0):
            raise PolicyError(
                f"{self._where}: the bar {token.text} at character {token.place} of {self._text!r} is outside "
                f"float32, in which signals are compared; write a number between 1e-37 and 1e38"
            )
        # `+ 0.0` turns -0.0 into 0.0: they compare alike, so they must read alike.
        return Comparison(signal, cast(Op, op), float(str(bar)) + 0.0)
