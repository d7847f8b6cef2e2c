"""Pixel nets and screened texts in a run: signals, policies, pins, and the same bytes for any number of workers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from crash_runs import copy_folder
from in_process import call
from onnx import TensorProto, helper
from PIL import Image
from scrapes import Scrape, draw, encode, outputs, write_tar

POLICY = """
name = "texts-and-nets"
required = ["redness@1", "caption.minor", "url.sexual", "caption.partner"]
[[rule]]
id = "red"
when = "redness@1 >= 0.55"
action = "REMOVE"
[[rule]]
id = "texts"
when = "caption.minor >= 1 or url.sexual >= 1 or caption.partner >= 1"
action = "REMOVE"
"""
SAMPLES = {  # key: (redness of the picture, caption, url)
    "plain": (60, "a bridge in the rain", "http://example.invalid/bridge.jpg"),
    "red": (250, "a bridge in the rain", "http://example.invalid/b.jpg"),
    "child": (60, "portrait of a CHÍLD by a lake", None),
    "spaced": (60, "see the c h i l d by a lake", None),
    "url": (60, None, "http://example.invalid/p%6Frn/1.jpg"),
    "partner": (60, "the word zzquux stands here", None),
    "nothing": (60, None, None),
}
# Captions that another caption of the same sample would hide, are no text, or cannot be read as JSON.
HIDDEN = {
    "behind-json": [("txt", b"a child by a lake"), ("json", b'{"caption": "a bridge"}')],
    "no-text": [("json", b'{"caption": ["a bridge", "a child"]}')],
    "no-json": [("json", b'{"caption": "a child", ')],
}


def write_redness(path: Path) -> str:
    """A net whose one output is the mean of the red channel, from 0 to 1."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["in"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "widths"], ["out"]),
        ],
        "redness",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor("widths", TensorProto.FLOAT, [3, 1], [1.0, 0.0, 0.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    root = tmp_path_factory.mktemp("nets")
    made = Scrape.make(root, text={"concepts": ["minor", "sexual"]}, policy={"file": "policy.toml"})
    (root / "policy.toml").write_text(POLICY)
    (root / "partner.txt").write_text("# coded words\nzzquux\n")
    terms = hashlib.sha256((root / "partner.txt").read_bytes()).hexdigest()
    made.settings["terms"] = [{"concept": "partner", "file": "partner.txt", "sha256": terms}]
    made.settings["net"] = [{"name": "redness@1", "file": "red.onnx", "sha256": write_redness(root / "red.onnx")}]
    made.write()
    preprocessing = {
        "size": 16, "resize_to": 16, "fit": "squash", "interpolation": "bilinear", "channels": "RGB",
        "layout": "NCHW", "scale": 1 / 255, "mean": [0.0] * 3, "std": [1.0] * 3, "outputs": [0],
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in preprocessing.items()]
    made.config.write_text("\n".join([made.config.read_text(), "[net.preprocessing]", *lines, ""]))
    for shard in range(3):
        members: list[tuple[str, bytes]] = []
        for number, (key, (red, caption, url)) in enumerate(SAMPLES.items()):
            pixels = np.array(draw(10 * shard + number))
            pixels[:, :, 0] = red
            name = f"{shard}{number}-{key}"
            members.append((f"{name}.png", encode(Image.fromarray(pixels), "PNG")))
            if caption is not None:
                members.append((f"{name}.txt", caption.encode()))
            if url is not None:
                members.append((f"{name}.json", json.dumps({"url": url}).encode()))
        for number, (key, texts) in enumerate(HIDDEN.items(), start=len(SAMPLES)):
            name = f"{shard}{number}-{key}"
            members += [(f"{name}.png", encode(draw(10 * shard + number), "PNG"))]
            members += [(f"{name}.{extension}", data) for extension, data in texts]
        write_tar(made.shards / f"{shard:05d}.tar", members)
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_texts_and_pictures_decide_and_the_strictest_rule_is_named(scrape):
    rows = {row["key"].partition("-")[2]: row for row in scrape.decisions() if row["shard"] == "00000"}
    assert {key: row["action"] for key, row in rows.items()} == {
        "plain": "KEEP", "red": "REMOVE", "child": "REMOVE", "spaced": "REMOVE", "url": "REMOVE",
        "partner": "REMOVE", "nothing": "KEEP", **dict.fromkeys(HIDDEN, "REMOVE"),
    }  # fmt: skip
    assert rows["red"]["reason"] == "rule:red"
    assert rows["url"]["reason"] == "rule:texts"
    assert rows["red"]["signal.redness@1"] == pytest.approx(250 / 255, abs=1e-3)
    assert (rows["nothing"]["signal.caption.minor"], rows["url"]["signal.url.sexual"]) == (0, 1)


def test_no_term_and_no_caption_is_in_the_release_or_the_console(scrape):
    release = b"".join(path.read_bytes() for path in (scrape.collection / "releases").rglob("*") if path.is_file())
    for word in (b"zzquux", b"lake", b"p%6Frn"):
        assert word not in release
    plan = (scrape.collection / "examine_plan.json").read_text()
    assert "redness@1#" in plan
    assert "minor@1#" in plan
    assert "zzquux" not in plan


def test_any_number_of_workers_gives_the_same_bytes(scrape, tmp_path):
    truth = outputs(scrape.collection, scrape.identity)
    copy_folder(scrape.collection, tmp_path / "first")
    copy_folder(None, scrape.collection)
    done = call("run", scrape.config, "--workers", 2)
    assert done.code == 0, done.err
    assert outputs(scrape.collection, scrape.identity) == truth


@pytest.mark.parametrize("name", ["red.onnx", "partner.txt"])
def test_a_changed_file_is_refused_by_its_pin(scrape, name):
    path = scrape.root / name
    good = path.read_bytes()
    path.write_bytes(good + b"\n")
    done = call("settle", scrape.config, "--workers", 1)
    path.write_bytes(good)
    assert done.code == 2
    assert "expected sha256" in done.err
    assert "zzquux" not in done.err


def test_a_preprocessing_that_cannot_be_meant_is_refused(scrape, tmp_path):
    config = scrape.config.read_text()
    scrape.config.write_text(config.replace("resize_to = 16", "resize_to = 8"))
    done = call("settle", scrape.config, "--workers", 1)
    scrape.config.write_text(config)
    assert done.code == 2
    assert "net[0].preprocessing: expected 1 <= size <= resize_to" in done.err
