"""Policies that build on others: their tables joined into one, before anything of them is checked.

Owns `include`, and what of two policies stands. Leaves the meaning of the tables to `pipeline.policy`.

- An include can only add: its rules, required signals, promises and [sensitive] rules all hold. What the including
  policy may say anew are aliases (which models) and named thresholds (which bars).
- Rules are sorted by strictness, the including policy's first among equals, so that the whole stays monotone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manifests.records import Action
from pipeline.policy_language import PolicyError
from pipeline.policy_names import strings, table

MAX_DEPTH = 8
Texts = Callable[[str], str]  # the TOML text of a policy by the name that `include` gives


def join_includes(
    file: dict[str, Any], source: str, load: Callable[[str, str], dict[str, Any]], depth: int = 0
) -> dict[str, Any]:
    """Return the policy with what it includes.

    Args:
        file: the parsed policy.
        source: its name, for error messages.
        load: the parsed policy of a name in `include`; its second argument is who asks, for errors.
        depth: how many includes led here.

    Raises:
        PolicyError: includes go round in a circle or too deep, or one is not a policy.
    """
    joined = {key: value for key, value in file.items() if key != "include"}
    if "include" not in file:
        return joined
    if depth == MAX_DEPTH:
        raise PolicyError(f"{source}: include: more than {MAX_DEPTH} policies inside each other; is it a circle?")
    for name in strings(file["include"], f"{source}: include"):
        base = join_includes(load(name, source), name, load, depth + 1)
        _tables(base, name)
        joined["required"] = _both(joined.get("required", []), base.get("required", []))
        for key in ("signal", "threshold"):
            if key in base:
                joined[key] = {**base[key], **table(joined.get(key, {}), f"{source}: [{key}]", allowed=None)}
        for key, part in (("sensitive", "rules"), ("separation", "never_kept")):
            if key in base:
                own = table(joined.get(key, {part: []}), f"{source}: [{key}]", needed=(part,))
                joined[key] = {part: _both(own[part], base[key].get(part, []))}
        if "around" in base:
            joined["around"] = _farther(
                table(joined.get("around", {}), f"{source}: [around]", allowed=None), base["around"]
            )
        joined["rule"] = _both(joined.get("rule", []), base.get("rule", []))
    joined["rule"].sort(key=_strictness)
    return joined


def _tables(base: dict[str, Any], name: str) -> None:
    for key in ("signal", "threshold", "around", "sensitive", "separation"):
        table(base.get(key, {}), f"{name}: [{key}]", allowed=None)


def _both(mine: object, theirs: object) -> list[Any]:
    """Join two lists; what is no list is left for the checks of the whole to refuse."""
    first = mine if isinstance(mine, list) else [mine]
    second = theirs if isinstance(theirs, list) else [theirs]
    return first + [one for one in second if one not in first]


def _farther(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that look farther; what is no number is left for the checks of the whole to refuse."""
    joined = {**theirs, **mine}
    for key in mine.keys() & theirs.keys():
        if type(mine[key]) is type(theirs[key]) and isinstance(mine[key], int | float):
            joined[key] = (min if key == "neighbours" else max)(mine[key], theirs[key])
    return joined


def _strictness(rule: object) -> int:
    action = rule.get("action") if isinstance(rule, dict) else None
    return -Action[action] if isinstance(action, str) and action in Action.__members__ else 0
