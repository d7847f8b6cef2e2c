"""The models that are known: those that ship with shardscrub, and the registry of the user beside them.

Owns reading registries and adding to the user's. Touches no network.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classifiers.registry import SHIPPED, Model
from classifiers.weights import digest_file
from manifests import durable
from pipeline.config_values import TableReader
from pipeline.errors import ConfigError

OWN = "models.toml"


@dataclass(frozen=True, slots=True)
class _Registry:
    model: tuple[Model, ...] = ()


def known_models(models: Path, registry: Path | None) -> dict[str, Model]:
    """Return the shipped models and those of the user's registry, else of `models`/models.toml, by name.

    Raises:
        ConfigError: a registry is not one, or has a name that is taken.
    """
    known: dict[str, Model] = {}
    for path in (SHIPPED, registry or models / OWN):
        for model in parse(path, path.read_bytes()) if path.is_file() else ():
            if model.name in known:
                raise ConfigError(f"{path}: {model.name} is known already; raise the number after its @")
            known[model.name] = model
    return known


def choose(known: dict[str, Model], names: Sequence[str]) -> list[Model]:
    """Return the models of these names.

    Raises:
        ConfigError: one is not known.
    """
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"{unknown[0]}: no such model; `shardscrub models list` prints those that are known")
    return [known[name] for name in names]


def parse(path: Path, data: bytes) -> tuple[Model, ...]:
    """Read a registry; `path` is for messages.

    Raises:
        ConfigError: not TOML, or a record that is not one of a model.
    """
    try:
        raw = tomllib.loads(data.decode())
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    registry: _Registry = TableReader(path).table(_Registry, raw, "")
    return registry.model


def add(files: Sequence[Path], about: dict[str, str], models: Path, registry: Path | None) -> Model:
    """Copy files into a new model's folder in `models` and append a pinned record to the user's registry.

    Args:
        files: of the model, each with a name of its own.
        about: name, task, kind and licence.
        models: the folder of all models.
        registry: the user's, else `models`/models.toml, which is made where it is not there.

    Raises:
        ConfigError: the name is taken, or a value is not one that a registry may hold; nothing is written.
    """
    own = registry or models / OWN
    text = own.read_text(encoding="utf-8").rstrip() + "\n\n" if own.is_file() else ""
    text += "\n".join(["[[model]]", *(f"{key} = {quoted(value)}" for key, value in about.items()), ""])
    for file in files:
        text += f"\n[[model.file]]\npath = {quoted(file.name)}\nsha256 = {quoted(digest_file(file))}\n"
        text += f"bytes = {file.stat().st_size}\n"
    model = parse(own, text.encode())[-1]
    folder = models / model.name
    if model.name in known_models(models, registry) or folder.exists():
        raise ConfigError(f"{model.name}: is known or there already; raise the number after its @")
    durable.make_folder(folder)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    durable.write(own, text.encode(), replace=True)
    return model


def quoted(value: str) -> str:
    """Return a TOML string."""
    return json.dumps(value, ensure_ascii=False)
