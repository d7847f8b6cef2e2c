"""The records of models: what ships says what its files are, and nothing else gets in."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hatchling.builders.wheel import WheelBuilder
from scrapes import ROOT

from classifiers.heads.registry import MADE, PUBLISHED
from classifiers.image.preprocessing import FACE_AGE, NSFWJS, OPEN_NSFW_SHA256
from classifiers.image.registry import KINDS
from classifiers.registry import HEAD_KINDS, SHIPPED, Model, ModelFile
from classifiers.torchvision_schemas import open_clip
from pipeline.errors import ConfigError
from pipeline.models.known import known_models, parse

KNOWN = known_models(Path("no-such-folder"), None)
FILES = [(model.name, file) for model in KNOWN.values() for file in model.file]
RECORD = (
    '[[model]]\nname = "a@1"\ntask = "sexual"\nkind = "onnx"\nlicence = "MIT"\n[[model.file]]\npath = "a.onnx"\n'
)


def folder_digest(model: Model) -> str:
    digests = {file.path: file.sha256 for file in model.file}
    return hashlib.sha256(json.dumps(digests, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_kinds_are_those_that_configurations_know():
    kinds = set(get_args(get_type_hints(Model)["kind"]))
    assert set(HEAD_KINDS) == MADE.keys() | PUBLISHED.keys()
    assert kinds - set(HEAD_KINDS) - {"open-clip"} <= KINDS.keys()


def test_heads_name_a_backbone_of_their_width():
    heads = [model for model in KNOWN.values() if model.kind in PUBLISHED]
    assert len(heads) == 4
    assert [model.name for model in heads if KNOWN[model.backbone].dims != model.dims] == []


def test_the_pins_are_those_that_the_readers_have():
    assert KNOWN["open-nsfw@1"].file[0].sha256 == OPEN_NSFW_SHA256
    assert folder_digest(KNOWN[NSFWJS.name]) == NSFWJS.sha256
    assert folder_digest(KNOWN[FACE_AGE.name]) == FACE_AGE.sha256


@pytest.mark.parametrize(("name", "file"), FILES, ids=lambda value: str(value)[:40])
def test_a_pinned_file_comes_from_an_address_that_cannot_move(name, file):
    # A commit, or the digest itself; a wheel has a version.
    moves = not (re.search(r"/[0-9a-f]{40}([0-9a-f]{24})?/", file.url) or "==" in file.wheel)
    assert moves is (not file.sha256)
    if KNOWN[name].open_clip_model:
        assert f"/{file.sha256}/" in file.url


def test_archives_of_openai_have_quickgelu_and_the_width_that_open_clip_knows():
    archives = [model for model in KNOWN.values() if model.open_clip_model]
    shapes = [open_clip.get_model_config(model.open_clip_model) for model in archives]
    assert [shape["embed_dim"] for shape in shapes] == [model.dims for model in archives] == [512, 512, 768]
    assert all(shape["quick_gelu"] and len(model.file) == 1 for shape, model in zip(shapes, archives, strict=True))


def test_every_model_says_its_limits_in_one_line():
    assert [model.name for model in KNOWN.values() if not 20 < len(model.notes) < 160] == []


def test_the_registry_is_in_the_wheel():
    shipped = {item.distribution_path for item in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "classifiers/models.toml" in shipped


@pytest.mark.parametrize("path", ["../a", "/a", "a/../b", "a//b", ".hidden", "a/.b", "a b", "", "a/", "a\n"])
def test_a_path_cannot_leave_the_folder_of_its_model(path):
    with pytest.raises(ValueError, match="path: expected"):
        ModelFile(path)


@pytest.mark.parametrize("address", ["file:///etc/hosts", "ftp://a/b", "a/b"])
def test_an_address_is_one_of_the_web(address):
    with pytest.raises(ValueError, match="url: expected"):
        ModelFile("a", url=address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[model", "not valid TOML"),
        ("[[models]]\n", "models: unknown key; did you mean 'model'"),
        (RECORD.replace("sexual", "sexy"), "model[0].task: expected 'embedding'"),
        (RECORD.replace('"onnx"', '"pickle"'), "model[0].kind: expected 'open-clip'"),
        (RECORD.replace("a@1", "A"), "expected name@version"),
        (RECORD + 'sha256 = "ABC"\n', "model[0].file[0]: sha256: expected"),
        (RECORD + '[[model.file]]\npath = "a.onnx"\n', "each path once"),
        (RECORD.replace('licence = "MIT"\n', ""), "model[0].licence: missing"),
    ],
)
def test_a_registry_that_is_not_one_is_refused_with_file_and_key(text, expected):
    with pytest.raises(ConfigError) as caught:
        parse(Path("mine.toml"), text.encode())
    assert str(caught.value).startswith("mine.toml: ")
    assert expected in str(caught.value)


def test_a_name_of_the_shipped_registry_cannot_be_taken(tmp_path):
    (tmp_path / "models.toml").write_text(RECORD.replace("a@1", "open-nsfw@1"))
    with pytest.raises(ConfigError, match="open-nsfw@1 is known already"):
        known_models(tmp_path, None)


def test_the_shipped_file_holds_nothing_but_models():
    assert set(tomllib.loads(SHIPPED.read_text())) == {"model"}


@pytest.mark.shared_data
def test_the_pins_are_those_of_the_real_files(shared_data):
    real = {path.name: path for path in shared_data.glob("weights/*/*")}
    found = [file for _, file in FILES if file.path in real]
    assert len(found) == 10
    for file in found:
        data = real[file.path].read_bytes()
        assert (file.sha256, file.bytes) == (hashlib.sha256(data).hexdigest(), len(data)), file.path
    golden = KNOWN["openai-clip-vit-b-32@1"].golden
    assert hashlib.sha256((shared_data / "clip" / golden.file).read_bytes()).hexdigest() == golden.sha256
