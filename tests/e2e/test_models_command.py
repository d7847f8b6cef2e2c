"""`shardscrub models`: from another machine's files to a configuration that names them, and what verify sees."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import tomllib
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import safetensors.torch
import torch
from in_process import call, files, message
from PIL import Image
from scrapes import ROOT
from stand_ins import draw_picture, write_stand_in_clip, write_stand_in_head

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.torchvision_schemas import open_clip
from classifiers.weights import digest_folder
from pipeline.config import load_config

NAME = "tiny-clip@1"


class Archive(open_clip.CLIP):
    """A CLIP as OpenAI published them: fp16, traced, with three numbers beside the weights and no mask."""

    def __init__(self, **config: object) -> None:
        super().__init__(**config)
        mask = self.attn_mask
        del self._buffers["attn_mask"]
        self.attn_mask = mask
        for name in ("input_resolution", "context_length", "vocab_size"):
            if hasattr(self, name):
                delattr(self, name)
            self.register_buffer(name, torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a model saved directly, the same as an archive, golden vectors of it, and a registry."""
    root = tmp_path_factory.mktemp("tiny")
    write_stand_in_clip(root / "direct", seed=5)
    config = json.loads((root / "direct" / CONFIG_FILE).read_bytes())
    del config["stand_in"]
    for name, gelu in (("tiny-test-quickgelu", True), ("tiny-test-gelu", False)):
        config["model_cfg"]["quick_gelu"] = gelu
        (root / f"{name}.json").write_text(json.dumps(config["model_cfg"]))
        open_clip.add_model_config(root / f"{name}.json")
    config["model_cfg"]["quick_gelu"] = True
    (root / "direct" / CONFIG_FILE).write_text(json.dumps(config))
    model = Archive(**config["model_cfg"]).eval()
    weights = safetensors.torch.load_file(root / "direct" / WEIGHTS_FILE)
    model.load_state_dict(weights, strict=False)
    make_sensitive(model.visual)
    state = {name: value.half().float() for name, value in model.state_dict().items() if name in weights}
    safetensors.torch.save_file(state, root / "direct" / WEIGHTS_FILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace_module(model.half(), {"forward": torch.ones(1)}, check_trace=False)
        torch.jit.save(traced, root / "tiny.pt")
    write_golden(root)
    write_registry(root, "models.toml")
    return root


def make_sensitive(visual: torch.nn.Module) -> None:
    """Let the activation matter, as it does in trained towers: random ones are nearly linear."""
    with torch.no_grad():
        for block in visual.transformer.resblocks:
            block.mlp.c_fc.weight *= 3
            block.mlp.c_proj.weight *= 4
        pictures = np.stack([draw_picture(224, 224, seed) for seed in range(16)])
        projection, visual.proj = visual.proj, None
        visual.ln_post.bias -= visual(torch.tensor(pictures).permute(0, 3, 1, 2) / 64 - 2).mean(dim=0)
        visual.proj = projection


def tower(folder) -> OpenClipEmbedder:
    pin = digest_folder(folder)
    return OpenClipEmbedder(folder, name=NAME, sha256=pin, device="cpu", precision="fp32", batch=32)


def write_golden(root) -> None:
    (root / "images").mkdir()
    names = [f"{seed}.png" for seed in range(4)]
    for seed, name in enumerate(names):
        Image.fromarray(draw_picture(200 + 30 * seed, 300, seed)).save(root / "images" / name)
    direct = tower(root / "direct")
    views = np.stack([direct.view(np.array(Image.open(root / "images" / name))) for name in names])
    np.savez(root / "golden.npz", filename=np.array(names), embedding=direct.embed(views))


def write_registry(root, name, *, shape="tiny-test-quickgelu", archive="tiny.pt") -> None:
    digests = {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in (archive, "golden.npz")}
    (root / name).write_text(
        f'[[model]]\nname = "{NAME}"\ntask = "embedding"\nkind = "open-clip"\nlicence = "MIT"\n'
        f'open_clip_model = "{shape}"\n'
        f'golden = {{ file = "golden.npz", sha256 = "{digests["golden.npz"]}", images = "images" }}\n'
        f'[[model.file]]\npath = "{archive}"\nsha256 = "{digests[archive]}"\n'
    )


@pytest.fixture(scope="module")
def pulled(tiny, tmp_path_factory):
    models = tmp_path_factory.mktemp("pulled") / "models"
    done = call("models", "pull", NAME, "--models", models, "--from", tiny, "--registry", tiny / "models.toml")
    assert done.code == 0, done.err
    return models, done.out


@pytest.fixture
def copied(pulled, tmp_path):
    return shutil.copytree(pulled[0], tmp_path / "models")


def verify(models, *arguments):
    return call("models", "verify", "--models", models, *arguments)


def pasted(text: str, folder):
    """Read the tables that were printed as part of a configuration."""
    tables = text[text.index("\n\n[") :]
    head = 'collection = "c"\n[[input]]\nshards = "s/*.tar"\n[policy]\nprofile = "separation"\n'
    (folder / "scrub.toml").write_text(head + tables)
    return load_config(folder / "scrub.toml")


def test_an_archive_becomes_a_folder_with_the_same_embeddings_to_the_bit(tiny, pulled):
    place = pulled[0] / NAME / "open_clip"
    assert sorted(path.name for path in place.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    views = np.stack([draw_picture(224, 224, seed) for seed in range(3)])
    assert np.array_equal(tower(place).embed(views), tower(tiny / "direct").embed(views))
    stored = safetensors.torch.load_file(place / WEIGHTS_FILE)
    assert {value.dtype for value in stored.values()} == {torch.float32}
    assert not {"input_resolution", "context_length", "vocab_size"} & stored.keys()


def test_what_pull_prints_is_a_configuration(pulled, tmp_path):
    models, text = pulled
    embedder = pasted(text, tmp_path).embedder
    assert (embedder.name, embedder.folder) == (NAME, models / NAME / "open_clip")
    assert embedder.sha256 == digest_folder(models / NAME / "open_clip")


def test_pulling_again_changes_nothing(tiny, copied):
    before = files(copied)
    arguments = ("--models", copied, "--from", tiny, "--registry", tiny / "models.toml")
    assert call("models", "pull", NAME, *arguments).code == 0
    assert files(copied) == before


def test_a_folder_that_was_half_made_is_made_again(tiny, copied):
    whole = files(copied)
    (copied / NAME / "open_clip" / CONFIG_FILE).unlink()
    (copied / NAME / "open_clip" / WEIGHTS_FILE).write_bytes(b"half")
    call("models", "pull", NAME, "--models", copied, "--from", tiny, "--registry", tiny / "models.toml")
    assert {name: digest for name, (*_, digest) in files(copied).items()} == {
        name: digest for name, (*_, digest) in whole.items()
    }


def test_golden_vectors_agree_and_are_asked_for_where_they_are_not_given(tiny, pulled):
    registry = ("--registry", tiny / "models.toml")
    done = verify(pulled[0], *registry, "--golden", tiny)
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert f"{NAME}: verified, loaded; golden vectors agree on 4 images: cosine 1.0000" in done.out
    done = verify(pulled[0], *registry)
    assert done.code == 0
    assert "golden not checked: --golden FOLDER with golden.npz" in done.out


def test_golden_vectors_show_a_wrong_activation(tiny, tmp_path):
    write_registry(tiny, "gelu.toml", shape="tiny-test-gelu")
    arguments = ("--models", tmp_path / "models", "--registry", tiny / "gelu.toml")
    assert call("models", "pull", NAME, "--from", tiny, *arguments).code == 0
    assert call("models", "verify", *arguments).code == 0
    done = call("models", "verify", *arguments, "--golden", tiny)
    assert done.code == 3
    assert "golden vectors: expected cosines of 0.999 or more, found 0." in done.out
    assert "other weights, activation or preprocessing" in done.out


def test_golden_vectors_show_other_pictures_and_are_pinned_themselves(tiny, pulled, tmp_path):
    shutil.copytree(tiny / "images", tmp_path / "images")
    shutil.copy(tiny / "golden.npz", tmp_path)
    Image.fromarray(draw_picture(200, 300, 77)).save(tmp_path / "images" / "2.png")
    arguments = ("--registry", tiny / "models.toml", "--golden", tmp_path)
    assert "(2.png): other weights" in verify(pulled[0], *arguments).out
    (tmp_path / "golden.npz").write_bytes(b"another")
    assert "golden vectors" in verify(pulled[0], *arguments).out
    assert "expected sha256" in verify(pulled[0], *arguments).out


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("tiny.pt", "tiny.pt: "),
        (f"open_clip/{WEIGHTS_FILE}", f"{WEIGHTS_FILE} "),
        (f"open_clip/{CONFIG_FILE}", f"{CONFIG_FILE} "),
    ],
)
def test_verify_sees_every_changed_and_missing_file(tiny, copied, place, expected):
    path = copied / NAME / place
    path.write_bytes(path.read_bytes() + b" ")
    done = verify(copied, "--registry", tiny / "models.toml")
    assert done.code == 3
    assert expected.strip(": ") in done.out
    assert "expected sha256" in done.out
    path.unlink()
    done = verify(copied, "--registry", tiny / "models.toml")
    assert done.code == 3
    assert "does not exist" in done.out


def test_verify_sees_what_is_not_of_a_model(tiny, copied):
    (copied / NAME / "open_clip" / "more.json").write_text("{}")
    done = verify(copied, "--registry", tiny / "models.toml")
    assert done.code == 3
    assert "more.json: is no file of this model" in done.out
    assert message(done) == f"error: {copied}: 1 of 1 models are not as pinned"


def test_verify_of_nothing_is_no_success(tmp_path):
    done = verify(tmp_path)
    assert done.code == 2
    assert "holds no model that is known" in message(done)


def test_an_archive_that_is_none_is_refused(tiny, tmp_path):
    (tiny / "none.pt").write_bytes(b"no zip")
    write_registry(tiny, "none.toml", archive="none.pt")
    arguments = ("--models", tmp_path, "--from", tiny, "--registry", tiny / "none.toml")
    assert "none.pt: not a TorchScript archive" in message(call("models", "pull", NAME, *arguments))
    write_registry(tiny, "shape.toml", shape="ViT-None")
    arguments = ("--models", tmp_path / "2", "--from", tiny, "--registry", tiny / "shape.toml")
    done = call("models", "pull", NAME, *arguments)
    assert (done.code, "knows no model 'ViT-None'" in message(done)) == (2, True)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder of models with two that were added."""
    root = tmp_path_factory.mktemp("mine")
    write_stand_in_clip(root / "clip", seed=3)
    write_stand_in_head(root / "head.safetensors", name="stand-in-head@1", embedder_name="e", dims=64, seed=1)
    models = ("--models", root / "models", "--licence", "MIT", "--task")
    added = [
        call("models", "add", "my-stand-in@1", *(root / "clip" / name for name in (CONFIG_FILE, WEIGHTS_FILE)),
             *models, "embedding", "--kind", "open-clip"),
        call("models", "add", "my-head@2", root / "head.safetensors", *models, "sexual", "--kind", "mlp"),
    ]  # fmt: skip
    assert [done.code for done in added] == [0, 0], added
    return root, added


def test_models_that_are_added_are_pinned_listed_and_verified(mine):
    root, added = mine
    digest = hashlib.sha256((root / "head.safetensors").read_bytes()).hexdigest()
    assert added[1].out == f"my-head@2: head.safetensors: sha256 {digest}\n"
    done = verify(root / "models")
    assert (done.code, done.out) == (
        0,
        "my-stand-in@1: verified, loaded; golden not checked: no published embeddings are known\n"
        "my-head@2: verified, not loaded: what it goes with stands in a configuration\n",
    )
    listed = [line.split() for line in call("models", "list", "--models", root / "models").out.splitlines()]
    assert listed[0] == ["name", "task", "licence", "kind", "pinned", "there"]
    assert ["my-head@2", "sexual", "MIT", "mlp", "yes", "yes"] in listed
    assert ["open-nsfw@1", "sexual", "BSD-2-Clause", "onnx", "yes", "no"] in listed


def test_models_that_were_added_move_to_another_machine_with_their_registry(mine, tmp_path):
    root = mine[0]
    registry = ("--registry", root / "models" / "models.toml", "--models", tmp_path / "there")
    done = call("models", "pull", "my-stand-in@1", "my-head@2", "--from", root / "models", *registry)
    assert done.code == 0, done.err
    assert call("models", "verify", *registry).code == 0
    config = pasted(done.out, tmp_path)
    assert config.embedder.sha256 == digest_folder(root / "clip")
    assert [head.kind for head in config.head] == ["mlp"]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("my-head@2", "mlp", "is known or there already"),
        ("open-nsfw@1", "onnx", "is known or there already"),
        ("new@1", "pickle", "kind: expected"),
        ("New", "mlp", "expected name@version"),
    ],
)
def test_add_refuses_and_writes_nothing(mine, name, kind, expected):
    root = mine[0]
    before = files(root)
    arguments = ("--models", root / "models", "--licence", "MIT", "--task", "sexual", "--kind", kind)
    done = call("models", "add", name, root / "head.safetensors", *arguments)
    assert (done.code, expected in message(done)) == (2, True), done.err
    assert files(root) == before


def test_add_keeps_what_a_person_writes(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"net")
    licence = 'Ours "alone" \\ ünd 🦉'
    arguments = ("--models", tmp_path, "--kind", "onnx", "--task", "sexual", "--licence", licence)
    assert call("models", "add", "a@1", tmp_path / "a.onnx", *arguments).code == 0
    (record,) = tomllib.loads((tmp_path / "models.toml").read_text())["model"]
    assert (record["licence"], record["file"][0]["bytes"]) == (licence, 3)


def test_a_model_without_a_pin_is_not_pulled(tmp_path):
    done = call("models", "pull", "laion2b-clip-vit-l-14@1", "--models", tmp_path)
    assert done.code == 2
    assert "shardscrub models add" in message(done)
    assert list(tmp_path.iterdir()) == []
    assert "no such model" in message(call("models", "pull", "laion2b", "--models", tmp_path))


BLOCKED = """
    import sys
    def hook(event, arguments):
        if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.send", "urllib")):
            raise SystemExit(f"network: {event}")
    sys.addaudithook(hook)
    import json
    from pipeline.cli import main
    for arguments in json.loads(sys.argv.pop()):
        sys.argv[1:] = arguments
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
"""


def without_network(*commands: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Run commands one after the other in a process that has no network, up to the first that fails."""
    given = json.dumps([[str(argument) for argument in command] for command in commands])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCKED), given],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_only_pull_has_a_network(mine, tmp_path):
    models = ("--models", shutil.copytree(mine[0] / "models", tmp_path / "models"))
    about = ("--kind", "mlp", "--task", "sexual", "--licence", "MIT")
    registry = ("--registry", mine[0] / "models" / "models.toml", "--models", tmp_path / "there")
    done = without_network(
        ("models", "list", *models),
        ("models", "add", "third@1", mine[0] / "head.safetensors", *about, *models),
        ("models", "pull", "my-head@2", "--from", mine[0], *registry),
    )
    assert done.returncode == 0, done
    done = without_network(("models", "verify", *models))
    assert done.returncode == 0, done
    assert done.stdout.count("verified") == 3
    # Pulling from a folder needs none either; from a mirror it does, which shows that the block bites.
    blocked = without_network(("models", "pull", "laion-nsfw-b32@1", "--from", "http://127.0.0.1:1", *registry))
    assert "network: " in blocked.stderr


@pytest.mark.shared_data
def test_published_weights_are_pulled_from_a_folder_and_verified(shared_data, tmp_path):
    names = ["laion-nsfw-b32@1", "laion-nsfw-l14@1", "laion-violence-b32@1", "laion-violence-l14@1", "nsfwjs@1",
             "face-age@1"]  # fmt: skip
    done = call("models", "pull", *names, "--models", tmp_path / "models", "--from", shared_data / "weights")
    assert done.code == 0, done.err
    checked = verify(tmp_path / "models")
    assert checked.code == 0, checked.out
    assert sorted(checked.out.splitlines()) == sorted(f"{name}: verified, loaded" for name in names)
    heads = "\n".join(part for part in done.out.split("\n\n") if part.startswith("[[head]]"))
    assert [item["backbones"] for item in tomllib.loads(heads)["head"]] == [[]] * 4
    assert heads.count("# the sha256 of openai-clip-vit-") == 4


def test_the_printed_backbone_is_the_folder_that_was_pulled(tiny, tmp_path):
    text = (tiny / "models.toml").read_text()
    for name in ("clip.zip", "golden.npz"):
        (tmp_path / name).write_bytes(b"head")
    text += (
        f'[[model]]\nname = "head@1"\ntask = "sexual"\nkind = "laion-nsfw"\nlicence = "MIT"\nbackbone = "{NAME}"\n'
    )
    text += f'[[model.file]]\npath = "clip.zip"\nsha256 = "{hashlib.sha256(b"head").hexdigest()}"\n'
    (tmp_path / "both.toml").write_text(text)
    shutil.copy(tiny / "tiny.pt", tmp_path)
    arguments = ("--models", tmp_path / "models", "--from", tmp_path, "--registry", tmp_path / "both.toml")
    done = call("models", "pull", NAME, "head@1", *arguments)
    assert done.code == 0, done.err
    config = pasted(done.out, tmp_path)
    assert config.head[0].backbones == (config.embedder.sha256,)


def test_the_archive_of_a_test_is_read_like_those_of_openai(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        state = torch.jit.load(io.BytesIO((tiny / "tiny.pt").read_bytes())).state_dict()
    assert {"input_resolution", "visual.proj", "token_embedding.weight", "logit_scale"} <= state.keys()
    assert state["visual.conv1.weight"].dtype == torch.float16
