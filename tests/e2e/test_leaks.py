"""Nothing of what was not kept is told where it must not be: marked samples, and every byte that a run leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pyrage
import pytest
from in_process import call
from made_lists import made_list
from modelled import add_models
from PIL import Image
from scrapes import LISTS_KEY, STORE, Scrape, draw, encode, jpeg, write_list, write_sidecar, write_tar

from classifiers.hashes.digests import take_digests
from classifiers.hashes.pdq import Pdq
from manifests.cases import open_sealed
from manifests.commits import ExamineCommit
from manifests.features import decode_features
from pipeline.config import MembersConfig
from pipeline.decode import DecodeLimits, Decoder
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.samples import take_inventory
from pipeline.ingest.shards import ShardSource
from pipeline.measure import digest_members, measure
from pipeline.sheet import Models

SAMPLES = 12
# What is planted in shard 00000, by the number of the sample.
EXACT, NEAR, EXACT_AND_CUT, LATER, OTHER, CUT, BARE = range(7)


def key_of(shard: int, number: int) -> str:
    return f"keymark{shard}{number:03d}"


def url_of(key: str) -> str:
    return f"http://example.invalid/urlmark-{key}.jpg"


def caption_of(key: str) -> str:
    return f"captionmark {key} of a drawing"


def image_of(shard: int, number: int) -> bytes | None:
    data = jpeg(1000 * shard + number)
    if shard == 0 and number == BARE:
        return None
    return data[:-700] if shard == 0 and number in (EXACT_AND_CUT, CUT) else data


def codes_of(data: bytes) -> np.ndarray:
    code = Pdq().encode(np.asarray(Image.open(io.BytesIO(data))))
    assert code is not None
    return code.codes


@dataclass(frozen=True, slots=True)
class Story:
    """A scrape that was run, what each command printed, and what the lists hold."""

    scrape: Scrape
    printed: str
    entries: list[bytes]

    def rows(self, number: int) -> dict[str, dict[str, object]]:
        return {str(row["key"]): row for row in self.scrape.decisions(number)}


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    lists = [{"id": name} for name in ("csam", "other")]
    scrape = Scrape.make(tmp_path_factory.mktemp("leaks"), list=lists)
    add_models(scrape)
    for shard in range(2):
        members, rows = [], []
        for number in range(SAMPLES):
            key, data = key_of(shard, number), image_of(shard, number)
            members += [(f"{key}.jpg", data)] if data is not None else []
            members += [
                (f"{key}.txt", caption_of(key).encode()),
                (f"{key}.json", json.dumps({"url": url_of(key), "sha256": "0"}).encode()),
            ]
            rows.append({"key": key, "status": "success", "url": url_of(key), "caption": caption_of(key)})
        gone = key_of(shard, 99)
        rows.append({"key": gone, "status": "success", "url": url_of(gone), "caption": caption_of(gone)})
        write_tar(scrape.shards / f"{shard:05d}.tar", members)
        write_sidecar(scrape.shards / f"{shard:05d}.tar", rows)

    near = encode(draw(NEAR), "JPEG", quality=35)
    first = [
        ("md5", take_digests(image_of(0, EXACT)).md5),
        ("sha1", take_digests(image_of(0, EXACT_AND_CUT)).sha1),
        ("pdq", codes_of(near)[0].tobytes()),
    ]
    later = [("sha256", take_digests(image_of(0, LATER)).sha256)]
    other = [("md5", take_digests(image_of(0, OTHER)).md5)]
    write_list(scrape.root / "lists/other.csv", other)
    write_list(scrape.root / "lists/csam.csv", first)
    collection, printed = scrape.collection, []

    def tell(code: int, *arguments: object) -> None:
        done = call(*arguments)
        assert done.code == code, (arguments, done.err)
        printed.append(done.out + done.err)

    tell(0, "run", scrape.config, "--dry-run", "--workers", 1)
    tell(0, "run", scrape.config, "--workers", 1)
    write_list(scrape.root / "lists/csam.csv", [*first, *later])
    tell(0, "settle", scrape.config, "--workers", 2)
    tell(0, "retry", collection, "--reasons", "truncated,no_image", "--workers", 1)
    tell(0, "status", collection)
    tell(0, "status", collection, "--restricted")
    tell(0, "quarantine", collection)
    tell(0, "verify", collection)
    bad = [f"md5,{value.hex()}" for _, value in first]  # the second is too long for it
    (scrape.root / "lists/csam.csv").write_text("\n".join(["algorithm,value", *bad]))
    store = ("--store", scrape.root / STORE, "--key", scrape.root / LISTS_KEY)
    known = (scrape.root / "lists/csam.csv", "--id", "csam", "--purpose", "csam", "--effect", "case")
    tell(4, "lists", "import", *known, *store)
    changed = sorted((scrape.root / STORE / "csam").glob("*/entries.age"))[-1]
    good = changed.read_bytes()
    changed.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    tell(2, "settle", scrape.config, "--workers", 1)
    changed.write_bytes(good)
    for verb in ("show", "check"):
        tell(0, "lists", verb, *(store if verb == "check" else store[:2]))
    tell(0, "lists", "diff", "csam", "other", *store)
    write_list(scrape.root / "lists/csam.csv", first)
    # One more is removed, so the tar must be written anew; one that holds the same samples would be linked.
    kept = next(row["index"] for row in scrape.decisions(3) if (row["shard"], row["action"]) == ("00000", "KEEP"))
    write_list(scrape.root / "lists/other.csv", [*other, ("md5", take_digests(image_of(0, int(kept))).md5)])
    tar = scrape.shards / "00000.tar"
    good = tar.read_bytes()
    tar.write_bytes(good[:-5000])
    tell(4, "run", scrape.config, "--workers", 1)
    tell(4, "settle", scrape.config, "--workers", 1)
    tar.write_bytes(good)
    tell(3, "verify", collection)  # the settle that failed was never closed
    return Story(scrape, "".join(printed), [value for _, value in (*first, *later, *other)])


def plain_bytes(path: Path) -> Iterator[bytes]:
    """A file as it lies, and, of a table, every value of it as bytes."""
    yield path.read_bytes()
    if path.suffix != ".parquet":
        return
    table = pq.read_table(path)
    yield from (table.schema.metadata or {}).values()
    for column in table.columns:
        for value in column.to_pylist():
            if isinstance(value, str):
                yield value.encode()
            elif isinstance(value, bytes):
                yield value
            elif isinstance(value, list) and value and isinstance(value[0], str):
                yield "\n".join(value).encode()
            elif isinstance(value, list):
                yield np.array(value, np.float16).tobytes() + np.array(value, np.float32).tobytes()


def found_in(needles: set[bytes], *folders: Path) -> set[tuple[str, bytes]]:
    found = set()
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if path.is_file():
                for data in plain_bytes(path):
                    found |= {(path.name, needle) for needle in needles if needle in data}
    return found


def spellings(data: bytes) -> set[bytes]:
    return {data, data.hex().encode(), data.hex().upper().encode()}


def content_of(scrape: Scrape, keys: set[str]) -> set[bytes]:
    """Digests and codes of samples, in every spelling, made from their pictures again."""
    needles: set[bytes] = set()
    for path in sorted(scrape.shards.glob("*.tar")):
        source = ShardSource(path.stem, path, None)
        inventory = take_inventory(source, MembersConfig())
        with Decoder(DecodeLimits()) as decoder:
            models = Models(PictureHashes((Pdq(),), ("oriented",)), None, (), (), None, 64)
            features = measure(source, digest_members(source, inventory), models, decoder, on_rows=lambda _: None)
        for row, key in enumerate(features.strings("key")):
            if key in keys and features.digested[row]:
                for values in features.digests.values():
                    needles |= spellings(values[row].tobytes())
                for column in features.hashes.values():
                    if column.hashable[row]:
                        needles |= {one for code in column.codes[row] for one in spellings(code.tobytes())}
    return needles


def words_of(keys: set[str]) -> set[bytes]:
    return {url_of(key).encode() for key in keys} | {caption_of(key).encode() for key in keys}


def with_action(story: Story, number: int, *actions: str | None) -> set[str]:
    return {key for key, row in story.rows(number).items() if row["action"] in actions}


def test_the_story_has_samples_of_every_fate(story):
    rows = story.rows(2)
    planted = {number: rows[key_of(0, number)] for number in range(7)}
    assert [planted[number]["withheld"] for number in range(7)] == [True] * 4 + [False] * 3
    assert planted[OTHER]["reason"] == "rule:listed-other"
    assert planted[CUT]["reason"] == "fault:truncated"
    assert planted[BARE]["reason"] == "fault:no_image"
    assert rows[key_of(1, 99)]["reason"] == "fault:missing_from_shard"
    assert len(with_action(story, 2, "KEEP")) >= 3
    assert not story.rows(1)[key_of(0, LATER)]["withheld"]
    bases = {row["key"]: {hit["basis"] for hit in row["hits"]} for row in story.scrape.sealed()}
    assert bases[key_of(0, EXACT)] == {"listed-exact"}
    assert bases[key_of(0, NEAR)] == {"listed-near"}
    assert bases[key_of(0, LATER)] == {"listed-exact"}


def test_release_console_and_journal_tell_nothing_of_what_was_not_kept(story):
    home = story.scrape.collection
    places = {1: [home / "releases/0001"], 2: [home / "releases/0002", home / "releases/0003", home / "journal"]}
    for number, folders in places.items():
        lost = with_action(story, number, "REMOVE", "QUARANTINE", None)
        needles = words_of(lost) | content_of(story.scrape, lost) | {key.encode() for key in lost}
        assert found_in(needles, *folders) == set()
        for needle in needles:
            assert needle.decode("latin-1") not in story.printed
    kept = with_action(story, 2, "KEEP")
    assert len({needle for _, needle in found_in(words_of(kept), home / "releases/0002")}) == 2 * len(kept)
    assert len(found_in({key.encode() for key in kept}, home / "releases/0002/manifest")) == len(kept)


def test_the_restricted_tier_holds_of_a_withheld_sample_its_identity_alone(story):
    home = story.scrape.collection
    withheld = {key for key, row in story.rows(2).items() if row["withheld"]}
    needles = words_of(withheld) | content_of(story.scrape, withheld)
    sealed = story.scrape.sealed()
    assert {row["key"] for row in sealed} == withheld
    for row in sealed:
        if row["embedding"] is not None:
            needles.add(np.array(row["embedding"], np.float16).tobytes())
    restricted = [home / name for name in ("examined", "settled", "journal")]
    assert found_in(needles, *restricted, home / "examine_plan.json", home / "sealed") == set()
    for path in home.glob("examined/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["key"] in withheld:
                assert {name for name, value in row.items() if value is not None} == {
                    "shard",
                    "index",
                    "key",
                    "withheld",
                }
    # The same search does find the others, and the sealed records hold all that was taken away.
    others = with_action(story, 2, "REMOVE", "QUARANTINE")
    assert len({needle for _, needle in found_in(words_of(others), home / "examined")}) == 2 * len(others)
    assert {row["url"] for row in sealed} == {url_of(key) for key in withheld}
    assert {row["sha256"] for row in sealed} >= {take_digests(image_of(0, EXACT)).sha256}


def test_no_entry_of_a_list_is_written_or_printed(story):
    home = story.scrape.collection
    other = take_digests(image_of(0, OTHER)).md5  # the digest of a sample that is removed and not withheld
    needles = {one for entry in story.entries if entry != other for one in spellings(entry)}
    assert found_in(needles, home / "examined", home / "settled", home / "journal", home / "releases/0002") == set()
    for needle in spellings(other) | needles:
        assert needle.decode("latin-1") not in story.printed
    assert found_in(spellings(other), home / "releases", home / "settled", home / "journal") == set()
    assert found_in(spellings(other), home / "examined") != set()


def test_sealed_files_look_alike_with_and_without_records(story):
    home = story.scrape.collection
    identity = pyrage.x25519.Identity.from_str(story.scrape.identity)
    commits = [ExamineCommit.read(path) for path in sorted(home.glob("examined/*.json"))]
    for commit in commits:  # one for each settle that asked, whatever it found
        names = [item.name for item in commit.sealed]
        assert names[:2] == [f"{commit.shard}.0001.age", f"{commit.shard}.0002.age"]
    assert len({item.padded_size for commit in commits for item in commit.sealed}) == 1
    files = [home / "sealed" / item.name for commit in commits for item in commit.sealed]
    assert len({len(pyrage.decrypt(path.read_bytes(), [identity])) for path in files}) == 1
    assert len({len(payload(path.read_bytes())) for path in files}) == 1
    secret = story.scrape.identity
    rows = {path.name: open_sealed(path.read_bytes(), identity=secret, source="x").num_rows for path in files}
    assert rows["00000.0001.age"] >= 3
    assert 0 in rows.values()


def payload(data: bytes) -> bytes:
    """What follows the header of an age file; the header has stanzas of random length."""
    return data[data.index(b"\n", data.index(b"\n--- ") + 5) + 1 :]


def test_the_words_for_things_show_no_digest_url_or_caption(story):
    home = story.scrape.collection
    shown = made_list([("md5", b"\x41" * 15 + b"\x42"), ("pdq", b"\x43" * 31 + b"\x44")])
    digests = take_digests(b"anything")
    source = ShardSource("00000", story.scrape.shards / "00000.tar", None)
    inventory = take_inventory(source, MembersConfig())
    features = decode_features(pq.read_table(next(home.glob("examined/00001*.parquet"))))
    things = [shown, digests, inventory, inventory.samples[0], features, *features.hashes.values()]
    things.append(digest_members(source, inventory))
    things.append(Pdq().encode(np.asarray(draw(1))))
    for thing in things:
        text = f"{thing!r} {thing}"
        for mark in ("urlmark", "captionmark", "\\x41", "4141", "AAAA", digests.md5.hex(), "array(", "pyarrow"):
            assert mark not in text, type(thing).__name__
