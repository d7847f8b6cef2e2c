"""`bom.cdx.json`: a release and the models that judged it, as a bill of materials (CycloneDX 1.6).

Owns the document. Written on request, as it names the models. No list, rule, threshold or count by reason stands in
it: a release knows in, kept, not kept and faults.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manifests.croissant import LIMITS

if TYPE_CHECKING:
    from manifests.attest import ReleaseFacts

# Ids of SPDX, which the schema wants as such; any other licence is a name.
_SPDX = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT"}


@dataclass(frozen=True, slots=True)
class UsedModel:
    """A model that gave a signal: its full name, the pin of its file or of its folder, its licence where known."""

    full_name: str
    sha256: str
    is_folder: bool
    licence: str


def cyclonedx(facts: ReleaseFacts, models: tuple[UsedModel, ...], origin: str) -> dict[str, Any]:
    """Return the bill of materials of a release; the same facts give the same document.

    `origin`: the name of the log, which a release without a description goes by.
    """
    known = facts.dataset
    plans = {"examine-plan": facts.examine_plan, "decide-plan": facts.decide_plan}
    told = {**facts.counts(), **plans, "limits": LIMITS, "stamps": " ".join(facts.stamps) or "none"}
    told |= {f"sha256 of {one.name}": one.sha256 for one in facts.files if "/" not in one.name}
    release = {
        "type": "data", "bom-ref": "release", "name": known.name if known else origin,
        "version": f"{facts.number}.0.0", "data": [{"type": "dataset", "name": "image-text samples"}],
        **({"description": known.description, "licenses": _licence(known.license)} if known else {}),
        "properties": _properties(told),
    }  # fmt: skip
    tool = {"type": "application", "name": "shardscrub", "version": facts.tool_version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": uuid.UUID(bytes=hashlib.sha256(facts.checkpoint).digest()[:16], version=4).urn,
        "metadata": {"timestamp": facts.finished, "tools": {"components": [tool]}, "component": release},
        "components": [_model(one) for one in models],
        "dependencies": [{"ref": "release", "dependsOn": [one.full_name for one in models]}],
    }  # fmt: skip


def _model(one: UsedModel) -> dict[str, Any]:
    name, _, version = one.full_name.partition("#")[0].partition("@")
    pin = {"sha256 of the folder, file by file": one.sha256} if one.is_folder else {}
    return {
        "type": "machine-learning-model", "bom-ref": one.full_name, "name": name, "version": version,
        **({} if one.is_folder else {"hashes": [{"alg": "SHA-256", "content": one.sha256}]}),
        **({"licenses": _licence(one.licence)} if one.licence else {}),
        "properties": _properties({"signal": one.full_name, **pin}),
    }  # fmt: skip


def _licence(text: str) -> list[dict[str, Any]]:
    return [{"license": {"id" if text in _SPDX else "name": text}}]


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"shardscrub:{name}", "value": str(value)} for name, value in values.items()]
