"""The kinds of heads that a configuration can name. A new kind is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from classifiers.heads.laion import LaionNsfwHead
from classifiers.heads.mlp import MlpHead
from classifiers.heads.zero_shot import ZeroShotHead
from classifiers.plugins import CLASSIFIERS, make_plugin
from classifiers.signals import Classifier
from classifiers.weights import WeightsError, check_name, check_pin

# Made by us for one embedder, which the file names.
MADE: dict[str, Callable[..., Classifier]] = {"mlp": MlpHead.load, "zero-shot": ZeroShotHead.load}
# Published by others for one backbone, which only the digest of its weights shows.
PUBLISHED: dict[str, Callable[..., Classifier]] = {
    "laion-nsfw": LaionNsfwHead.load,
    "laion-nsfw-mean-impute": partial(LaionNsfwHead.load, mode="mean_impute"),
    "laion-violence": ZeroShotHead.load_violence_pair,
}
OUR_KINDS = (*MADE, *PUBLISHED)


def load_head(
    kind: str, path: Path, *, sha256: str, embedder_name: str, dims: int, backbones: tuple[str, ...]
) -> Classifier:
    """Read a pinned head of one of `MADE` or `PUBLISHED`, or of a plug-in's kind, for one embedder.

    Raises:
        WeightsError: it is missing, not the pinned one, or made for another embedder.
        PluginError: there is no such kind, or the plug-in that brings it is not usable.
    """
    common = {"sha256": sha256, "embedder_name": embedder_name, "dims": dims}
    if kind in PUBLISHED:
        return PUBLISHED[kind](path, **common, backbones=frozenset(backbones))
    if backbones:
        raise WeightsError(f"head ({path}): kind {kind!r} names its embedder itself; leave backbones out")
    if kind in MADE:
        return MADE[kind](path, **common)
    check_pin(path, sha256, what="head")
    return make_plugin(CLASSIFIERS, kind, OUR_KINDS, lambda load: _check_head(load(path, **common), sha256, dims))


def _check_head(head: Classifier, sha256: str, dims: int) -> Classifier:
    check_name(head.name, stand_in=head.stand_in)
    if not head.full_name.startswith(f"{head.name}#{sha256[:8]}"):
        raise ValueError(f"full_name: expected {head.name}#{sha256[:8]} at its start, found {head.full_name!r}")
    scores = head.score(np.full((2, dims), dims**-0.5, np.float16))
    is_row = scores.dtype == np.float32 and scores.shape == (2,)
    if not is_row or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("score: expected one float32 from 0 to 1 for each row")
    return head
