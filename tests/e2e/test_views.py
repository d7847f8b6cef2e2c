"""Listed pictures that come back bordered, turned, cropped, re-encoded or as digests alone."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call
from PIL import Image, ImageOps
from scrapes import Scrape, draw, encode, jpeg, write_list, write_sidecar, write_tar

from classifiers.hashes.registry import find_kind


def code(picture: Image.Image, kind: str = "pdq:fullres") -> bytes:
    found = find_kind(kind).encode(np.asarray(picture.convert("RGB")))
    assert found is not None
    return found.codes[0].tobytes()


def with_thumbnail(picture: Image.Image, thumbnail: Image.Image) -> bytes:
    """A JPEG with an EXIF block whose second directory holds `thumbnail`, written by hand."""
    data = encode(thumbnail, "JPEG", quality=85)
    body = b"II*\0" + (8).to_bytes(4, "little") + (0).to_bytes(2, "little") + (14).to_bytes(4, "little")
    entries = [(0x0103, 3, 6), (0x0201, 4, 14 + 2 + 3 * 12 + 4), (0x0202, 4, len(data))]
    directory = len(entries).to_bytes(2, "little") + b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + (1).to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, value in entries
    )
    exif = b"Exif\0\0" + body + directory + (0).to_bytes(4, "little") + data
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    originals = {
        name: draw(500 + n, size=(320, 240)) for n, name in enumerate(("border", "turned", "thumb", "phash"))
    }
    turned = originals["turned"].transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    served = {
        "border": encode(ImageOps.expand(originals["border"], 40, "white"), quality=90),
        "turned": encode(turned, quality=90, exif=exif),
        "thumb": with_thumbnail(draw(900, size=(320, 240)), originals["thumb"].resize((160, 120))),
        "phash": encode(originals["phash"], quality=60),
        "harmless": jpeg(901),
    }
    root = tmp_path_factory.mktemp("views")
    write_list(
        root / "lists" / "pdq.csv", [("pdq", code(originals[name])) for name in ("border", "turned", "thumb")]
    )
    write_list(root / "lists" / "phash.csv", [("phash", code(originals["phash"], "phash"))])
    (root / "policy.toml").write_text(
        'name = "near"\nrequired = ["list.csam.pdq_distance", "list.csam.phash_distance"]\n'
        '[[rule]]\nid = "near"\naction = "SEAL"\n'
        'when = "list.csam.pdq_distance <= 31 or list.csam.phash_distance <= 4"\n'
    )
    made = Scrape.make(
        root,
        hashes={"kinds": ["pdq:fullres", "phash"]},
        policy={"file": "policy.toml"},
        list=[
            {"id": "pdq"},
            {"id": "phash"},
        ],
    )
    write_tar(made.shards / "00000.tar", [(f"{name}.jpg", data) for name, data in served.items()])
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


def test_every_edited_copy_is_sealed_and_nothing_else(scrape: Scrape) -> None:
    assert {row["key"] for row in scrape.sealed()} == {"border", "turned", "thumb", "phash"}
    assert {row["key"] for row in scrape.decisions() if row["action"] == "KEEP"} == {"harmless"}


def test_the_record_says_which_view_and_variant_hit(scrape: Scrape) -> None:
    views = {row["key"]: {hit["view"] for hit in row["hits"]} for row in scrape.sealed()}
    assert any(view.endswith(".stripped") for view in views["border"])
    assert views["thumb"] == {"pdq:fullres.thumbnail"}
    assert any(view.startswith("phash:") for view in views["phash"])
    assert all(0 <= hit["variant"] < 8 for row in scrape.sealed() for hit in row["hits"])


def test_codes_without_a_kind_for_them_are_refused(scrape: Scrape, tmp_path) -> None:
    scrape.settings["hashes"] = {"kinds": ["pdq:fullres"]}
    try:
        scrape.write()
        done = call("run", scrape.config, "--workers", 1)
    finally:
        scrape.settings["hashes"] = {"kinds": ["pdq:fullres", "phash"]}
        scrape.write()
    assert done.code == 2
    assert "holds phash codes, which [hashes] kinds does not take" in done.err


def test_digests_of_the_crawl_find_what_was_re_encoded(tmp_path) -> None:
    listed, other = hashlib.md5(b"as it was fetched").digest(), jpeg(3)
    write_list(tmp_path / "lists" / "md5.csv", [("md5", listed)])
    made = Scrape.make(tmp_path, list=[{"id": "md5"}])
    (tmp_path / "policy.toml").write_text(EXACT)
    made.settings["policy"] = {"file": "policy.toml"}
    made.write()
    tar = write_tar(made.shards / "00000.tar", [("a.jpg", jpeg(1)), ("b.jpg", other), ("c.jpg", jpeg(4))])
    rows = [
        {"key": "a", "status": "success", "md5": listed.hex()},
        {"key": "b", "status": "success", "md5": hashlib.md5(other).hexdigest()},
        {"key": "c", "status": "success", "md5": "0" * 32},
    ]
    write_sidecar(tar, rows)
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    assert {row["key"]: row["hash_source"] for row in made.sealed()} == {"a": "reencoded"}
    kept = pq.read_table(made.collection / "examined" / "00000.parquet").to_pylist()
    assert {row["key"]: row["hash_source"] for row in kept if not row["withheld"]} == {
        "b": "bytes",
        "c": "reencoded",
    }


@pytest.mark.parametrize("column", ["md5", "hash"])
def test_a_table_of_digests_without_images_is_matched(tmp_path, column) -> None:
    listed = hashlib.md5(b"somewhere on the web").digest()
    write_list(tmp_path / "lists" / "md5.csv", [("md5", listed)])
    (tmp_path / "policy.toml").write_text(EXACT)
    made = Scrape.make(
        tmp_path,
        input=[{"shards": "shards/*.parquet"}],
        list=[{"id": "md5"}],
        policy={"file": "policy.toml"},
    )
    made.shards.mkdir()
    table = pa.table(
        {"URL": ["http://a.invalid/1", "http://a.invalid/2"], "TEXT": ["x", "y"], column: [listed.hex(), "ab" * 16]}
    )
    pq.write_table(table, made.shards / "part-0.parquet")
    done = call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    sealed = made.sealed()
    assert [(row["key"], row["url"], row["hash_source"]) for row in sealed] == [
        ("000000000", "http://a.invalid/1", "crawl")
    ]
    others = [row for row in made.decisions() if not row["withheld"]]
    assert [(row["action"], row["reason"]) for row in others] == [("QUARANTINE", "fault:no_image")]
    assert call("verify", made.collection).code == 0


def test_the_hash_command_prints_every_digest_code_and_view(tmp_path) -> None:
    bordered, cut = tmp_path / "bordered.jpg", tmp_path / "cut.jpg"
    bordered.write_bytes(encode(ImageOps.expand(draw(5), 30, "black"), quality=90))
    cut.write_bytes(jpeg(6)[:400])
    done = call("hash", bordered, cut, "--json", "--kinds", "pdq:fullres,phash")
    assert done.code == 0, done.err
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first["sha256"] == hashlib.sha256(bordered.read_bytes()).hexdigest()
    columns = {item["column"]: item for item in first["hashes"]}
    assert {name.rpartition(".")[2] for name in columns} == {"oriented", "stripped"}
    assert len(columns["pdq:fullres.oriented"]["codes"]) == 8
    assert second["fault"] == "truncated"
    assert second["hashes"] == []
    plain = call("hash", bordered)
    assert "pdq:fullres.stripped, quality" in plain.out
    assert call("hash", tmp_path / "none.jpg").code == 1
    assert call("hash", bordered, "--kinds", "bogus").code == 2


EXACT = """
name = "exact"
required = ["list.csam.exact"]

[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
"""
