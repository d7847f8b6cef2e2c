"""The one place that imports open_clip, past a trap of its dependency torchvision.

Registries may carry CUDA builds of torchvision only. Beside a CPU build of torch their C++ part cannot be
loaded, and `import torchvision` dies with "operator torchvision::nms does not exist". open_clip needs only
the transforms, so it is enough to define the schemas of the two operators first. They have no kernel:
calling one is an error.

- Nothing is defined where torch has CUDA, or where the C++ part loads and defines them itself.
- timm, which open_clip imports, imports wandb where it is installed: half a second, and folders in the
  temporary directory that a killed process leaves behind. It is hidden meanwhile.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:
            return False
        return True
    return False


def _define_missing_schemas() -> torch.library.Library | None:
    if torch.version.cuda is not None or _operators_load():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let `import name` fail as if it were not installed, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # what the import system takes for "not there"
    try:
        yield
    finally:
        del sys.modules[name]


# The definitions last as long as this object.
_library = _define_missing_schemas()

with _hidden("wandb"):
    import open_clip  # only importable once the schemas stand

__all__ = ["open_clip"]
