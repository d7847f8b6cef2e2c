"""What every `Embedder` keeps, whatever its tower. A new one is a line in `EMBEDDERS`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from numpy.typing import NDArray

from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.signals import Embedder
from classifiers.weights import digest_folder

MakeEmbedder = Callable[[Path], Embedder]


def open_clip_in(precision: str) -> MakeEmbedder:
    def make(models: Path) -> Embedder:
        folder = models / "tiny"
        pin = digest_folder(folder)
        return OpenClipEmbedder(
            folder, name="tiny-stand-in@1", sha256=pin, device="cpu", precision=precision, batch=16
        )

    return make


EMBEDDERS: dict[str, MakeEmbedder] = {
    "open_clip-fp32": open_clip_in("fp32"),
    "open_clip-bf16": open_clip_in("bf16"),
}
# A row alone against the same row in a batch: two steps of a float16 below one.
TOLERANCE = 2**-10


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    stand_ins.write_stand_in_clip(folder / "tiny", seed=5)
    return folder


@pytest.fixture(scope="module", params=EMBEDDERS)
def make(request: pytest.FixtureRequest) -> MakeEmbedder:
    return EMBEDDERS[request.param]


@pytest.fixture(scope="module")
def embedder(make: MakeEmbedder, models: Path) -> Embedder:
    return make(models)


@pytest.fixture(scope="module")
def views(embedder: Embedder) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (9, 9, 3)).astype(np.uint8).repeat(40, 0).repeat(30, 1) for _ in range(12)]
    return np.stack([embedder.view(picture) for picture in pictures])


def test_names_are_unique(models: Path) -> None:
    names = {make(models).name for make in EMBEDDERS.values()}
    assert len(names) == len(EMBEDDERS)


def test_a_name_holds_the_digest_of_the_weights(embedder: Embedder, models: Path) -> None:
    assert f"#{digest_folder(models / 'tiny')[:8]}/" in embedder.name


def test_a_view_is_a_square_of_uint8(embedder: Embedder) -> None:
    for shape in ((1, 1, 3), (100, 37, 3), (500, 600, 3)):
        view = embedder.view(np.full(shape, 9, np.uint8))
        assert view.dtype == np.uint8
        assert view.shape == (view.shape[0], view.shape[0], 3)
        assert view.flags.writeable


def test_embeddings_are_unit_rows_of_float16(embedder: Embedder, views: NDArray[np.uint8]) -> None:
    rows = embedder.embed(views)
    assert rows.dtype == np.float16
    assert rows.shape == (len(views), embedder.dims)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-3)


def test_no_views_give_no_rows(embedder: Embedder, views: NDArray[np.uint8]) -> None:
    rows = embedder.embed(views[:0])
    assert rows.dtype == np.float16
    assert rows.shape == (0, embedder.dims)


def test_a_second_pass_and_a_second_instance_give_the_same_bits(
    make: MakeEmbedder, embedder: Embedder, models: Path, views: NDArray[np.uint8]
) -> None:
    first = embedder.embed(views).tobytes()
    assert embedder.embed(views).tobytes() == first
    assert make(models).embed(views).tobytes() == first


def test_a_row_alone_is_the_row_in_a_batch(embedder: Embedder, views: NDArray[np.uint8]) -> None:
    together = embedder.embed(views).astype(np.float32)
    alone = np.concatenate([embedder.embed(views[n : n + 1]) for n in range(len(views))]).astype(np.float32)
    np.testing.assert_allclose(alone, together, atol=TOLERANCE)


def test_rows_do_not_influence_each_other(embedder: Embedder, views: NDArray[np.uint8]) -> None:
    others = views.copy()
    others[1:] = 255 - others[1:]
    assert embedder.embed(others)[0].tobytes() == embedder.embed(views)[0].tobytes()


def test_views_that_must_not_be_written_are_only_read(embedder: Embedder, views: NDArray[np.uint8]) -> None:
    shared = views.copy()
    shared.flags.writeable = False
    assert embedder.embed(shared).tobytes() == embedder.embed(views).tobytes()
    np.testing.assert_array_equal(shared, views)


def test_views_of_another_shape_are_an_error(embedder: Embedder, views: NDArray[np.uint8]) -> None:
    for wrong in (views[0], views[:, :-1], views.astype(np.float32)):
        with pytest.raises(ValueError, match="expected views uint8"):
            embedder.embed(wrong)  # type: ignore[arg-type]


def test_loading_and_embedding_need_no_network(
    make: MakeEmbedder, models: Path, views: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert len(make(models).embed(views)) == len(views)
