"""The guards against bad lists: an entry that everything comes near to, and what two people may override."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from in_process import call, files
from listed_scrapes import actions, codes_of, entry_at, import_rows
from modelled import add_models
from scrapes import Command, Scrape, jpeg, list_store, write_list, write_tar

from classifiers.hashes.digests import take_digests

CAP = 3
TODAY = datetime.now(UTC).date()
QUALITIES = (40, 50, 60, 70, 80, 88)
A, B, C, D, E = range(50, 55)  # seeds of the listed drawings


def run(scrape: Scrape, verb: str = "run") -> Command:
    done = call(verb, scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return done


def capped_scrape(root: Path) -> Scrape:
    scrape = Scrape.make(root, list=[{"id": name} for name in ("known", "other")])
    scrape.settings["lists"]["max_near_hits_per_entry"] = CAP
    scrape.write()
    return scrape


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scrape, Command]:
    """Listed as cases: A (six near, one exact, in one shard), D (three there), E (two in each of three shards).

    Listed otherwise: B (two in each of three shards), C (one in each).
    """
    scrape = capped_scrape(tmp_path_factory.mktemp("capped"))
    shards = {f"{shard}": [(f"plain-{shard}", jpeg(shard))] for shard in range(3)}
    shards["0"] += [(f"A-{place}", jpeg(A, quality=quality)) for place, quality in enumerate(QUALITIES)]
    shards["0"] += [("same", jpeg(A)), *((f"D-{place}", jpeg(D, quality=QUALITIES[place])) for place in range(CAP))]
    for place, quality in enumerate(QUALITIES):
        shards[str(place % 3)] += [
            (f"B-{place}", jpeg(B, quality=quality)),
            (f"E-{place}", jpeg(E, quality=quality)),
        ]
        shards[str(place % 3)] += [(f"C-{place}", jpeg(C, quality=quality))] * (place < CAP)
    for shard, images in shards.items():
        write_tar(scrape.shards / f"{shard}.tar", [(f"{key}.jpg", data) for key, data in images])
    listed = [("pdq", listed_code(seed)) for seed in (A, D, E)] + [("md5", take_digests(jpeg(A)).md5)]
    write_list(scrape.root / "lists" / "known.csv", listed)
    write_list(scrape.root / "lists" / "other.csv", [("pdq", listed_code(seed)) for seed in (B, C)])
    return scrape, run(scrape)


def listed_code(seed: int) -> bytes:
    return codes_of(jpeg(seed))[0].tobytes()


def number_of(seed: int, *seeds: int) -> int:
    """The number of a drawing's entry among those of its list."""
    return sorted(listed_code(one) for one in (seed, *seeds)).index(listed_code(seed))


def test_only_near_hits_on_entries_over_the_cap_are_quarantined(capped: tuple[Scrape, Command]) -> None:
    fates = {
        "A": "QUARANTINE",
        "B": "QUARANTINE",
        "C": "REMOVE",
        "D": "SEAL",
        "E": "SEAL",
        "s": "SEAL",
        "p": "KEEP",
    }
    decided = actions(capped[0])
    assert decided == {key: fates[key[0]] for key in decided}
    assert [sum(key[0] == name for key in decided) for name in "ABCDEsp"] == [6, 6, 3, 3, 6, 1, 3]
    reasons = {row["key"]: row["reason"] for row in capped[0].decisions()}
    assert {reasons[f"{name}-{place}"] for name in "AB" for place in range(6)} == {"hit_cap"}
    (same,) = (row for row in capped[0].sealed() if row["key"] == "same")
    assert {(hit["basis"], hit["capped"]) for hit in same["hits"]} == {
        ("listed-exact", False),
        ("listed-near", True),
    }


def test_only_the_restricted_tier_hears_of_the_entry(capped: tuple[Scrape, Command]) -> None:
    scrape, console = capped
    told = call("status", scrape.collection, "--restricted").out.splitlines()
    text = "list {}: 6 samples come near to pdq entry {}, more than the hit cap: near hits on it are quarantined"
    known, other = (text.format("known@2", number_of(A, D, E)), text.format("other@1", number_of(B, C)))
    assert told[-2:] == [known, other]
    assert sum("come near" in line for line in told) == 2
    plain = call("status", scrape.collection)
    assert [line.split()[0] for line in plain.out.splitlines()] == ["in", "kept", "not", "faults"]
    release = b"".join(path.read_bytes() for path in (scrape.collection / "releases").rglob("*") if path.is_file())
    release = re.sub(rb"<style>.*?</style>|Unlisted or altered.*?near it", b"", release, flags=re.DOTALL)
    for word in ("hit_cap", "hit cap", "known", "pdq", "listed", "near"):
        assert word not in console.out + console.err + plain.out + plain.err
        assert word.encode() not in release
    assert "12  hit_cap: only entries of a list" in call("quarantine", scrape.collection).out
    assert "because   hit_cap (member jpg): only" in call("explain", scrape.collection, "0/A-0").out
    assert call("verify", scrape.collection).code == 0


def test_what_is_under_the_cap_at_settle_is_withheld_whole(tmp_path: Path) -> None:
    """A shard by itself counts one more than the settle does, which counts what is in clear."""
    scrape = capped_scrape(tmp_path)
    images = {"same": jpeg(A)} | {f"near-{quality}": jpeg(A, quality=quality) for quality in QUALITIES[:CAP]}
    write_tar(scrape.shards / "a.tar", [(f"{key}.jpg", data) for key, data in (images | {"b": jpeg(0)}).items()])
    write_list(scrape.root / "lists/known.csv", [("pdq", listed_code(A)), ("md5", take_digests(jpeg(A)).md5)])
    write_list(scrape.root / "lists/other.csv", [("pdq", listed_code(B))])
    run(scrape)
    assert {row["key"] for row in scrape.sealed()} == images.keys()
    (path,) = (scrape.collection / "examined").glob("*.parquet")
    clear = {row["key"] for row in pq.read_table(path).to_pylist() if row["md5"] is not None}
    assert clear == {"b"}
    assert actions(scrape) == {**dict.fromkeys(images, "SEAL"), "b": "KEEP"}
    assert call("verify", scrape.collection).code == 0
    before = files(scrape.collection)
    assert "nothing to do" in run(scrape).out
    assert files(scrape.collection).keys() - before.keys() == set()


def override(scrape: Scrape, *, expires: object = TODAY, **record: object) -> Path:
    """Let the scrape have one override record."""
    lines = [f"{key} = {value!r}" for key, value in record.items()]
    signed = ['by = ["A. Name", "B. Name"]', 'reason = "a page of text"', f"expires = {expires}"]
    (scrape.root / "overrides.toml").write_text("\n".join(["[[override]]", *lines, *signed]) + "\n")
    scrape.settings["policy"] = {**scrape.settings["policy"], "overrides": "overrides.toml"}
    scrape.write()
    return scrape.root / "overrides.toml"


@pytest.fixture
def overridden(tmp_path: Path) -> Scrape:
    """Near and exact hits of one list for each feed."""
    scrape = Scrape.make(tmp_path, list=[{"id": name} for name in ("cases", "others")])
    images = {"plain": jpeg(0)}
    for name, purpose, seed, category in (("cases", "csam", A, "A"), ("others", "ncii", B, "B")):
        images |= {f"{name}-near": jpeg(seed, quality=50), f"{name}-same": jpeg(seed)}
        rows = [("pdq", entry_at(jpeg(seed), 6), category), ("md5", take_digests(jpeg(seed)).md5, category)]
        import_rows(scrape, name, rows, purpose)
    write_tar(scrape.shards / "a.tar", [(f"{key}.jpg", data) for key, data in images.items()])
    return scrape


def set_digest(scrape: Scrape, list_id: str) -> str:
    out = call("lists", "show", list_id, "--store", list_store(scrape.root).root).out
    return next(line for line in out.splitlines() if line.startswith("set  ")).split()[1]


def test_a_cancelled_entry_keeps_what_is_near_and_not_what_is_exact(overridden: Scrape) -> None:
    listed = {"cases-near": "SEAL", "cases-same": "SEAL", "others-near": "REMOVE", "others-same": "REMOVE"}
    run(overridden)
    assert actions(overridden) == {"plain": "KEEP", **listed}
    digest = set_digest(overridden, "others")[:16]
    override(overridden, list="others", set_digest=digest, algorithm="pdq", entry=0)
    run(overridden, "settle")
    assert actions(overridden, 2) == {"plain": "KEEP", **listed, "others-near": "KEEP"}
    (manifest,) = (overridden.collection / "releases" / "0002" / "manifest").iterdir()
    assert set(pq.read_table(manifest)["key"].to_pylist()) == {"plain", "others-near"}
    assert call("verify", overridden.collection).code == 0


def test_a_cancelled_case_entry_seals_nothing_new_and_frees_nothing(overridden: Scrape) -> None:
    run(overridden)
    override(overridden, list="cases", set_digest=set_digest(overridden, "cases"), algorithm="pdq", entry=0)
    run(overridden, "settle")
    assert actions(overridden, 2)["cases-near"] == "SEAL"  # withheld once, withheld for good
    overridden.settings["collection"] = "anew"
    overridden.write()
    run(overridden)
    rows = pq.read_table(overridden.root / "anew" / "settled" / "0001" / "decisions" / "a.parquet").to_pylist()
    assert {row["key"]: row["withheld"] for row in rows if row["key"].startswith("cases")} == {
        "cases-near": False,
        "cases-same": True,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"expires": TODAY - timedelta(days=1)}, "expired on"),
        ({"algorithm": "md5"}, "a hit on a digest is never cancelled"),
        ({"entry": 1}, "from 0 and below 1,"),
        ({"set_digest": "0" * 16}, "set_digest: expected"),
        ({"list": "known"}, "expected the id of a list of this run"),
    ],
)
def test_a_record_that_is_not_in_force_refuses_the_run(overridden: Scrape, changed, message) -> None:
    run(overridden)
    record = {"list": "others", "set_digest": set_digest(overridden, "others"), "algorithm": "pdq", "entry": 0}
    path = override(overridden, **{**record, **changed})
    before = files(overridden.collection)
    for verb in ("run", "examine", "settle"):
        done = call(verb, overridden.config, "--workers", 1)
        assert done.code == 2
        assert f"{path}: override 1: " in done.err
        assert message in done.err
    assert files(overridden.collection) == before


def test_a_models_rule_is_cancelled_for_one_sample(tmp_path: Path) -> None:
    scrape = Scrape.make(tmp_path)
    add_models(scrape)
    write_tar(scrape.shards / "a.tar", [(f"{seed:03d}.jpg", jpeg(seed)) for seed in range(10)])
    run(scrape)
    before = actions(scrape)
    removed = sorted(str(row["key"]) for row in scrape.decisions() if row["reason"] == "rule:sexual")
    assert len(removed) > 1
    for rule, code in (("listed-other", 2), ("sexual", 0)):  # a rule that reads a list is not to be cancelled
        override(scrape, sample=f"a/{removed[0]}", rule=rule)
        done = call("settle", scrape.config, "--workers", 1)
        assert done.code == code, done.err
        assert code == 0 or "'listed-other' reads a list" in done.err
    assert actions(scrape, 2) == {**before, removed[0]: "KEEP"}
    assert call("verify", scrape.collection).code == 0
