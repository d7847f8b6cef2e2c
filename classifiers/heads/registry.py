"""The kinds of heads that a configuration can name. A new kind is one file and one line here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from classifiers.heads.mlp import MlpHead
from classifiers.signals import Classifier


class HeadLoader(Protocol):
    """Reads a pinned head for one embedder, or raises `WeightsError`."""

    def __call__(self, path: Path, *, sha256: str, embedder_name: str, dims: int) -> Classifier:
        """Read the file at `path`, whose SHA-256 must be `sha256`."""
        ...


HEADS: dict[str, HeadLoader] = {"mlp": MlpHead.load}
