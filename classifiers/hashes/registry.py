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
from classifiers.signals import HashKind

HASH_KINDS: Mapping[str, Callable[[], HashKind]] = MappingProxyType(
    {
        "pdq:fullres": Pdq,
        "pdq:c512": PdqC512,
        **{kind_name(algorithm): partial(ImageHashKind, algorithm) for algorithm in ALGORITHMS},
    }
)
