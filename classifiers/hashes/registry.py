"""The perceptual hashes by name. A new one is one file and one line here; the contract tests find it.

- A key is the recipe name that `HashKind.name` returns.
- A plug-in's recipe begins with the name of its entry point, which is that of no algorithm of ours: no list is
  matched with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from classifiers.hashes.imagehash_kinds import ALGORITHMS, ImageHashKind, kind_name
from classifiers.hashes.pdq import Pdq
from classifiers.hashes.pdq_c512 import PdqC512
from classifiers.hashes.pdq_turned import PdqTurned
from classifiers.plugins import HASHES, make_plugin
from classifiers.signals import HashKind

HASH_KINDS: Mapping[str, Callable[[], HashKind]] = MappingProxyType(
    {
        "pdq:fullres": Pdq,
        "pdq:c512": PdqC512,
        "pdq:turned": PdqTurned,
        **{kind_name(algorithm): partial(ImageHashKind, algorithm) for algorithm in ALGORITHMS},
    }
)
_ALGORITHMS = frozenset(name.partition(":")[0] for name in HASH_KINDS)
_RECIPE = re.compile(r"([a-z0-9-]+):[a-z0-9][a-z0-9.-]*")
_PROBE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def kind_names() -> tuple[str, ...]:
    """Return the names a configuration may use: the recipe, or the algorithm where a library's version makes it."""
    return tuple(name.partition(":")[0] if _of_library(name) else name for name in HASH_KINDS)


def find_kind(name: str) -> HashKind:
    """Return the kind of one of `kind_names`, or of a plug-in.

    Raises:
        PluginError: there is none of that name, or it is not usable.
    """
    recipe = next((key for key in HASH_KINDS if _of_library(key) and key.partition(":")[0] == name), name)
    if recipe in HASH_KINDS:
        return HASH_KINDS[recipe]()
    return make_plugin(HASHES, name, kind_names(), partial(_check_kind, name))


def _check_kind(name: str, factory: Callable[[], HashKind]) -> HashKind:
    kind = factory()
    recipe = _RECIPE.fullmatch(kind.name)
    if recipe is None or recipe[1] != name or name in _ALGORITHMS:
        raise ValueError(f"name: expected '{name}:' and a recipe, none of our algorithms, found {kind.name!r}")
    code = kind.encode(_PROBE)
    form = (kind.variants, kind.code_bytes)
    if code is None or code.codes.dtype != np.uint8 or code.codes.shape != form or not code.codes.size:
        raise ValueError(f"encode: expected codes of {form} uint8, variants x code_bytes, for noise of 64 x 64")
    return kind


def _of_library(recipe: str) -> bool:
    return recipe.partition(":")[0] in ALGORITHMS
