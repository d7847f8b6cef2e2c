"""The kinds of heads that a configuration can name. A new kind is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from classifiers.heads.laion import LaionNsfwHead
from classifiers.heads.mlp import MlpHead
from classifiers.heads.zero_shot import ZeroShotHead
from classifiers.signals import Classifier
from classifiers.weights import WeightsError

# Made by us for one embedder, which the file names.
MADE: dict[str, Callable[..., Classifier]] = {"mlp": MlpHead.load, "zero-shot": ZeroShotHead.load}
# Published by others for one backbone, which only the digest of its weights shows.
PUBLISHED: dict[str, Callable[..., Classifier]] = {
    "laion-nsfw": LaionNsfwHead.load,
    "laion-nsfw-mean-impute": partial(LaionNsfwHead.load, mode="mean_impute"),
    "laion-violence": ZeroShotHead.load_violence_pair,
}


def load_head(
    kind: str, path: Path, *, sha256: str, embedder_name: str, dims: int, backbones: tuple[str, ...]
) -> Classifier:
    """Read a pinned head of one of `MADE` or `PUBLISHED` for one embedder.

    Raises:
        WeightsError: it is missing, not the pinned one, or made for another embedder.
    """
    common = {"sha256": sha256, "embedder_name": embedder_name, "dims": dims}
    if kind in PUBLISHED:
        return PUBLISHED[kind](path, **common, backbones=frozenset(backbones))
    if backbones:
        raise WeightsError(f"head ({path}): kind {kind!r} names its embedder itself; leave backbones out")
    return MADE[kind](path, **common)
