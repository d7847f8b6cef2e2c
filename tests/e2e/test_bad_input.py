"""Bad input: one clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from in_process import call, files, message
from scrapes import Scrape, jpeg, shardscrub, write_tar

from classifiers.embedders.folder import CONFIG_FILE, WEIGHTS_FILE
from classifiers.weights import digest_folder

IMAGE = jpeg(1)


@pytest.fixture
def scrape(tmp_path) -> Scrape:
    made = Scrape.make(tmp_path / "scrape", release={})
    write_tar(made.shards / "00000.tar", [("a.jpg", IMAGE)])
    return made


def model_folder(root: Path, *, stand_in: bool = False) -> dict[str, object]:
    """A folder that reads as a model's and holds no weights: enough for all that is checked before loading."""
    folder = root / "models" / "clip"
    folder.mkdir(parents=True)
    third = [0.5, 0.5, 0.5]
    config = {
        "stand_in": stand_in,
        "model_cfg": {"embed_dim": 8, "vision_cfg": {"image_size": 224}, "text_cfg": {}},
        "preprocess_cfg": {"mean": third, "std": third},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / WEIGHTS_FILE).write_bytes(b"")
    return {"name": "clip-stand-in@1", "folder": "models/clip", "sha256": digest_folder(folder)}


def missing_folder(scrape: Scrape) -> None:
    scrape.settings["input"] = [{"shards": "nowhere/*.tar"}]


def no_such_shard(scrape: Scrape) -> None:
    scrape.settings["input"] = [{"shards": "shards/x*.tar"}]


def odd_braces(scrape: Scrape) -> None:
    scrape.settings["input"] = [{"shards": "shards/{00000..00001.tar"}]


def two_shards_of_one_name(scrape: Scrape) -> None:
    write_tar(scrape.root / "more" / "00000.tar", [("b.jpg", IMAGE)])
    scrape.settings["input"] = [{"shards": ["shards/*.tar", "more/*.tar"]}]


def shard_name_not_utf8(scrape: Scrape) -> None:
    os.rename(scrape.shards / "00000.tar", os.fsencode(scrape.shards) + b"/\xff.tar")


def unknown_key(scrape: Scrape) -> None:
    scrape.settings["decode"] = {"max_pixel": 100}


def unknown_table(scrape: Scrape) -> None:
    scrape.settings["lits"] = {"id": "x"}


def wrong_type(scrape: Scrape) -> None:
    scrape.settings["decode"] = {"max_pixels": "many"}


def out_of_range(scrape: Scrape) -> None:
    scrape.settings["release"] = {"max_fault_share_run": 1.5}


def missing_model(scrape: Scrape) -> None:
    scrape.settings["embedder"] = {"name": "clip@1", "folder": "models/none", "sha256": "0" * 64}


def missing_weights(scrape: Scrape) -> None:
    settings = model_folder(scrape.root)
    (scrape.root / "models/clip" / WEIGHTS_FILE).rename(scrape.root / "models/clip/other.safetensors")
    scrape.settings["embedder"] = {**settings, "sha256": digest_folder(scrape.root / "models/clip")}


def wrong_model_digest(scrape: Scrape) -> None:
    scrape.settings["embedder"] = {**model_folder(scrape.root), "sha256": "0" * 64}


def no_model_digest(scrape: Scrape) -> None:
    scrape.settings["embedder"] = {**model_folder(scrape.root), "sha256": ""}


def pickled_weights(scrape: Scrape) -> None:
    settings = model_folder(scrape.root)
    (scrape.root / "models/clip/pytorch_model.bin").write_bytes(b"")
    scrape.settings["embedder"] = {**settings, "sha256": digest_folder(scrape.root / "models/clip")}


def missing_head(scrape: Scrape) -> None:
    scrape.settings["embedder"] = model_folder(scrape.root)
    scrape.settings["head"] = [{"file": "heads/none.safetensors", "sha256": "0" * 64}]


def wrong_head_digest(scrape: Scrape) -> None:
    missing_head(scrape)
    (scrape.root / "heads").mkdir()
    (scrape.root / "heads/none.safetensors").write_bytes(b"not the one")


def missing_policy(scrape: Scrape) -> None:
    scrape.settings["policy"] = {"file": "policy.toml"}


def policy_of_an_unknown_signal(scrape: Scrape) -> None:
    write_policy(scrape, "list.csam.exat >= 1")


def policy_that_can_be_turned_round(scrape: Scrape) -> None:
    write_policy(scrape, "list.csam.exact <= 0")


def write_policy(scrape: Scrape, when: str) -> None:
    rule = f'[[rule]]\nid = "listed"\nwhen = "{when}"\naction = "SEAL"\n'
    (scrape.root / "policy.toml").write_text(f'name = "mine"\nrequired = ["list.csam.exact"]\n{rule}')
    scrape.settings["policy"] = {"file": "policy.toml"}


def unknown_profile(scrape: Scrape) -> None:
    scrape.settings["policy"] = {"profile": "separations"}


def profile_without_its_heads(scrape: Scrape) -> None:
    scrape.settings["policy"] = {"profile": "separation"}


def missing_list(scrape: Scrape) -> None:
    scrape.settings["list"] = [{"id": "partner"}]


def list_without_a_store(scrape: Scrape) -> None:
    del scrape.settings["lists"]


def required_list_not_configured(scrape: Scrape) -> None:
    scrape.settings["list"] = []


def no_recipient(scrape: Scrape) -> None:
    scrape.settings["sealed"] = {"recipients": []}


def no_real_recipient(scrape: Scrape) -> None:
    scrape.settings["sealed"] = {"recipients": [*scrape.settings["sealed"]["recipients"], "age1nonsense"]}


REFUSED = [
    (missing_folder, ["nowhere/*.tar", "does not exist"]),
    (no_such_shard, ["shards/x*.tar", "matches no file"]),
    (odd_braces, ["shards/{00000..00001.tar"]),
    (two_shards_of_one_name, ["two shards are named '00000'", "`prefix`"]),
    (shard_name_not_utf8, ["cannot name a shard", "UTF-8"]),
    (unknown_key, ["scrub.toml: decode.max_pixel: unknown key; did you mean 'max_pixels'?"]),
    (unknown_table, ["scrub.toml: lits: unknown key; did you mean 'lists'?"]),
    (wrong_type, ["scrub.toml: decode.max_pixels: expected int, found text"]),
    (out_of_range, ["scrub.toml: release.max_fault_share_run: expected 0 to 1, found 1.5"]),
    (missing_model, ["embedder 'clip@1'", "models/none does not exist", "never downloads"]),
    (missing_weights, ["models/clip", WEIGHTS_FILE]),
    (wrong_model_digest, ["embedder 'clip-stand-in@1'", "expected sha256 " + "0" * 64, "found"]),
    (no_model_digest, ["embedder 'clip-stand-in@1'", "is not pinned; found sha256"]),
    (pickled_weights, ["pytorch_model.bin", "pickled weights"]),
    (missing_head, ["heads/none.safetensors does not exist"]),
    (wrong_head_digest, ["heads/none.safetensors", "expected sha256 " + "0" * 64]),
    (missing_policy, ["[policy] file", "policy.toml", "cannot be read"]),
    (policy_of_an_unknown_signal, ["policy.toml: rule 'listed'", "did you mean 'list.csam.exact'?"]),
    (policy_that_can_be_turned_round, ["policy.toml: rule 'listed'", "more harm"]),
    (unknown_profile, ["'separations'; did you mean 'separation'?"]),
    (profile_without_its_heads, ["laion-nsfw-l14@1"]),
    (missing_list, ["list 'partner'", "has no such list; it has known"]),
    (list_without_a_store, ["[[list]] needs [lists] store"]),
    (required_list_not_configured, ["'list.csam.exact' can never speak"]),
    (no_recipient, ["[sealed] recipients is empty", "shardscrub cases keys new"]),
    (no_real_recipient, ["[sealed] recipients[1]", "age1"]),
]


@pytest.mark.parametrize(("change", "fragments"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("how", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_a_configuration_that_cannot_be_meant_is_refused_before_anything_is_written(scrape, change, fragments, how):
    change(scrape)
    scrape.write()
    before = files(scrape.root)
    done = call("run", scrape.config, "--workers", 1, *how)
    assert done.code == 2
    text = message(done)
    for fragment in fragments:
        assert fragment in text
    assert files(scrape.root) == before
    assert not scrape.collection.exists()


def test_a_configuration_that_cannot_be_read_is_refused(scrape, tmp_path):
    scrape.config.write_bytes(b"collection = [\xff")
    for path, fragment in (
        (scrape.config, "scrub.toml: not valid TOML"),
        (tmp_path / "none.toml", "none.toml: no such file; `shardscrub init DIR`"),
        (tmp_path, f"{tmp_path}: cannot be read (Is a directory)"),
    ):
        done = call("run", path)
        assert (done.code, fragment in message(done)) == (2, True)
    assert not scrape.collection.exists()


@pytest.mark.parametrize(
    ("stand_in", "arguments", "fragment"),
    [
        (True, (), "clip-stand-in@1: stand-in models judge nothing; for a trial set unsafe_stand_in_models = true"),
        (False, ("--device", "cuda"), "cuda"),
    ],
)
def test_a_stand_in_without_its_key_and_a_gpu_that_is_not_there_are_refused(
    scrape, monkeypatch, stand_in, arguments, fragment
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    scrape.settings["embedder"] = model_folder(scrape.root, stand_in=stand_in)
    scrape.write()
    done = (shardscrub if arguments else call)("run", scrape.config, *arguments)  # what is a GPU is asked but once
    assert done.code == 2
    assert fragment in message(done)
    assert not scrape.collection.exists()


def test_features_of_another_examine_plan_are_never_mixed_in(scrape):
    assert call("run", scrape.config, "--workers", 1).code == 0
    scrape.settings["decode"] = {"max_pixels": 1000}
    scrape.write()
    before = files(scrape.collection, but="journal")
    for command in ("run", "examine", "settle"):
        done = call(command, scrape.config, "--workers", 1)
        assert done.code == 2
        assert "holds features of another examine plan; these differ: decode" in message(done)
    assert files(scrape.collection, but="journal") == before


def test_an_examined_shard_that_has_changed_is_refused(scrape):
    assert call("run", scrape.config, "--workers", 1).code == 0
    write_tar(scrape.shards / "00000.tar", [("a.jpg", jpeg(2))])
    before = files(scrape.collection, but="journal")
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 4
    assert "shard 00000" in message(done)
    assert "is not what was examined; restore it" in done.err
    assert files(scrape.collection, but="journal") == before


def test_settling_what_was_never_examined_is_refused(scrape):
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 2
    assert "nothing is examined here yet" in message(done)
    assert not scrape.collection.exists()
    write_tar(scrape.shards / "00001.tar", [("b.jpg", IMAGE)])
    assert call("examine", scrape.config, "--part", "1/2", "--workers", 1).code == 0
    before = files(scrape.collection, but="journal")
    done = call("settle", scrape.config, "--workers", 1)
    assert done.code == 4
    assert "1 of 2 shards are not examined yet (the first is 00001)" in message(done)
    assert files(scrape.collection, but="journal") == before
