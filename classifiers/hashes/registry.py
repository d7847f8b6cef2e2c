"""The perceptual hashes by name. A new one is one file and one line here; the contract tests find it.

- A key is the recipe name that `HashKind.name` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from classifiers.hashes.imagehash_kinds import ALGORITHMS, ImageHashKind, kind_name
from classifiers.hashes.pdq import Pdq
from classifiers.hashes.pdq_c512 import PdqC512
from classifiers.hashes.pdq_turned import PdqTurned
from classifiers.signals import HashKind

HASH_KINDS: Mapping[str, Callable[[], HashKind]] = MappingProxyType(
    {
        "pdq:fullres": Pdq,
        "pdq:c512": PdqC512,
        "pdq:turned": PdqTurned,
        **{kind_name(algorithm): partial(ImageHashKind, algorithm) for algorithm in ALGORITHMS},
    }
)


def kind_names() -> tuple[str, ...]:
    """Return the names a configuration may use: the recipe, or the algorithm where a library's version makes it."""
    return tuple(name.partition(":")[0] if _of_library(name) else name for name in HASH_KINDS)


def find_kind(name: str) -> HashKind:
    """Return the kind of one of `kind_names`.

    Raises:
        KeyError: there is none of that name.
    """
    recipe = next((key for key in HASH_KINDS if _of_library(key) and key.partition(":")[0] == name), name)
    return HASH_KINDS[recipe]()


def _of_library(recipe: str) -> bool:
    return recipe.partition(":")[0] in ALGORITHMS
