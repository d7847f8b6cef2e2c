"""`train-head` from end to end, on a small collection with withheld, broken and doubled pictures."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import stand_ins
from in_process import call, message
from PIL import Image
from scrapes import Scrape, draw, encode, write_list, write_tar

from classifiers.hashes.digests import take_digests
from classifiers.heads.mlp import MlpHead
from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.records import digest_json

COUNT = 260
SHARDS = ("00000", "00001")
WITHHELD = (3, 130, 207)
BROKEN = 11
NAME = "magenta-stand-in@1"
CAPTION = "an unlikely caption"
HOST = "pictures.invalid"


@dataclass(frozen=True)
class Trained:
    """What one call left."""

    text: str
    card: dict
    head: bytes
    markdown: str


def is_magenta(number: int) -> bool:
    return number % 3 == 0


def key(number: int) -> str:
    return f"{SHARDS[number % 2]}/{number:05d}"


def picture(number: int) -> bytes:
    drawn = draw(number, size=(64, 48))
    if is_magenta(number):
        drawn = Image.blend(drawn, Image.new("RGB", drawn.size, (255, 0, 255)), 0.6)
    return encode(drawn, quality=85)


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("training")
    sha256 = stand_ins.write_stand_in_clip(root / "model", seed=3)
    embedder = {"name": "tiny-stand-in@1", "folder": "model", "sha256": sha256, "batch": 32, "precision": "fp32"}
    scrape = Scrape.make(root, embedder=embedder, unsafe_stand_in_models=True)
    pictures = [picture(number) for number in range(COUNT)]
    pictures[BROKEN] = pictures[BROKEN][:-300]
    listed = [("md5", take_digests(pictures[number]).md5) for number in WITHHELD]
    write_list(root / "lists/known.csv", [("pdq", bytes(range(32))), *listed])
    for place, shard in enumerate(SHARDS):
        members = []
        for number in range(place, COUNT, 2):
            about = json.dumps({"url": f"http://{HOST}/{number}.jpg", "caption": CAPTION}).encode()
            members += [(f"{number:05d}.jpg", pictures[number]), (f"{number:05d}.json", about)]
        members.append(("again.jpg", pictures[6 + place]))
        write_tar(scrape.shards / f"{shard}.tar", members)
    done = call("examine", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape.collection


def lines(numbers=range(COUNT)) -> list[str]:
    return [f"{key(number)},{int(is_magenta(number))}" for number in numbers]


def write_labels(folder: Path, rows: list[str], header: str = "key,label") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def train(collection: Path, folder: Path, labels: Path, *arguments: object, name: str = NAME) -> Trained:
    out = folder / "heads" / "magenta.safetensors"
    done = call("train-head", collection, "--labels", labels, "--name", name, "--out", out, *arguments)
    assert done.code == 0, done.err
    assert sorted(path.name for path in out.parent.iterdir()) == [
        out.name, f"{out.name}.card.json", f"{out.name}.card.md",
    ]  # fmt: skip
    card, markdown = (out.with_name(f"{out.name}.card.{kind}").read_text() for kind in ("json", "md"))
    return Trained(done.out, json.loads(card), out.read_bytes(), markdown)


def refusal(collection: Path, folder: Path, labels: Path, *arguments: object, name: str = NAME) -> str:
    out = folder / "heads" / "magenta.safetensors"
    done = call("train-head", collection, "--labels", labels, "--name", name, "--out", out, *arguments)
    assert done.code == 2
    assert not out.parent.exists()
    assert all(word not in done.err for word in (CAPTION, HOST, "00000/", "00001/"))
    return message(done)


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_a_head_is_trained_written_and_described(collection, tmp_path, kind):
    made = train(collection, tmp_path, write_labels(tmp_path, lines()), "--kind", kind, "--hidden", 8)
    card, plan = made.card, json.loads((collection / "examine_plan.json").read_bytes())
    assert card["data"]["examine_plan"] == digest_json(plan)
    assert (card["data"]["labels"], card["data"]["without_embedding"]) == (COUNT, len(WITHHELD) + 1)
    assert sum(row["label_0"] + row["label_1"] for row in card["data"]["rows"]) == COUNT - len(WITHHELD) - 1
    assert (card["method"]["kind"], card["method"]["hidden"]) == (kind, 8 if kind == "mlp" else 0)
    assert card["stamps"] == ["unsafe_stand_in_models"]
    sha256 = card["head"]["sha256"]
    assert f'\n[[head]]\nfile = "{tmp_path}/heads/magenta.safetensors"\nsha256 = "{sha256}"\n' in made.text
    assert "UNSAFE    unsafe_stand_in_models" in made.text
    head = MlpHead.load(
        tmp_path / "heads/magenta.safetensors",
        sha256=sha256,
        embedder_name=plan["embedder"],
        dims=plan["dims"],
    )
    assert (head.name, head.stand_in, len(head.layers)) == (NAME, True, 2 if kind == "mlp" else 1)
    errors = card["known_errors_at_0.5"]
    test = card["data"]["rows"][2]
    assert errors["missed"] + errors["false_positives"] < 0.3 * (test["label_0"] + test["label_1"])


def test_the_markdown_says_what_the_json_says(collection, tmp_path):
    made = train(collection, tmp_path, write_labels(tmp_path, lines()))
    for text in (
        NAME, made.card["head"]["sha256"], made.card["data"]["examine_plan"], made.card["data"]["embedder"],
        made.card["data"]["labels_sha256"], "unsafe_stand_in_models", *made.card["limits"],
    ):  # fmt: skip
        assert text in made.markdown
    assert len(made.card["limits"]) == 7
    assert made.markdown.count("| 0.5 | no claim: n = ") == 1
    for row in made.card["calibration"]["after"]["bins"]:
        assert f"| {row['from']:.4g} | {row['n']} | {row['positives']} |" in made.markdown


def test_no_rate_is_stated_of_few_rows_and_no_group_without_them(collection, tmp_path):
    rows = [f"{line},{'small' if number % 5 else 'tall'}" for number, line in enumerate(lines())]
    made = train(collection, tmp_path, write_labels(tmp_path, rows, "key,label,group"))
    half = next(row for row in made.card["test"]["rates"] if row["threshold"] == 0.5)
    test = made.card["data"]["rows"][2]
    assert half["recall"] == {"n": test["label_1"], "no_claim": f"n = {test['label_1']} < 59"}
    assert f"recall at 0.5: no claim: n = {test['label_1']} < 59" in made.text
    assert {row["group"] for row in made.card["data"]["groups"]} == {"small", "tall"}
    assert {row["group"] for row in made.card["test"]["groups"]} == {"small", "tall"}
    assert all("rate" not in row["false_positive_rate"] for row in made.card["test"]["groups"])


def test_neither_a_withheld_sample_nor_the_order_of_the_file_changes_the_head(collection, tmp_path):
    first = train(collection, tmp_path, write_labels(tmp_path, lines()))
    without = [line for number, line in enumerate(lines()) if number not in WITHHELD]
    shuffled = list(without)
    random.Random(3).shuffle(shuffled)
    turned = [f"{key(number)},{int(not is_magenta(number))}" for number in WITHHELD]
    for rows, blank in ((without, 1), (shuffled, 1), ([*turned, *without], 1 + len(WITHHELD))):
        again = train(collection, tmp_path, write_labels(tmp_path, rows))
        assert again.head == first.head
        assert again.card["data"]["without_embedding"] == blank
        assert {**again.card, "data": 0} == {**first.card, "data": 0}


def test_neither_the_card_nor_the_console_holds_a_key_a_url_or_a_caption(collection, tmp_path):
    made = train(collection, tmp_path, write_labels(tmp_path, lines()))
    for text in (made.text, json.dumps(made.card), made.markdown):
        assert all(word not in text for word in ("00000/", "00001/", "again", HOST, "jpg", CAPTION))


def test_a_source_lies_on_one_side(collection, tmp_path):
    rows = [f"{line},album-{number // 87}" for number, line in enumerate(lines())]
    path = write_labels(tmp_path, rows, "key,label,source")
    # Three albums cannot fill three parts under every seed: those that do hold whole albums.
    for seed in range(40):
        out = tmp_path / "heads" / "magenta.safetensors"
        done = call("train-head", collection, "--labels", path, "--name", NAME, "--out", out, "--seed", seed)
        if done.code == 0:
            break
    card = json.loads(out.with_name(f"{out.name}.card.json").read_text())
    sizes = [row["label_0"] + row["label_1"] for row in card["data"]["rows"]]
    assert sum(sizes) == COUNT - 4
    albums = [
        len([n for n in range(a * 87, min(COUNT, a * 87 + 87)) if n not in (*WITHHELD, BROKEN)]) for a in range(3)
    ]
    assert sorted(sizes) == sorted(albums)


def test_a_picture_that_lies_there_twice_counts_once_and_has_one_label(collection, tmp_path):
    rows = [*lines(), f"00000/again,{int(is_magenta(6))}"]
    assert train(collection, tmp_path, write_labels(tmp_path, rows)).card["data"]["pictures"] == COUNT - 4
    shutil.rmtree(tmp_path / "heads")
    rows = [*lines(), f"00000/again,{int(not is_magenta(6))}"]
    assert f"lines 8 and {COUNT + 2}: the same picture has" in refusal(
        collection, tmp_path, write_labels(tmp_path, rows)
    )


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("key,label,colour", "", "line 1: expected one of the headers key,label; key,label,group"),
        ("label,key", "", "line 1: expected one of the headers"),
        ("key,label", "00000/x,yes", f"line {COUNT + 2}: expected key,label, with a label of 0 or 1"),
        ("key,label", "00000/x", f"line {COUNT + 2}: expected key,label"),
        ("key,label", "00000/x,1,2", f"line {COUNT + 2}: expected key,label"),
        ("key,label", f"{key(0)},1", f"line {COUNT + 2}: this key is labelled twice; line 2 has it too"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(collection, tmp_path, header, row, words):
    assert words in refusal(collection, tmp_path, write_labels(tmp_path, [*lines(), row], header))


def test_groups_are_few_and_have_short_names(collection, tmp_path):
    rows = [f"{line},{CAPTION}: {'long ' * 20}" for line in lines()]
    assert "line 2: a group is a short name" in refusal(
        collection, tmp_path, write_labels(tmp_path, rows, "key,label,group")
    )
    rows = [f"{line},{number}" for number, line in enumerate(lines())]
    assert "more than 100 groups" in refusal(collection, tmp_path, write_labels(tmp_path, rows, "key,label,group"))


def test_too_few_pictures_of_a_label_are_counted_by_part(collection, tmp_path):
    one_class = [line for number, line in enumerate(lines()) if not is_magenta(number)]
    text = refusal(collection, tmp_path, write_labels(tmp_path, one_class))
    assert "expected 10 pictures of each label in each part, found fit: " in text
    assert text.count("0 of label 1") == 3
    text = refusal(collection, tmp_path, write_labels(tmp_path, ["elsewhere/1,1", "00000/unknown,0"]))
    assert "found fit: 0 of label 0, 0 of label 1; calibrate: 0" in text
    assert "0 of 2 labels have an embedding" in text


def test_options_that_cannot_be_are_refused(collection, tmp_path):
    path = write_labels(tmp_path, lines())
    assert "--kind: expected logistic or mlp" in refusal(collection, tmp_path, path, "--kind", "tree")
    assert "l2: expected above 0" in refusal(collection, tmp_path, path, "--l2", 0)
    assert "put 'stand-in' into it" in refusal(collection, tmp_path, path, name="magenta@1")
    assert "cannot be read (FileNotFoundError)" in refusal(collection, tmp_path, tmp_path / "no-such.csv")
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read (UnicodeDecodeError)" in refusal(collection, tmp_path, path)


def test_embeddings_of_another_width_or_plan_are_refused(collection, tmp_path):
    home = Collection(shutil.copytree(collection, tmp_path / "copy"))
    plan = json.loads(home.examine_plan.read_bytes()) | {"dims": 65}
    home.examine_plan.write_text(json.dumps(plan))
    path = write_labels(tmp_path, lines())
    assert "another plan or width than examine_plan.json names" in refusal(home.root, tmp_path, path)
    for shard in SHARDS:
        commit = replace(ExamineCommit.read(home.commit(shard)), plan=digest_json(plan))
        commit.write(home.commit(shard), replace=True, mode=0o600)
    assert "another plan or width than examine_plan.json names (65)" in refusal(home.root, tmp_path, path)


def test_a_collection_without_an_embedder_has_nothing_to_learn_from(tmp_path):
    scrape = Scrape.make(tmp_path / "scrape")
    write_tar(scrape.shards / "a.tar", [("a.jpg", picture(1))])
    assert call("examine", scrape.config, "--workers", 1).code == 0
    path = write_labels(tmp_path, lines())
    assert "examined without an embedder" in refusal(scrape.collection, tmp_path, path)
