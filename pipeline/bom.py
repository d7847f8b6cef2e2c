"""The models of a collection, for a bill of materials: names from its plan, pins from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classifiers.registry import SHIPPED, Model
from manifests.cyclonedx import UsedModel
from manifests.records import digest_json
from pipeline.config import Config
from pipeline.models.known import parse


def used_models(config: Config, examine: Mapping[str, Any]) -> tuple[UsedModel, ...]:
    """Return the models that the examine plan names; both name the same, as a run has checked.

    A licence is known where a shipped record has the name and the pin; of an archive made into a folder, the name.
    """
    known = {model.name: model for model in parse(SHIPPED, SHIPPED.read_bytes())}
    pinned = [(head.sha256, head.file) for head in config.head] + [(net.sha256, net.file) for net in config.net]
    pinned += [(config.embedder.sha256, config.embedder.folder)] if config.embedder else []
    pins = {sha256[:8]: (sha256, path.is_dir()) for sha256, path in pinned}
    used = filter(None, (examine["embedder"], *examine["heads"], *examine["nets"]))
    named = [(full_name, *pins[full_name.partition("#")[2][:8]]) for full_name in used]
    return tuple(UsedModel(*one, _licence(known.get(one[0].partition("#")[0]), one[1])) for one in named)


def _licence(model: Model | None, sha256: str) -> str:
    if model is None:
        return ""
    pins = {file.path: file.sha256 for file in model.file}
    return model.licence if model.open_clip_model or sha256 in (*pins.values(), digest_json(pins)) else ""
