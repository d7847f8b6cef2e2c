from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import draw_picture

from classifiers.image.face_age import FaceAge, find_boxes, score_age
from classifiers.image.protocol import PixelNet
from classifiers.image.views import letterbox_view
from classifiers.weights import WeightsError, digest_file, digest_folder

DIGESTS = {
    "age_gender_model-shard1": "49f92bbc0afef2342c4385e4a2b0acb6d7a727c6f0aa539499719a81acf9abaa",
    "age_gender_model-weights_manifest.json": "780ca481c12f6501c63e3551caa4df9bc4a05ffc5357060079b75badfd350d86",
    "tiny_face_detector_model-shard1": "b7503ce7df31039b1c43316a9b865cab6a70dd748cc602d3fa28b551503c3871",
    "tiny_face_detector_model-weights_manifest.json": (
        "14c60659a31b6b7b1320077171b8f8adcb24ef0e62dde62ce603bcb49a1b49b5"
    ),
}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def published(shared_data: Path) -> FaceAge:
    return FaceAge(shared_data / "weights/face")


@pytest.mark.parametrize(
    ("age", "score"), [(-3, 1), (3, 1), (15, 1), (18, 0.85), (25, 0.5), (30, 0.25), (35, 0), (70, 0), (math.inf, 0)]
)
def test_the_score_falls_from_fifteen_to_thirty_five(age: float, score: float) -> None:
    assert score_age(age) == pytest.approx(score)


def test_an_age_that_is_no_number_has_no_score() -> None:
    assert math.isnan(score_age(math.nan))


def cells_of(*faces: tuple[int, int, int, float]) -> torch.Tensor:
    """A detector's output with faces amid cells (row, column, anchor, sureness), of the anchor's size."""
    cells = torch.zeros(13, 13, 5, 5)
    cells[..., 4] = -9
    for row, column, anchor, sureness in faces:
        cells[row, column, anchor, 4] = sureness
    return cells


def test_a_box_lies_around_the_middle_of_its_cell() -> None:
    # Anchor 0 is 1.603231 x 2.094468 cells of 32 px; the middle of row 4, column 7 is at 240, 144.
    assert find_boxes(cells_of((4, 7, 0, 2.0))) == [[214, 110, 265, 177]]


def test_boxes_are_cut_at_the_borders_and_the_surest_comes_first() -> None:
    boxes = find_boxes(cells_of((0, 0, 1, 1.0), (12, 12, 1, 3.0)))
    assert boxes == [[303, 286, 416, 416], [0, 0, 112, 129]]


def test_of_two_boxes_on_one_face_the_surer_stays() -> None:
    assert len(find_boxes(cells_of((5, 5, 4, 1.0), (5, 6, 4, 2.0)))) == 1
    assert find_boxes(cells_of((5, 5, 4, 1.0), (5, 6, 4, 2.0))) == find_boxes(cells_of((5, 6, 4, 2.0)))


def test_an_unsure_box_is_none() -> None:
    assert find_boxes(cells_of((5, 5, 4, -0.1))) == []


@pytest.mark.parametrize(("shape", "filled"), [((50, 100), (10, 20)), ((100, 50), (20, 10)), ((7, 7), (20, 20))])
def test_a_letterbox_keeps_the_shape(shape: tuple[int, int], filled: tuple[int, int]) -> None:
    white = np.full((*shape, 3), 255, np.uint8)
    tall, wide = filled
    corner, centred = letterbox_view(white, 20, centred=False), letterbox_view(white, 20, centred=True)
    assert (corner[:tall, :wide] == 255).all()
    assert corner.sum() == centred.sum() == 255 * 3 * tall * wide
    top, left = (20 - tall) // 2, (20 - wide) // 2
    assert (centred[top : top + tall, left : left + wide] == 255).all()


@pytest.mark.parametrize("shape", [(1, 2_000_000), (2_000_000, 1)])
def test_a_line_of_pixels_is_viewed_as_a_line(shape: tuple[int, int]) -> None:
    view = letterbox_view(np.full((*shape, 3), 255, np.uint8), 416, centred=False)
    assert view.sum() == 255 * 3 * 416


@pytest.mark.shared_data
def test_the_pin_is_that_of_the_published_files(shared_data: Path, published: FaceAge) -> None:
    folder = shared_data / "weights/face"
    assert {path.name: digest_file(path) for path in folder.iterdir()} == DIGESTS
    assert published.full_name == "face-age@1#64253fe8/letterbox416/age15-35/fp32"


@pytest.mark.shared_data
def test_an_astronaut_looks_grown_up(shared_data: Path, published: FaceAge) -> None:
    net: PixelNet = published
    view = net.view(read(shared_data / "photos/astronaut.png"))
    (ages,) = published.ages(view[None])
    assert len(ages) == 1
    assert 24 < ages[0] < 42
    assert net.score(view[None])[0] == pytest.approx(score_age(ages[0]))


@pytest.mark.shared_data
def test_a_grown_man_in_profile_is_taken_for_twenty(shared_data: Path, published: FaceAge) -> None:
    (ages,) = published.ages(published.view(read(shared_data / "photos/camera.png"))[None])
    assert len(ages) == 1
    assert 15 < ages[0] < 25


@pytest.mark.shared_data
def test_where_no_face_is_the_score_is_zero(shared_data: Path, published: FaceAge) -> None:
    names = ["brick.png", "cell.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png"]
    names += ["hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"]
    views = np.stack([published.view(read(shared_data / "photos" / name)) for name in names])
    assert published.ages(views) == [[]] * len(names)
    assert (published.score(views) == 0).all()
    assert (published.score(np.zeros((1, 416, 416, 3), np.uint8)) == 0).all()


@pytest.mark.shared_data
def test_the_youngest_of_two_faces_counts(shared_data: Path, published: FaceAge) -> None:
    pair = [Image.open(shared_data / "photos" / name).convert("RGB") for name in ("astronaut.png", "camera.png")]
    both = np.concatenate([np.asarray(one.crop((100, 0, 356, 256))) for one in pair], axis=1)
    view = published.view(both)
    (ages,) = published.ages(view[None])
    assert len(ages) == 2
    assert published.score(view[None])[0] == pytest.approx(score_age(min(ages)))


@pytest.mark.shared_data
def test_neither_the_batch_nor_the_number_of_threads_changes_a_bit(shared_data: Path, published: FaceAge) -> None:
    views = np.stack(
        [published.view(read(shared_data / "photos/astronaut.png")), published.view(draw_picture(300, 200))]
    )
    views.flags.writeable = False
    alone = np.concatenate([published.score(view[None]) for view in views])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            np.testing.assert_array_equal(published.score(views), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.shared_data
@pytest.mark.parametrize("change", ["short shard", "no manifest", "renamed weight", "nets swapped"])
def test_other_weights_are_an_error(shared_data: Path, tmp_path: Path, change: str) -> None:
    folder = Path(shutil.copytree(shared_data / "weights/face", tmp_path / "face", copy_function=shutil.copyfile))
    folder.chmod(0o755)
    shard, manifest = (folder / f"tiny_face_detector_model-{end}" for end in ("shard1", "weights_manifest.json"))
    if change == "short shard":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif change == "no manifest":
        manifest.unlink()
    elif change == "renamed weight":
        manifest.write_text(manifest.read_text().replace("conv3/bias", "conv7/bias"))
    else:
        manifest.write_bytes((folder / "age_gender_model-weights_manifest.json").read_bytes())
    with pytest.raises(WeightsError, match="64253fe8"):
        FaceAge(folder)
    with pytest.raises(WeightsError, match="not the nets that were expected"):
        FaceAge(folder, sha256=digest_folder(folder))


@pytest.mark.shared_data
def test_a_net_that_overflows_gives_no_score(shared_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared_data / "weights/face", tmp_path / "face", copy_function=shutil.copyfile))
    folder.chmod(0o755)
    manifest = folder / "tiny_face_detector_model-weights_manifest.json"
    text = manifest.read_text()
    # The scale of the last layer: the weights stay finite, their sums do not.
    assert text.count("0.028336129469030042") == 1
    manifest.write_text(text.replace("0.028336129469030042", "1e36"))
    net = FaceAge(folder, sha256=digest_folder(folder))
    view = net.view(read(shared_data / "photos/astronaut.png"))
    assert np.isnan(net.score(view[None])).all()


@pytest.mark.shared_data
def test_only_views_of_its_size_are_scored(published: FaceAge) -> None:
    with pytest.raises(ValueError, match="expected views uint8 N x 416 x 416 x 3"):
        published.score(np.zeros((1, 224, 224, 3), np.uint8))
