"""What lists do in a run: purposes and effects, agreeing sources, the radius, long lists, new versions."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from in_process import call
from listed_scrapes import KINDS, actions, codes_of, distances, entry_at, import_rows, write_policy
from PIL import Image
from scrapes import Scrape, draw, encode, jpeg, outputs, write_list, write_tar

from classifiers.blocklists.match import INDEX_FROM_CODES
from manifests.commits import Close
from pipeline.executors.protocol import WorkerOptions
from pipeline.lists.manifest import PURPOSES
from pipeline.setup import load_setup

DIGESTS = ("md5", "sha1", "sha256")
Row = tuple[str, bytes, str]


def digest_of(data: bytes, algorithm: str = "md5") -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def code_of(data: bytes) -> bytes:
    return bytes(codes_of(data)[0])


def reencoded(seed: int) -> bytes:
    return jpeg(seed, quality=50)


def turned(seed: int) -> bytes:
    return encode(draw(seed).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=60)


def run(scrape: Scrape, *arguments: object, verb: str = "run") -> None:
    done = call(verb, scrape.config, "--workers", 1, *arguments)
    assert done.code == 0, done.err
    assert call("verify", scrape.collection).code == 0


class Purposes:
    """One list of each purpose; every category of it with a digest and a PDQ entry."""

    def __init__(self, root: Path) -> None:
        self.images = {f"plain-{seed}": jpeg(seed) for seed in range(3)} | {"both": reencoded(10)}
        self.rows: dict[str, list[Row]] = {}
        for place, purpose in enumerate(PURPOSES):
            rows = self.rows.setdefault(purpose, [("md5", digest_of(b"nothing"), "A")])
            for step, category in enumerate("AB0"):
                seed = 100 + 10 * place + 2 * step
                name, algorithm = f"{purpose}-{category}", DIGESTS[(place + step) % 3]
                self.images |= {f"{name}-exact": jpeg(seed), f"{name}-near": turned(seed + 1)}
                rows.append((algorithm, digest_of(jpeg(seed), algorithm), category))
                rows.append(("pdq", code_of(jpeg(seed + 1)), category))
        self.rows["csam"].append(("sha1", digest_of(self.images["both"], "sha1"), "A"))
        self.rows["ncii"].append(("pdq", code_of(jpeg(10)), "B"))
        self.scrape = Scrape.make(root, list=[{"id": name} for name in PURPOSES])
        for purpose, rows in self.rows.items():
            import_rows(self.scrape, purpose, rows, purpose)
        write_tar(self.scrape.shards / "a.tar", [(f"{key}.jpg", data) for key, data in self.images.items()])
        run(self.scrape)
        self.kept = {key for key in self.images if "-0-" in key or key.startswith("plain")}

    def hit(self, purpose: str, algorithm: str, value: bytes, category: str) -> dict[str, object]:
        """What a sealed record says of an exact hit; numbers are places among what is stored, sorted."""
        mine = sorted(row[1] for row in self.rows[purpose] if row[0] == algorithm and row[2] != "0")
        return {
            "list": purpose,
            "version": 1,
            "purpose": purpose,
            "feed": "csam" if (purpose, category) == ("csam", "A") else "other",
            "categories": [category],
            "basis": "listed-exact",
            "algorithm": algorithm,
            "entry": mine.index(value),
            "distance": None,
            "view": None,
            "variant": None,
            "capped": False,
        }

    def near(self, key: str, purpose: str, value: bytes, category: str) -> list[dict[str, object]]:
        found = []
        for kind in KINDS:
            bits = distances(self.images[key], value, kind)
            if min(bits) <= 31:
                where = {"distance": min(bits), "view": f"{kind}.oriented", "variant": bits.index(min(bits))}
                found.append({**self.hit(purpose, "pdq", value, category), "basis": "listed-near", **where})
        return found


@pytest.fixture(scope="module")
def purposes(tmp_path_factory: pytest.TempPathFactory) -> Purposes:
    return Purposes(tmp_path_factory.mktemp("purposes"))


def test_only_case_entries_of_a_csam_list_make_cases(purposes: Purposes) -> None:
    sealed = {"csam-A-exact", "csam-A-near", "both"}
    assert {row["key"] for row in purposes.scrape.sealed()} == sealed
    for row in purposes.scrape.decisions():
        if row["key"] in sealed:
            assert row["withheld"]
        elif row["key"] in purposes.kept:
            assert (row["action"], row["reason"]) == ("KEEP", None)
        else:
            assert (row["action"], row["reason"], row["withheld"]) == ("REMOVE", "rule:listed-other", False)


def test_entries_of_ignored_categories_change_nothing_and_the_rest_leaves_the_release(purposes: Purposes) -> None:
    release = purposes.scrape.collection / "releases" / "0001"
    assert set(pq.read_table(release / "manifest" / "a.parquet")["key"].to_pylist()) == purposes.kept
    with tarfile.open(release / "shards" / "a.tar") as tar:
        assert {Path(name).stem for name in tar.getnames()} == purposes.kept
    ignored = [row for row in purposes.scrape.decisions() if "-0-" in str(row["key"])]
    assert len(ignored) == 2 * len(PURPOSES)
    for row in ignored:
        signals = {name.rpartition(".")[2]: value for name, value in row.items() if name.startswith("signal.")}
        assert signals == {"exact": 0, "pdq_distance": float("inf")}


def test_a_sealed_record_says_what_was_hit(purposes: Purposes) -> None:
    hits = {row["key"]: row["hits"] for row in purposes.scrape.sealed()}
    images, csam = purposes.images, purposes.hit
    exact = ("md5", digest_of(images["csam-A-exact"]), "A")
    assert hits["csam-A-exact"] == [csam("csam", *exact)]
    (listed,) = (value for name, value, category in purposes.rows["csam"] if (name, category) == ("pdq", "A"))
    near = purposes.near("csam-A-near", "csam", listed, "A")
    assert hits["csam-A-near"] == near
    assert {hit["variant"] for hit in near} != {0}
    both = [csam("csam", "sha1", digest_of(images["both"], "sha1"), "A")]
    assert hits["both"] == both + purposes.near("both", "ncii", code_of(jpeg(10)), "B")
    assert len(hits["both"]) == 3


def test_two_lists_of_one_source_are_one_voice(tmp_path: Path) -> None:
    scrape = Scrape.make(tmp_path, list=[{"id": name} for name in ("first", "second", "again")])
    images = {
        name: jpeg(seed) for seed, name in enumerate(("agreed", "agreed_near", "one_source", "alone", "none"))
    }
    first = [("md5", digest_of(images[name]), "B") for name in ("agreed", "agreed_near", "one_source", "alone")]
    second = [("sha1", digest_of(images["agreed"], "sha1"), "B"), ("pdq", code_of(reencoded(1)), "A")]
    again = [
        ("sha256", digest_of(images["one_source"], "sha256"), "B"),
        ("pdq", code_of(images["one_source"]), "B"),
    ]
    import_rows(scrape, "first", first, "ncii", "--received-from", "Body One")
    import_rows(scrape, "second", second, "internal", "--received-from", "Body Two")
    import_rows(scrape, "again", again, "terrorism", "--received-from", " body one ")
    write_policy(scrape, required="list.other.lists", rules=[("agreed", "list.other.lists >= 2", "REMOVE")])
    write_tar(scrape.shards / "a.tar", [(f"{key}.jpg", data) for key, data in images.items()])
    run(scrape)
    removed = {"agreed", "agreed_near"}
    assert actions(scrape) == {key: "REMOVE" if key in removed else "KEEP" for key in images}
    voices = {row["key"]: row["signal.list.other.lists"] for row in scrape.decisions()}
    assert voices == {"agreed": 2, "agreed_near": 2, "one_source": 1, "alone": 1, "none": 0}


@pytest.mark.parametrize("radius", [31, 15])
def test_a_code_at_the_radius_is_listed_and_one_bit_further_is_not(tmp_path: Path, radius: int) -> None:
    scrape = Scrape.make(tmp_path, list=[{"id": name, "radius": radius} for name in ("known", "other")])
    images, entries = {}, {"known": [], "other": []}
    for seed, (name, bits) in enumerate((name, bits) for name in entries for bits in (0, 15, 16, 31, 32)):
        images[f"{name}-{bits}"] = jpeg(seed)
        entries[name].append(("pdq", entry_at(jpeg(seed), bits)))
    for name, rows in entries.items():
        write_list(scrape.root / "lists" / f"{name}.csv", rows)
    bar = f"pdq_distance <= {radius}"
    rules = [("listed", f"list.csam.{bar}", "SEAL"), ("listed-other", f"list.other.{bar}", "REMOVE")]
    write_policy(scrape, required="list.csam.pdq_distance", rules=rules)
    write_tar(scrape.shards / "a.tar", [(f"{key}.jpg", data) for key, data in images.items()])
    run(scrape)
    for key, action in actions(scrape).items():
        name, bits = key.split("-")
        hit = "SEAL" if name == "known" else "REMOVE"
        assert action == (hit if int(bits) <= radius else "KEEP"), key
    found = {row["key"]: {hit["distance"] for hit in row["hits"]} for row in scrape.sealed()}
    assert found == {f"known-{bits}": {bits} for bits in (0, 15, 16, 31) if bits <= radius}


LONG = 5000
SHARDS, SAMPLES = 3, 6
FIRST, LATER = {(0, 1), (2, 3)}, {(1, 0), (1, 4), (2, 5)}  # listed near: from the start, in the second version


def planted(places: set[tuple[int, int]]) -> list[tuple[str, bytes]]:
    return [("pdq", entry_at(jpeg(10 * shard + number), 20 + number)) for shard, number in sorted(places)]


def keys(places: set[tuple[int, int]]) -> set[str]:
    return {f"{shard}{number}" for shard, number in places}


@pytest.fixture(scope="module")
def long_list(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scrape, dict[int, dict[str, str]]]:
    """A list that is long enough for an index, run with 1, 2 and 3 workers into a collection each."""
    scrape = Scrape.make(tmp_path_factory.mktemp("long"))
    for shard in range(SHARDS):
        members = [(f"{shard}{number}.jpg", jpeg(10 * shard + number)) for number in range(SAMPLES)]
        write_tar(scrape.shards / f"{shard}.tar", members)
    random = np.random.default_rng(7)
    codes = [("pdq", random.bytes(32)) for _ in range(LONG)]
    exact = [("md5", digest_of(jpeg(5)))]  # sample 05
    write_list(scrape.root / "lists" / "known.csv", [*codes, *planted(FIRST), *exact])
    made = {}
    for workers in (1, 2, 3):
        into(scrape, workers)
        done = call("run", scrape.config, "--workers", workers)
        assert done.code == 0, done.err
        made[workers] = outputs(scrape.root / f"by-{workers}", scrape.identity)
    write_list(scrape.root / "lists" / "known.csv", [*codes, *planted(FIRST | LATER), *exact])
    return scrape, made


def into(scrape: Scrape, workers: int) -> Path:
    scrape.settings["collection"] = f"by-{workers}"
    scrape.write()
    return scrape.root / f"by-{workers}"


def test_a_long_list_gives_the_same_bytes_with_any_number_of_workers(long_list) -> None:
    scrape, made = long_list
    (known,) = load_setup(WorkerOptions(scrape.config)).decider.lists
    assert len(known.columns["pdq"].rows) >= max(LONG, INDEX_FROM_CODES)
    assert made[1] == made[2] == made[3]
    assert len(made[1]) > 10


def test_a_settle_with_a_new_version_withholds_what_it_lists_and_leaves_the_rest(long_list) -> None:
    scrape, _ = long_list
    after = {}
    for workers in (1, 2):
        home = into(scrape, workers)
        before = rows_in_clear(home)
        release = {path: path.read_bytes() for path in (home / "releases" / "0001").rglob("*") if path.is_file()}
        assert before.keys() == {f"{s}{n}" for s in range(SHARDS) for n in range(SAMPLES)} - keys(FIRST) - {"05"}
        done = call("settle", scrape.config, "--workers", workers)
        assert done.code == 0, done.err
        clear = rows_in_clear(home)
        assert clear == {key: row for key, row in before.items() if key not in keys(LATER)}
        assert {path: path.read_bytes() for path in release} == release
        manifests = (home / "releases" / "0002" / "manifest").glob("*.parquet")
        assert {key for path in manifests for key in pq.read_table(path)["key"].to_pylist()} == clear.keys()
        assert call("verify", home).code == 0
        assert Close.read(home / "settled" / "0002" / "close.json").canaries == 3
        after[workers] = outputs(home, scrape.identity)
    assert after[1] == after[2]
    looked = Scrape(scrape.root, scrape.identity)
    (scrape.root / "collection").symlink_to("by-1")
    versions = {row["key"]: {hit["version"] for hit in row["hits"]} for row in looked.sealed()}
    assert versions == {key: {2} for key in keys(FIRST) | {"05"}} | {key: {3} for key in keys(LATER)}


def rows_in_clear(collection: Path) -> dict[str, dict[str, object]]:
    rows = [
        row for path in sorted(collection.glob("examined/*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    return {str(row["key"]): row for row in rows if not row["withheld"]}
