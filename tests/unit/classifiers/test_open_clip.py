from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import stand_ins
import torch
from PIL import Image
from stand_ins import draw_picture

from classifiers.embedders.devices import resolve_device, resolve_precision
from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.embedders.views import square_view
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import WeightsError, digest_folder

NAME = "tiny-stand-in@1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    stand_ins.write_stand_in_clip(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def embedder(made: Path) -> OpenClipEmbedder:
    return load(made)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def load(folder: Path, **changes: Any) -> OpenClipEmbedder:
    given: dict[str, Any] = {"name": NAME, "device": "cpu", "precision": "fp32", "batch": 8} | changes
    given.setdefault("sha256", digest_folder(folder) if folder.is_dir() else "")
    return OpenClipEmbedder(folder, **given)


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    change(config)
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def test_embeddings_are_those_of_open_clip_itself(made: Path, embedder: OpenClipEmbedder) -> None:
    pictures = [draw_picture(300, 400, seed) for seed in range(4)]
    model = open_clip.create_model(f"local-dir:{made}", require_pretrained=True).eval()
    transform = open_clip.image_transform(224, is_train=False, mean=(0.48145466, 0.4578275, 0.40821073))
    with torch.no_grad():
        batch = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
        expected = model.encode_image(batch, normalize=True).numpy()
    found = embedder.embed(np.stack([embedder.view(picture) for picture in pictures]))
    assert ((found.astype(np.float32) * expected).sum(axis=1) > 0.9999).all()


def test_more_rows_than_a_batch_are_taken_batch_by_batch(made: Path) -> None:
    small = load(made, batch=4)
    views = np.stack([small.view(draw_picture(224, 224, seed)) for seed in range(10)])
    parts = [small.embed(views[start : start + 4]) for start in (0, 4, 8)]
    assert small.embed(views).tobytes() == np.concatenate(parts).tobytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_neither_the_number_of_threads_nor_of_rows_changes_a_bit(made: Path, precision: str) -> None:
    embedder = load(made, precision=precision, batch=64)
    views = np.stack([embedder.view(draw_picture(224, 224, seed)) for seed in range(20)])
    threads = torch.get_num_threads()
    found = set()
    for count in (1, 2):
        torch.set_num_threads(count)
        for rows in (1, 3, 17, 20):
            found.add(embedder.embed(views[:rows])[0].tobytes())
        found.add(embedder.embed(views[::-1])[-1].tobytes())
    torch.set_num_threads(threads)
    assert len(found) == 1


def test_a_view_is_of_the_size_that_the_folder_says(embedder: OpenClipEmbedder) -> None:
    picture = draw_picture(300, 400)
    np.testing.assert_array_equal(embedder.view(picture), square_view(picture, 224))


def test_a_name_says_everything_that_changes_the_output(made: Path, folder: Path) -> None:
    digest = digest_folder(made)
    assert load(made).name == f"{NAME}#{digest[:8]}/bicubic224/fp32"
    assert load(made, precision="bf16").name == f"{NAME}#{digest[:8]}/bicubic224/bf16"
    change_config(folder, lambda config: config["model_cfg"].update(quick_gelu=True))
    assert load(folder).name != load(made).name


def test_quick_gelu_is_what_the_folder_says(made: Path, folder: Path, embedder: OpenClipEmbedder) -> None:
    change_config(folder, lambda config: config["model_cfg"].update(quick_gelu=True))
    views = embedder.view(draw_picture(224, 224))[None]
    assert not np.array_equal(load(folder).embed(views), embedder.embed(views))


def test_the_folder_must_be_the_pinned_one(made: Path, folder: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist; get the weights first"):
        load(made.parent / "none", sha256="0" * 64)
    with pytest.raises(WeightsError, match="is not pinned; found sha256"):
        load(made, sha256="")
    pin = digest_folder(folder)
    (folder / "README.md").write_text("more")
    with pytest.raises(WeightsError, match=f"expected sha256 {pin}, found"):
        load(folder, sha256=pin)


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_an_error_and_never_a_random_model(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=f"found no {missing}"):
        load(folder)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pt", "extra/model.pth", "a.pkl", "b.ckpt"])
def test_pickled_weights_are_refused_even_beside_good_ones(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(WeightsError, match="pickled weights can run code"):
        load(folder)


def spoil(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE)


def test_weights_that_do_not_fill_the_tower_are_an_error(folder: Path) -> None:
    spoil(folder, lambda tensors: tensors.pop("visual.proj"))
    with pytest.raises(WeightsError, match="open_clip cannot build this model"):
        load(folder)


def test_a_file_that_is_no_safetensors_file_is_an_error(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"\x80\x04pickle")
    with pytest.raises(WeightsError, match="open_clip cannot build this model"):
        load(folder)


def test_a_tower_that_gives_nan_is_an_error_at_load(folder: Path) -> None:
    spoil(folder, lambda tensors: tensors["visual.proj"].fill_(torch.nan))
    with pytest.raises(WeightsError, match=r"expected a finite embedding .* of a grey picture"):
        load(folder)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("preprocess_cfg", {"interpolation": "bilinear"}, "interpolation: expected bicubic, found bilinear"),
        ("preprocess_cfg", {"resize_mode": "longest"}, "resize_mode: expected shortest or squash, found longest"),
        ("preprocess_cfg", {"size": 256}, "size: expected 224 or \\[224, 224\\], found 256"),
        ("preprocess_cfg", {"mean": [0.5]}, "mean: expected three numbers"),
        ("preprocess_cfg", {"std": "0.5"}, "std: expected three numbers"),
        ("vision_cfg", {"image_size": [224, 256]}, "image_size: expected a square"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "built from a download"),
        ("vision_cfg", {"output_tokens": True}, "gives tokens beside the embedding"),
        ("model_cfg", {"text_cfg": None}, "expected JSON with model_cfg"),
    ],
)
def test_a_view_that_is_not_supported_is_an_error(
    folder: Path, section: str, change: dict[str, Any], message: str
) -> None:
    def put(config: dict[str, Any]) -> None:
        (config | config["model_cfg"])[section].update(change)

    change_config(folder, put)
    with pytest.raises(WeightsError, match=message):
        load(folder)


def test_what_the_folder_leaves_out_means_the_defaults_of_open_clip(folder: Path) -> None:
    def drop(config: dict[str, Any]) -> None:
        for key in ("interpolation", "resize_mode", "size"):
            del config["preprocess_cfg"][key]

    change_config(folder, drop)
    assert "/bicubic224/" in load(folder).name


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_cfg": 1, "preprocess_cfg": []}'])
def test_a_broken_configuration_is_an_error(folder: Path, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(WeightsError, match=f"{CONFIG_FILE}: expected JSON with model_cfg"):
        load(folder)


def test_a_stand_in_is_known_and_must_say_so_in_its_name(
    embedder: OpenClipEmbedder, made: Path, folder: Path
) -> None:
    assert embedder.stand_in
    with pytest.raises(WeightsError, match="the name must say so"):
        load(made, name="vit-b-32@1")
    change_config(folder, lambda config: config.pop("stand_in"))
    assert not load(folder, name="vit-b-32@1").stand_in
    change_config(folder, lambda config: config.update(stand_in="yes"))
    with pytest.raises(WeightsError, match="stand_in: expected true or false"):
        load(folder)


@pytest.mark.parametrize("change", [{"device": "tpu"}, {"precision": "fp16"}, {"precision": "auto"}, {"batch": 0}])
def test_only_resolved_devices_and_precisions_are_taken(made: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected cpu or cuda, fp32 or bf16"):
        load(made, **change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_cuda_where_there_is_none_is_an_error(made: Path) -> None:
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"cuda was asked for, but torch .* finds no CUDA device"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="finds no CUDA device"):
        load(made, device="cuda")


def test_automatic_precision_follows_the_hardware(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    assert resolve_precision("auto", "cpu", info) == "fp32"
    info.write_text("flags\t\t: fpu avx512f avx512_bf16_not\n")
    assert resolve_precision("auto", "cpu", info) == "fp32"
    for flag in ("avx512_bf16", "amx_bf16"):
        info.write_text(f"flags\t\t: fpu {flag} sse\n")
        assert resolve_precision("auto", "cpu", info) == "bf16"
        assert resolve_precision("fp32", "cpu", info) == "fp32"
    assert resolve_precision("auto", "cuda", tmp_path / "none") == "bf16"
    assert resolve_precision("bf16", "cpu", tmp_path / "none") == "bf16"


def test_unknown_words_are_errors() -> None:
    with pytest.raises(ValueError, match="device: expected auto, cpu or cuda, found 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(ValueError, match="precision: expected auto, fp32 or bf16, found 'fp16'"):
        resolve_precision("fp16", "cpu")


def test_a_stand_in_is_made_again_from_its_seed(made: Path, tmp_path: Path) -> None:
    assert stand_ins.write_stand_in_clip(tmp_path / "again", seed=1) == digest_folder(made)
    assert stand_ins.write_stand_in_clip(tmp_path / "other", seed=2) != digest_folder(made)


def test_a_stand_in_tells_pictures_apart(embedder: OpenClipEmbedder) -> None:
    rows = embedder.embed(np.stack([embedder.view(draw_picture(300, 300, seed)) for seed in range(16)])).astype(
        np.float32
    )
    alike = (rows @ rows.T)[~np.eye(16, dtype=np.bool_)]
    assert alike.max() < 0.999
    assert alike.mean() < 0.5
