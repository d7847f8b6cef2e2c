"""A tower that torch.compile made code for. It is compiled once: that takes a dozen runs of the C++ compiler."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import torch
import torch._dynamo.config
import torch._inductor.config
from numpy.typing import NDArray

from classifiers.embedders.folder import embedder_name, read_folder
from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.heads.laion import check_backbone
from classifiers.heads.mlp import without_precision
from classifiers.weights import WeightsError, digest_folder

BATCH = 20
# torch's own compiler still builds a module by what torch itself calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "one-layer"
    tiny = stand_ins._MODELS["tiny"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stand_ins._MODELS, "one-layer", {**tiny, "vision_cfg": {**tiny["vision_cfg"], "layers": 1}})
        stand_ins.write_stand_in_clip(folder, seed=1, size="one-layer")
    return folder


@pytest.fixture(scope="module")
def views() -> NDArray[np.uint8]:
    return np.stack([stand_ins.draw_picture(224, 224, seed) for seed in range(BATCH + 5)])


def load(folder: Path, *, jit: bool) -> OpenClipEmbedder:
    return OpenClipEmbedder(
        folder,
        name="tiny-stand-in@1",
        sha256=digest_folder(folder),
        device="cpu",
        precision="fp32",
        batch=BATCH,
        jit=jit,
    )


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, which must be empty afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_compiler_the_error_says_what_to_do(folder: Path, temporary: Path) -> None:
    torch.compiler.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(WeightsError) as caught,
    ):
        load(folder, jit=True)
    text = str(caught.value)
    assert "embedder 'tiny-stand-in@1': torch cannot compile it here (" in text
    assert "no-such-compiler" in text
    assert text.endswith(
        "that takes a C++ compiler (g++) and, on a GPU, Triton: install them, or set [embedder] compile = false"
    )
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_compiled_and_eager_towers_agree_and_one_shape_is_compiled(
    folder: Path, views: NDArray[np.uint8], temporary: Path
) -> None:
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}):  # else torch compiles a probe for each kind
        eager, compiled = load(folder, jit=False), load(folder, jit=True)
    assert compiled.name == f"{eager.name}/compiled"
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = compiled.embed(views)
        assert compiled.embed(views[:3]).tobytes() == found[:3].tobytes()
        assert len(compiled.embed(views[:0])) == 0
    ours, theirs = (rows.astype(np.float64) for rows in (found, eager.embed(views)))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / norms).min() >= 0.9999
    assert list(temporary.iterdir()) == []


def test_heads_are_bound_to_a_compiled_tower_as_to_the_eager_one(folder: Path) -> None:
    config, sha256 = read_folder(folder, name="tiny-stand-in@1"), digest_folder(folder)
    eager, compiled = (
        embedder_name("tiny-stand-in@1", sha256, config, "bf16", compiled=compiled) for compiled in (False, True)
    )
    assert compiled == f"{eager}/compiled"
    assert without_precision(compiled) == without_precision(eager) == eager.removesuffix("/bf16")
    check_backbone(compiled, frozenset({sha256}), what="a head")
