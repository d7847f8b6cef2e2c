"""The perceptual hashes by name. A new one is one file and one line here; the contract tests find it.

- A key is the recipe name that `HashKind.name` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from classifiers.hashes.pdq import Pdq
from classifiers.signals import HashKind

HASH_KINDS: Mapping[str, Callable[[], HashKind]] = MappingProxyType(
    {
        "pdq:fullres": Pdq,
    }
)
