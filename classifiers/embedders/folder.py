"""What a model folder says of itself, without loading the model: size, width, normalisation, stand-in or not.

Owns reading `open_clip_config.json` and the embedder's full name. Needs no torch, so that a settle, which runs
no model, can resolve its plan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from classifiers.weights import WeightsError, check_name

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


@dataclass(frozen=True, slots=True)
class ClipFolder:
    """size: side of the view in pixels. dims: width of an embedding. mean, std: of three channels in [0, 1].

    squash: the view is the whole picture out of shape (SigLIP), not the middle of it in shape (CLIP).
    """

    size: int
    dims: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stand_in: bool
    squash: bool = False

    @property
    def view_name(self) -> str:
        """What is seen of a picture, as it stands in full names."""
        return f"{'squash' if self.squash else 'bicubic'}{self.size}"


def embedder_name(name: str, sha256: str, folder: ClipFolder, precision: str, *, compiled: bool = False) -> str:
    """Return the full name, all that changes the output: `vit-b-32@1#1a2b3c4d/bicubic224/bf16[/compiled]`."""
    return f"{name}#{sha256[:8]}/{folder.view_name}/{precision}{'/compiled' if compiled else ''}"


def read_folder(path: Path, *, name: str) -> ClipFolder:
    """Read a model folder's configuration; what it leaves out means open_clip's defaults.

    Args:
        path: the folder.
        name: `name@version`, as configured; holds 'stand-in' if the folder is marked as one.

    Raises:
        WeightsError: weights are missing or pickled, or the configuration is not one that is supported.
    """
    for item in sorted(path.rglob("*")):
        if item.suffix in _PICKLE_SUFFIXES:
            raise WeightsError(
                f"{item}: pickled weights can run code and are never read; keep {WEIGHTS_FILE} alone"
            )
    for needed in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / needed).is_file():
            raise WeightsError(f"{path}: expected {CONFIG_FILE} and {WEIGHTS_FILE}, found no {needed}")
    folder = _read_config(path / CONFIG_FILE)
    check_name(name, stand_in=folder.stand_in)
    return folder


def _read_config(path: Path) -> ClipFolder:
    try:
        config = json.loads(path.read_bytes())
        model, view = config["model_cfg"], config["preprocess_cfg"]
        image_size, mean, std = model["vision_cfg"]["image_size"], view["mean"], view["std"]
        dims, text_from_hub = model["embed_dim"], model["text_cfg"].get("hf_model_name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: expected JSON with model_cfg (embed_dim, vision_cfg.image_size, text_cfg) and "
            f"preprocess_cfg (mean, std): {type(error).__name__} {error}"
        ) from error
    sides = image_size if isinstance(image_size, list) else [image_size, image_size]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int) or sides[0] < 1:
        raise WeightsError(f"{path}: vision_cfg.image_size: expected a square, found {image_size}")
    if not isinstance(dims, int) or dims < 1:
        raise WeightsError(f"{path}: model_cfg.embed_dim: expected a whole number above 0, found {dims}")
    only: dict[str, list[object]] = {
        "interpolation": ["bicubic"],
        "resize_mode": ["shortest", "squash"],
        "mode": ["RGB"],
        "size": [sides[0], [sides[0], sides[0]]],
    }
    for key, allowed in only.items():
        if view.get(key, allowed[0]) not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise WeightsError(f"{path}: preprocess_cfg.{key}: expected {wanted}, found {view[key]}")
    for key, values in (("mean", mean), ("std", std)):
        if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise WeightsError(f"{path}: preprocess_cfg.{key}: expected three numbers, found {values}")
    if text_from_hub:
        raise WeightsError(f"{path}: text_cfg.hf_model_name: such a text tower is built from a download")
    stand_in = config.get("stand_in", False)
    if not isinstance(stand_in, bool):
        raise WeightsError(f"{path}: stand_in: expected true or false, found {stand_in}")
    squash = view.get("resize_mode") == "squash"
    return ClipFolder(sides[0], dims, tuple(mean), tuple(std), stand_in, squash)
