"""Whether models on disk are the pinned ones, can be loaded, and give the embeddings that were published.

Touches no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from classifiers.heads.registry import load_head
from classifiers.image.preprocessing import OPEN_NSFW_SHA256
from classifiers.image.registry import NetSettings, load_net
from classifiers.registry import HEAD_KINDS, Golden, Model
from classifiers.signals import Embedder
from classifiers.weights import WeightsError, check_pin, digest_folder

MIN_COSINE = 0.999


def verify(model: Model, models: Path, golden: Path | None) -> str:
    """Return what of a model was checked, in a few words.

    Args:
        model: the model.
        models: the folder of all models.
        golden: a folder with published embeddings and their images.

    Raises:
        WeightsError: a file is missing or not the pinned one, or the model is not what its record says.
    """
    folder, place, checked = models / model.name, model.place(models), set()
    for path, pin in _pins(model, models):
        check_pin(path, pin, what=path.name)
        checked.add(path)
    if strange := [str(path) for path in folder.rglob("*") if path.is_file() and path not in checked]:
        raise WeightsError(f"{', '.join(sorted(strange))}: is no file of this model; move it away")
    sha256 = digest_folder(place) if place.is_dir() else model.file[0].sha256
    if model.kind == "open-clip":
        from classifiers.embedders.open_clip import OpenClipEmbedder  # noqa: PLC0415 - loads torch

        tower = OpenClipEmbedder(place, name=model.name, sha256=sha256, device="cpu", precision="fp32", batch=32)
        if model.golden is not None and golden is not None:
            return _compare(tower, model.golden, golden)
        why = f"--golden FOLDER with {model.golden.file}" if model.golden else "no published embeddings are known"
        return f"loaded; golden not checked: {why}"
    if model.kind in HEAD_KINDS and model.dims:
        # Any backbone does here: which one a run has is for its configuration to say.
        name = f"{model.backbone}#{sha256[:8]}/bicubic224/fp32"
        load_head(model.kind, place, sha256=sha256, embedder_name=name, dims=model.dims, backbones=(sha256,))
    elif place.is_dir() or sha256 == OPEN_NSFW_SHA256:
        load_net(NetSettings(model.name, place, sha256, model.kind), threads=1)
    else:
        return "not loaded: what it goes with stands in a configuration"
    return "loaded"


def _pins(model: Model, models: Path) -> Iterator[tuple[Path, str]]:
    """Yield all files of a model with their digests: those of a converted archive once the archive is checked."""
    for file in model.file:
        path = models / model.name / file.path
        yield path, file.sha256
    if model.open_clip_model:
        from classifiers.embedders.openai_archive import convert  # noqa: PLC0415 - loads torch

        for name, data in convert(path, sha256=file.sha256, open_clip_model=model.open_clip_model).items():
            yield model.place(models) / name, hashlib.sha256(data).hexdigest()


def _compare(tower: Embedder, golden: Golden, folder: Path) -> str:
    """Compare embeddings with the published ones, which shows a wrong activation or view."""
    from PIL import Image  # noqa: PLC0415 - not in a plain install

    check_pin(folder / golden.file, golden.sha256, what="golden vectors")
    with np.load(folder / golden.file, allow_pickle=False) as stored:
        names, wanted = stored["filename"], stored["embedding"].astype(np.float32)
    views = []
    for name in names:
        with Image.open(folder / golden.images / name) as image:
            views.append(tower.view(np.array(image.convert("RGB"))))
    found = tower.embed(np.stack(views)).astype(np.float32)
    cosines = (found * wanted).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    if not (cosines >= MIN_COSINE).all():
        least = f"{cosines.min():.4f} ({names[cosines.argmin()]}): other weights, activation or preprocessing"
        raise WeightsError(f"golden vectors: expected cosines of {MIN_COSINE} or more, found {least}")
    return f"loaded; golden vectors agree on {len(names)} images: cosine {cosines.min():.5f} or more"
