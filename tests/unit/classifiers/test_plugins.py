"""Entry points: what is found, what is refused, and that every refusal says whose fault it is."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from made_plugins import install, install_example, installed

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.registry import find_importer, name_format
from classifiers.hashes.pdq import Pdq
from classifiers.hashes.registry import find_kind
from classifiers.heads.registry import load_head
from classifiers.plugins import CLASSIFIERS, HASHES, IMPORTERS, PluginError

EMBEDDER = "tiny-stand-in@1#1a2b3c4d/bicubic224/fp32"
DIMS = 48
MODULE = """
import numpy as np
from classifiers.blocklists.importers.plain import PlainImporter
from classifiers.signals import HashCode

class Kind:
    name, variants, code_bytes, shape = "mine:1", 1, 8, (1, 8)
    def encode(self, pixels):
        return HashCode(np.zeros(self.shape, np.uint8), None, usable=True)
class OtherName(Kind):
    name = "other:1"
class Ours(Kind):
    name = "pdq:mine"
class NoRecipe(Kind):
    name = "mine"
class Wide(Kind):
    shape = (8, 8)
class Silent(Kind):
    def encode(self, pixels):
        return None
class Raising(Kind):
    def encode(self, pixels):
        raise RuntimeError("out of order")

class Head:
    name, stand_in, scores = "a@1", False, np.array([0.2, 0.3], np.float32)
    def __init__(self, path, *, sha256, embedder_name, dims):
        self.full_name = f"{self.name}#{sha256[:8]}"
    def score(self, rows):
        return self.scores[: len(rows)]
class BadName(Head):
    name = "no version"
class FullName(Head):
    full_name = property(lambda self: self.name, lambda self, value: None)
class Double(Head):
    scores = np.array([0.2, 0.3])
class Outside(Head):
    scores = np.array([0.2, 1.3], np.float32)
class Short(Head):
    scores = np.array([0.2], np.float32)

class Importer(PlainImporter):
    name = "partner"
class Nameless(PlainImporter):
    name = "plain"
nothing = None
"""


@pytest.fixture
def offer(tmp_path):
    """Install a distribution that offers one object, and return what asks for it."""

    def install_one(group: str, value: str, name: str = "mine") -> None:
        install(tmp_path, "some-plugins", "2.0", {group: {name: value}}, plugged=MODULE)

    with installed(tmp_path):
        yield install_one


def load(tmp_path, kind, **others):
    path = tmp_path / "head"
    path.write_bytes(b"weights")
    pin = hashlib.sha256(b"weights").hexdigest()
    return load_head(
        kind, path, **({"sha256": pin, "embedder_name": EMBEDDER, "dims": DIMS, "backbones": ()} | others)
    )


def test_the_example_of_the_documents_keeps_the_contract_of_hash_kinds(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    with installed(install_example(tmp_path)):
        kind, again = find_kind("rowdiff"), find_kind("rowdiff")
    assert (kind.name, kind.variants, kind.code_bytes) == ("rowdiff:8x9", 1, 8)
    code = kind.encode(noise)
    assert (code.codes.dtype, code.codes.shape, code.quality, code.usable) == (np.uint8, (1, 8), None, True)
    assert (again.encode(np.asfortranarray(noise)).codes == code.codes).all()
    other = kind.encode(noise[::-1, ::-1])
    assert np.bitwise_count(code.codes ^ other.codes).sum() > 16
    assert not kind.encode(np.full((90, 70, 3), 30, np.uint8)).usable
    assert kind.encode(noise[:4]) is None
    assert kind.encode(noise[:5, :5]).codes.shape == (1, 8)
    with pytest.raises(ValueError, match="expected H x W x 3 uint8"):
        kind.encode(noise.astype(np.float32))


def test_the_example_of_the_documents_keeps_the_contract_of_heads(tmp_path):
    random = np.random.default_rng(1)
    file = {
        "name": "way@1",
        "embedder": "tiny-stand-in@1#1a2b3c4d/bicubic224",
        "direction": random.normal(size=DIMS).tolist(),
    }
    path = tmp_path / "head.json"
    path.write_text(json.dumps(file))
    options = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "embedder_name": EMBEDDER, "dims": DIMS}
    rows = random.normal(size=(50, DIMS))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    with installed(install_example(tmp_path / "site")):
        head = load_head("direction", path, backbones=(), **options)
        for other in (
            {"dims": DIMS + 1},
            {"embedder_name": "other@1#1a2b3c4d/bicubic224/fp32"},
            {"sha256": "0" * 64},
        ):
            with pytest.raises(ValueError, match=r"made for embedder|expected sha256"):
                load_head("direction", path, backbones=(), **options | other)
    assert head.full_name == f"way@1#{options['sha256'][:8]}"
    scores = head.score(rows)
    assert (scores.dtype, scores.shape) == (np.float32, (50,))
    assert ((scores >= 0) & (scores <= 1)).all()
    parts = [head.score(rows[start : start + 7]) for start in range(0, 50, 7)]
    assert np.concatenate(parts).tobytes() == scores.tobytes()
    rows[3, 0] = np.nan
    assert np.flatnonzero(np.isnan(head.score(rows))).tolist() == [3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("plugged:OtherName", "expected 'mine:' and a recipe, none of our algorithms, found 'other:1'"),
        ("plugged:NoRecipe", "found 'mine'"),
        ("plugged:Wide", r"expected codes of (1, 8) uint8"),
        ("plugged:Silent", "expected codes of"),
        ("plugged:Raising", "RuntimeError: out of order"),
        ("plugged:nothing", "TypeError"),
        ("plugged:Absent", "AttributeError"),
        ("no_such_module:Kind", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_hash_that_is_not_usable_is_blamed_on_its_distribution(offer, value, message):
    offer(HASHES, value)
    with pytest.raises(PluginError, match=re.escape(message)) as caught:
        find_kind("mine")
    assert f"plug-in 'mine' of some-plugins==2.0 (shardscrub.hashes: {value}): " in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("plugged:BadName", "expected name@version"),
        ("plugged:FullName", "full_name: expected a@1#"),
        ("plugged:Double", "expected one float32"),
        ("plugged:Outside", "expected one float32 from 0 to 1"),
        ("plugged:Short", "expected one float32"),
        ("plugged:nothing", "TypeError"),
    ],
)
def test_a_head_that_is_not_usable_is_blamed_on_its_distribution(offer, tmp_path, value, message):
    offer(CLASSIFIERS, value)
    with pytest.raises(PluginError, match=re.escape(message)) as caught:
        load(tmp_path, "mine")
    assert f"plug-in 'mine' of some-plugins==2.0 (shardscrub.classifiers: {value}): " in str(caught.value)


def test_a_head_of_a_plugin_is_pinned_and_names_its_embedder_itself(offer, tmp_path):
    offer(CLASSIFIERS, "plugged:Head")
    assert load(tmp_path, "mine").name == "a@1"
    for others, message in (
        ({"sha256": "0" * 64}, "expected sha256"),
        ({"backbones": ("x",)}, "leave backbones out"),
    ):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, "mine", **others)


@pytest.mark.parametrize("value", ["plugged:Nameless", "plugged:nothing", "plugged:Kind"])
def test_an_importer_that_is_not_usable_is_blamed_on_its_distribution(offer, tmp_path, value):
    offer(IMPORTERS, value)
    with pytest.raises(ListError, match=r"plug-in 'mine' of some-plugins==2\.0"):
        find_importer("mine", [tmp_path])


def test_an_importer_reads_a_list_and_the_format_says_whose_it_is(offer, tmp_path):
    offer(IMPORTERS, "plugged:Importer", "partner")
    path = tmp_path / "list.csv"
    path.write_text(f"md5\n{'ab' * 16}\n")
    importer = find_importer("partner", [path])
    assert collect(importer.read([path], ReadOptions())).taken == 1
    assert name_format(importer) == "partner of some-plugins==2.0"
    assert name_format(find_importer("auto", [path])) == "plain"


def ask(group, name, tmp_path):
    if group == HASHES:
        return find_kind(name)
    return load(tmp_path, name) if group == CLASSIFIERS else find_importer(name, [tmp_path])


@pytest.mark.parametrize(
    ("group", "own", "near"),
    [(HASHES, "dhash", "dhas"), (CLASSIFIERS, "zero-shot", "zeroshot"), (IMPORTERS, "ncmec", "ncmek")],
)
def test_a_name_that_nobody_has_is_refused_with_the_nearest_that_somebody_has(offer, tmp_path, group, own, near):
    offer(group, "plugged:Kind", "harrier")
    with pytest.raises(ValueError, match=f"'{near}' is unknown; did you mean '{own}'"):
        ask(group, near, tmp_path)
    with pytest.raises(ValueError, match="'harier' is unknown; did you mean 'harrier'"):
        ask(group, "harier", tmp_path)
    with pytest.raises(ValueError, match=f"'xyz' is unknown; known: .*{own}.*harrier"):
        ask(group, "xyz", tmp_path)


@pytest.mark.parametrize(("group", "own"), [(HASHES, "pdq:fullres"), (CLASSIFIERS, "mlp"), (IMPORTERS, "plain")])
def test_nothing_replaces_a_kind_of_ours(offer, tmp_path, group, own):
    offer(group, "plugged:Kind", own)
    with pytest.raises(ValueError, match=r"some-plugins==2\.0 .*the name is shardscrub's own"):
        ask(group, "another", tmp_path)
    if group == HASHES:
        assert type(find_kind(own)) is Pdq


def test_no_recipe_begins_with_an_algorithm_of_ours(offer):
    offer(HASHES, "plugged:Ours", "pdq")
    with pytest.raises(PluginError, match="none of our algorithms, found 'pdq:mine'"):
        find_kind("pdq")


def test_two_distributions_with_one_name_are_refused(offer, tmp_path):
    offer(HASHES, "plugged:Kind")
    install(tmp_path, "more-plugins", "1.0", {HASHES: {"mine": "plugged:Kind"}})
    with pytest.raises(PluginError, match=r"more-plugins==1\.0.* bear one name") as caught:
        find_kind("mine")
    assert "some-plugins==2.0" in str(caught.value)


def test_nothing_of_a_plugin_is_loaded_before_its_name_is_asked_for(offer, tmp_path):
    offer(HASHES, "plugged:Kind")
    (tmp_path / "plugged.py").write_text("raise SystemExit")
    assert find_kind("dhash").code_bytes == 8
    with pytest.raises(PluginError, match="unknown"):
        find_kind("thine")
