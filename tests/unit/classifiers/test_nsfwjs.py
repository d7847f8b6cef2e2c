from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_nets import Layers, MadeMobileNet
from PIL import Image
from stand_ins import draw_picture

from classifiers.image.nsfwjs import CLASSES, NsfwJs
from classifiers.image.preprocessing import NSFWJS
from classifiers.image.protocol import PixelNet
from classifiers.image.views import corner_view
from classifiers.weights import WeightsError, digest_file, digest_folder

MODEL_SHA256 = "11846416217e68bf1eb7b0e651bcfd305973566453c63275bbd16766ab089979"
SHARD_SHA256 = "8e7dddbb16acacc1bf1601b1b8a761e730ff934b7f2d7771312b2f000e5f5f13"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[MadeMobileNet, Path]:
    made = MadeMobileNet()
    return made, made.write(tmp_path_factory.mktemp("made") / "net")


def load(folder: Path) -> NsfwJs:
    return NsfwJs(folder, sha256=digest_folder(folder))


def test_the_net_gives_what_its_layers_are_defined_to_give(made) -> None:
    maker, folder = made
    views = np.stack([draw_picture(224, 224, seed) for seed in range(2)])
    found = load(folder).classes(views)
    expected = np.stack([maker.give(view) for view in views])
    assert np.abs(expected[0] - expected[1]).max() > 5e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_score_is_porn_and_hentai(made) -> None:
    net: PixelNet = load(made[1])
    views = draw_picture(224, 224)[None]
    row = load(made[1]).classes(views)[0]
    assert net.score(views)[0] == pytest.approx(row[CLASSES.index("Porn")] + row[CLASSES.index("Hentai")])
    assert net.score(views).dtype == np.float32
    assert net.name == "nsfwjs@1"
    assert net.full_name == f"nsfwjs@1#{digest_folder(made[1])[:8]}/corners224/porn+hentai/fp32"


CHANGES = ["short", "long", "dtype", "infinite", "renamed", "another shape", "no json", "no shard", "two groups"]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_not_expected_in_the_files_is_an_error(tmp_path: Path, made, change: str) -> None:
    data, folder = made[0].data, tmp_path / "net"
    # The last weights are a bias in float32.
    infinite = data[:-4] + np.float32(np.inf).tobytes()
    text = (made[1] / "model.json").read_text()
    shards = {"short": data[:-1], "long": data + b"x", "infinite": infinite}
    models = {
        "dtype": text.replace('"uint8"', '"uint16"', 1),
        "renamed": text.replace("block_7_expand/kernel", "block_7/kernel"),
        "another shape": text.replace("[1280, 256]", "[256, 1280]"),
        "no json": "{",
        "two groups": text.replace('{"weightsManifest": [', '{"weightsManifest": [{"paths": [], "weights": []}, '),
    }
    assert text not in models.values()
    folder.mkdir()
    (folder / "model.json").write_text(models.get(change, text))
    if change != "no shard":
        (folder / "group1-shard1of1").write_bytes(shards.get(change, data))
    with pytest.raises(WeightsError, match="not the net that was expected"):
        load(folder)


def test_only_the_pinned_folder_is_read(made, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"expected sha256 {NSFWJS.sha256}"):
        NsfwJs(made[1])
    with pytest.raises(WeightsError, match="does not exist"):
        NsfwJs(tmp_path / "nothing")


def test_only_views_of_its_size_are_scored(made) -> None:
    with pytest.raises(ValueError, match="expected views uint8 N x 224 x 224 x 3"):
        load(made[1]).score(np.zeros((1, 112, 112, 3), np.uint8))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 9))
@example(1, 1, 0)
@example(224, 224, 0)
@example(223, 447, 0)
def test_a_view_is_the_bilinear_of_aligned_corners(height: int, width: int, seed: int) -> None:
    picture = draw_picture(height, width, seed)
    before = picture.copy()
    rows = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].double()
    exact = torch.nn.functional.interpolate(rows, size=(224, 224), mode="bilinear", align_corners=True)
    view = corner_view(picture, 224)
    assert view.dtype == np.uint8
    assert np.abs(view - exact[0].permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(picture, before)


def test_a_line_of_pixels_is_viewed_without_filling_the_memory() -> None:
    for shape in ((1, 2_000_000, 3), (2_000_000, 1, 3)):
        assert (corner_view(np.full(shape, 77, np.uint8), 224) == 77).all()


@pytest.fixture(scope="module")
def published(shared_data: Path) -> NsfwJs:
    return NsfwJs(shared_data / "weights/nsfwjs")


@pytest.mark.shared_data
def test_the_pin_is_that_of_the_published_files(shared_data: Path, published: NsfwJs) -> None:
    folder = shared_data / "weights/nsfwjs"
    assert digest_file(folder / "model.json") == MODEL_SHA256
    assert digest_file(folder / "group1-shard1of1") == SHARD_SHA256
    assert published.full_name == "nsfwjs@1#f0bd40a8/corners224/porn+hentai/fp32"


@pytest.mark.shared_data
def test_the_published_net_gives_what_its_published_layers_are_defined_to_give(
    shared_data: Path, published: NsfwJs
) -> None:
    with Image.open(shared_data / "photos/chelsea.png") as image:
        view = published.view(np.asarray(image.convert("RGB")))
    expected = Layers.read(shared_data / "weights/nsfwjs").give(view)
    np.testing.assert_allclose(published.classes(view[None])[0], expected, atol=5e-6)


@pytest.mark.shared_data
def test_photographs_score_low_but_for_a_known_false_alarm(shared_data: Path, published: NsfwJs) -> None:
    scores = {}
    for path in sorted((shared_data / "photos").iterdir()):
        if path.stem != "truncated":
            with Image.open(path) as image:
                view = published.view(np.asarray(image.convert("RGB")))
            scores[path.stem] = float(published.score(view[None])[0])
    # A grey microscope picture: Neutral 0.50, Porn 0.50.
    assert 0.45 < scores.pop("cell") < 0.5
    assert max(scores.values()) < 0.1, scores


@pytest.mark.shared_data
def test_the_published_net_names_what_it_sees(shared_data: Path, published: NsfwJs) -> None:
    with Image.open(shared_data / "photos/coffee.png") as image:
        row = published.classes(published.view(np.asarray(image.convert("RGB")))[None])[0]
    assert row.sum() == pytest.approx(1, abs=1e-5)
    assert CLASSES[int(row.argmax())] == "Neutral"
    assert row[CLASSES.index("Neutral")] == pytest.approx(0.988, abs=2e-3)
