"""What every `PixelNet` keeps. A new kind of net is a line in `KINDS` and one in `MAKERS`."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from stand_ins import draw_picture

from classifiers.image.preprocessing import FACE_AGE, NSFWJS, OPEN_NSFW, Preprocessing
from classifiers.image.protocol import PixelNet
from classifiers.image.registry import KINDS, NetSettings, full_name_of, load_net
from classifiers.weights import WeightsError, digest_file

ROOT = Path(__file__).resolve().parents[2]
FEED = Preprocessing(16, 20, "shortest", "bicubic", "RGB", "NCHW", 1 / 255, (0.4,) * 3, (0.2,) * 3, (1,), True)


def make_onnx(folder: Path, _shared: Path) -> NetSettings:
    """A convolution, its means, two outputs; large enough for kernels that could split the work."""
    random = np.random.default_rng(5)
    filters, widths = random.normal(size=(32, 3, 3, 3)), random.normal(size=(32, 2))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["in", "filters"], ["rows"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["rows"], ["bent"]),
            helper.make_node("GlobalAveragePool", ["bent"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "widths"], ["out"]),
        ],
        "made",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2])],
        [
            helper.make_tensor("filters", TensorProto.FLOAT, filters.shape, filters.ravel()),
            helper.make_tensor("widths", TensorProto.FLOAT, widths.shape, widths.ravel() / 8),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path = folder / "made.onnx"
    path.write_bytes(model.SerializeToString())
    return NetSettings("made@1", path, digest_file(path), preprocessing=FEED)


def find_nsfwjs(_folder: Path, shared: Path) -> NetSettings:
    return NetSettings(NSFWJS.name, shared / "weights/nsfwjs", NSFWJS.sha256, "nsfwjs")


def find_face_age(_folder: Path, shared: Path) -> NetSettings:
    return NetSettings(FACE_AGE.name, shared / "weights/face", FACE_AGE.sha256, "face-age")


Maker = Callable[[Path, Path], NetSettings]
MAKERS: dict[str, Maker] = {"onnx": make_onnx, "nsfwjs": find_nsfwjs, "face-age": find_face_age}
PUBLISHED = {"nsfwjs", "face-age"}


def kinds(names: set[str]) -> list[object]:
    return [pytest.param(n, marks=[pytest.mark.shared_data] if n in PUBLISHED else []) for n in sorted(names)]


@pytest.fixture(scope="module", params=kinds(set(MAKERS)))
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_data) -> NetSettings:
    return MAKERS[request.param](tmp_path_factory.mktemp("net"), shared_data)


@pytest.fixture(scope="module")
def net(settings: NetSettings) -> PixelNet:
    return load_net(settings, threads=1)


@pytest.fixture(scope="module")
def views(net: PixelNet, shared_data: Path) -> NDArray[np.uint8]:
    """Drawn pictures, and one with a face where there are photographs."""
    pictures = [draw_picture(300, 200, seed) for seed in range(5)]
    path = shared_data / "photos/astronaut.png"
    if path.exists():
        from PIL import Image  # noqa: PLC0415

        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    return np.stack([net.view(pixels) for pixels in pictures])


def check_scores(scores: NDArray[np.float32], count: int) -> None:
    assert scores.dtype == np.float32
    assert scores.shape == (count,)
    assert (np.isnan(scores) | ((scores >= 0) & (scores <= 1))).all()


def test_every_registered_kind_is_held_to_this() -> None:
    assert set(MAKERS) == set(KINDS)


def test_a_name_says_what_is_loaded(settings: NetSettings, net: PixelNet) -> None:
    assert net.name == settings.name
    assert net.full_name == full_name_of(settings)
    assert net.full_name.startswith(f"{net.name}#{settings.sha256[:8]}/")
    assert net.full_name.endswith("/fp32")


def test_naming_a_net_loads_no_runtime(settings: NetSettings) -> None:
    code = (
        "import sys; from pathlib import PosixPath\n"
        "from classifiers.image.preprocessing import Preprocessing\n"
        "from classifiers.image.registry import NetSettings, full_name_of\n"
        f"print(full_name_of({settings!r}))\n"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules), 'a runtime was loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == full_name_of(settings)


def test_a_score_hangs_on_its_own_view_alone(net: PixelNet, views: NDArray[np.uint8]) -> None:
    whole = net.score(views)
    check_scores(whole, len(views))
    alone = np.concatenate([net.score(view[None]) for view in views])
    np.testing.assert_array_equal(alone, whole)
    np.testing.assert_array_equal(net.score(views[::-1].copy()), whole[::-1])
    np.testing.assert_array_equal(net.score(np.concatenate([views, views[:3]])), np.append(whole, whole[:3]))


def test_threads_and_another_load_change_no_bit(
    settings: NetSettings, net: PixelNet, views: NDArray[np.uint8]
) -> None:
    expected, before = net.score(views), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(load_net(settings, threads=threads).score(views), expected)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (5, 5), (1, 60_000), (60_000, 1), (4_000, 3)])
def test_pictures_of_any_shape_are_viewed_and_scored(net: PixelNet, views: NDArray[np.uint8], shape) -> None:
    view = net.view(draw_picture(*shape, seed=1))
    assert view.shape == views.shape[1:]
    assert view.dtype == np.uint8
    check_scores(net.score(view[None]), 1)


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_plain_colours_are_scored(net: PixelNet, level: int) -> None:
    for colour in ((level,) * 3, (level, 0, 0), (0, 255, level)):
        score = net.score(net.view(np.full((40, 60, 3), colour, np.uint8))[None])
        check_scores(score, 1)
        assert np.isfinite(score).all()


def test_pixels_and_views_are_only_read_and_never_shared(net: PixelNet) -> None:
    for shape in ((30, 50), (224, 224), (416, 416), (16, 16)):
        pixels = draw_picture(*shape)
        before = pixels.copy()
        pixels.flags.writeable = False
        view = net.view(pixels)
        np.testing.assert_array_equal(pixels, before)
        assert not np.shares_memory(view, pixels)
        np.testing.assert_array_equal(net.view(pixels[:, :].copy()), view)
        batch = view[None].copy()
        batch.flags.writeable = False
        first = net.score(batch)
        np.testing.assert_array_equal(batch[0], view)
        np.testing.assert_array_equal(net.score(view[None]), first)


def test_a_view_of_turned_memory_is_that_of_its_copy(net: PixelNet) -> None:
    turned = draw_picture(60, 90).transpose(1, 0, 2)[::-1]
    np.testing.assert_array_equal(net.view(turned), net.view(turned.copy()))


def test_an_empty_batch_gives_no_scores(net: PixelNet, views: NDArray[np.uint8]) -> None:
    check_scores(net.score(views[:0]), 0)


def test_other_arrays_are_refused(net: PixelNet, views: NDArray[np.uint8]) -> None:
    for wrong in (views[:, 1:], views.astype(np.float32), views[..., :1]):
        with pytest.raises(ValueError, match="expected views uint8"):
            net.score(wrong)
    with pytest.raises(ValueError, match="expected H x W x 3 uint8"):
        net.view(np.zeros((20, 20), np.uint8))


def test_neither_loading_nor_scoring_opens_a_connection(
    settings: NetSettings, views: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_net(settings, threads=1).score(views[:1])


def test_what_is_not_pinned_or_not_there_is_refused(settings: NetSettings, tmp_path: Path) -> None:
    for use in (full_name_of, lambda wrong: load_net(wrong, threads=1)):
        with pytest.raises(WeightsError, match=f"is not pinned; found sha256 {settings.sha256}"):
            use(replace(settings, sha256=""))
        with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, found {settings.sha256}"):
            use(replace(settings, sha256="0" * 64))
        with pytest.raises(WeightsError, match="does not exist; get the weights first"):
            use(replace(settings, file=tmp_path / "nothing"))


@pytest.mark.shared_data
@pytest.mark.parametrize("kind", sorted(PUBLISHED))
def test_a_published_kind_is_that_very_net(kind: str, tmp_path: Path, shared_data: Path) -> None:
    settings = MAKERS[kind](tmp_path, shared_data)
    with pytest.raises(WeightsError, match=f"name: kind '{kind}' expects '{settings.name}', found 'mine@1'"):
        full_name_of(replace(settings, name="mine@1"))
    with pytest.raises(WeightsError, match=f"preprocessing: kind '{kind}' expects it to be left out"):
        full_name_of(replace(settings, preprocessing=OPEN_NSFW))
    other = make_onnx(tmp_path, shared_data)
    with pytest.raises(
        WeightsError, match=f"sha256: kind '{kind}' expects '{settings.sha256}', found '{other.sha256}'"
    ):
        full_name_of(replace(settings, file=other.file, sha256=other.sha256))


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path, shared_data: Path) -> None:
    settings = make_onnx(tmp_path, shared_data)
    with pytest.raises(WeightsError, match=r"net 'made@1': kind: expected onnx \| nsfwjs \| face-age, found 'tf'"):
        full_name_of(replace(settings, kind="tf"))
