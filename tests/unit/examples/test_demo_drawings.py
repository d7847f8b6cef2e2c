import csv
import io
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "demo"))

from draw import MAGENTA, Drawing, encode, paint, plan
from plant import CHANGES, COPIES, KINDS, choose, plant_files, second_image
from serve import serving

from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.registry import find_importer
from classifiers.hashes.pdq import Pdq

SEED = 7
RADIUS = 31


def code(picture):
    hashed = Pdq().encode(np.asarray(picture.convert("RGB")))
    assert hashed is not None
    return hashed


def bits_apart(one, other):
    """Hamming distance of the first code of one picture to the nearest variant of the other."""
    return int(np.bitwise_count(code(one).codes[0] ^ code(other).codes).sum(axis=1).min())


def share_of_mark(picture):
    square = np.asarray(ImageOps.fit(picture, (200, 200))).astype(int)
    return float((np.abs(square - MAGENTA).max(axis=2) < 90).mean())


def test_the_shares_of_what_is_drawn_are_exact():
    kinds = Counter(drawing.kind for drawing in plan(2000, SEED))
    assert kinds == {"scene": 780, "tall": 700, "small": 240, "tall+mark": 200, "small+mark": 80}


def test_file_names_are_unique_and_do_not_say_what_is_drawn():
    drawings = plan(400, SEED)
    assert len({drawing.name for drawing in drawings}) == 400
    assert {
        Drawing(3, figure, marked, "jpeg").name for figure in ("none", "small") for marked in (True, False)
    } == {"p00003.jpg"}


def test_a_drawing_depends_on_seed_and_index_alone():
    drawing = Drawing(5, "tall", True, "jpeg")
    first, again = (encode(paint(drawing, SEED)[0], "jpeg") for _ in range(2))
    assert first == again
    assert first != encode(paint(drawing, SEED + 1)[0], "jpeg")
    assert first != encode(paint(Drawing(6, "tall", True, "jpeg"), SEED)[0], "jpeg")


@pytest.mark.parametrize("form", ["jpeg", "jpeg-exif", "jpeg-cmyk", "png", "webp", "gif", "bmp"])
def test_every_format_opens_as_the_drawing_that_was_stored(form):
    picture = paint(Drawing(1, "tall", False, form), SEED)[0]
    with Image.open(io.BytesIO(encode(picture, form))) as stored:
        assert stored.format == form.partition("-")[0].upper()
        assert (stored.mode == "CMYK") == (form == "jpeg-cmyk")
        upright = ImageOps.exif_transpose(stored)
    assert upright.size == picture.size
    assert bits_apart(picture, upright) <= RADIUS


def test_drawings_have_features_to_hash_and_are_far_from_each_other():
    pictures = [paint(drawing, SEED)[0] for drawing in plan(2000, SEED)[:40]]
    assert all(code(picture).usable for picture in pictures)
    apart = [bits_apart(one, other) for i, one in enumerate(pictures) for other in pictures[:i]]
    assert min(apart) > RADIUS


@pytest.mark.parametrize("figure", ["none", "tall", "small"])
def test_the_mark_shows_in_the_middle_square_and_nowhere_without_it(figure):
    for index in range(10):
        assert share_of_mark(paint(Drawing(index, figure, True, "jpeg"), SEED)[0]) > 0.05
        assert share_of_mark(paint(Drawing(index, figure, False, "jpeg"), SEED)[0]) < 0.001


def test_captions_say_what_is_drawn():
    _, caption = paint(Drawing(0, "small", True, "jpeg"), SEED)
    assert "small figure" in caption
    assert "magenta disc" in caption
    assert "figure" not in paint(Drawing(0, "none", False, "jpeg"), SEED)[1]


def test_plants_are_unmarked_pictures_spread_over_the_shards():
    drawings = plan(2000, SEED)
    chosen = choose(drawings, 8, SEED)
    assert Counter(chosen.values()) == {name: kind.count for name, kind in KINDS.items()}
    assert {drawings[index].kind for index in chosen} <= {"scene", "tall"}
    per_shard = Counter(index // 250 for index in chosen)
    assert max(per_shard.values()) - min(per_shard.values()) <= 1
    damaged = sum(kind.count for kind in KINDS.values() if kind.action == "QUARANTINE")
    assert damaged / len(drawings) < 0.02


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The planted files of a small scrape: drawings, what was chosen, folder of files, folder of lists."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "served").mkdir()
    drawings = plan(400, SEED)
    chosen = choose(drawings, 8, SEED)
    for index in chosen:
        picture = paint(drawings[index], SEED)[0]
        (folder / "served" / drawings[index].name).write_bytes(encode(picture, "jpeg"))
    plant_files(chosen, drawings, folder / "served", folder / "lists", SEED)
    return drawings, chosen, folder / "served", folder / "lists"


def test_the_lists_hold_one_entry_for_each_listed_plant(planted):
    lists = planted[3]
    entries = {}
    for name in ("planted", "other"):
        with (lists / f"{name}.csv").open() as file:
            entries[name] = Counter(row["algorithm"] for row in csv.DictReader(file))
    assert entries == {
        "planted": {"md5": 5, "sha1": 5, "sha256": 5, "pdq": 34},
        "other": {"md5": 2, "sha1": 2, "sha256": 2},
    }
    importer = find_importer("auto", [lists / "planted.csv"])
    assert len(collect(importer.read([lists / "planted.csv"], ReadOptions())).rows["pdq"]) == 34


def test_a_listed_original_is_not_in_the_scrape_but_its_re_encoded_copy_is_near(planted):
    drawings, chosen, served, _ = planted
    for index in (index for index, name in chosen.items() if name == "re-encoded"):
        original = paint(drawings[index], SEED)[0]
        data = (served / drawings[index].name).read_bytes()
        assert data != encode(original, "jpeg")
        with Image.open(io.BytesIO(data)) as copy:
            assert bits_apart(original, copy) <= RADIUS


def test_every_kind_of_damage_changes_the_file(planted):
    drawings, chosen, served, _ = planted
    heads = {name: (served / drawings[index].name).read_bytes() for index, name in chosen.items()}
    assert heads["empty"] == b""
    assert heads["page"].startswith(b"<!doctype")
    assert heads["animated"].startswith(b"GIF")
    assert b"PK\x05\x06" in heads["archive"]
    assert not heads["cut"].endswith(b"\xff\xd9")
    assert not heads["exact-cut"].endswith(b"\xff\xd9")
    assert set(CHANGES).isdisjoint(COPIES)


def test_the_second_image_is_no_picture_of_the_scrape():
    index = next(index for index, name in choose(plan(400, SEED), 8, SEED).items() if name == "second-image")
    with Image.open(io.BytesIO(second_image(index, SEED))) as second:
        assert bits_apart(second, paint(plan(400, SEED)[index], SEED)[0]) > RADIUS


def test_the_server_gives_the_files_of_its_folder_and_nothing_else(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "p00000.jpg").write_bytes(b"bytes")
    (tmp_path / "secret.txt").write_bytes(b"outside")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serving(tmp_path / "site") as base:
        assert base.startswith("http://127.0.0.1:")
        with opener.open(f"{base}/p00000.jpg") as answer:
            assert answer.read() == b"bytes"
        for path in ("gone.jpg", "../secret.txt", ""):
            with pytest.raises(urllib.error.HTTPError) as refused:
                opener.open(f"{base}/{path}")
            refused.value.close()
            assert refused.value.code == 404
