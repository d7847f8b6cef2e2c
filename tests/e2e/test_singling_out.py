"""A script tries to single out cases among what two publications lack, at the size at which law 8 hands them out.

Stored collections of 28,000 samples, settled and published twice with the command and its own bounds. Each time
eight cases are planted in one shard, so that whatever tells that shard names them with one in sixty-five.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attackers import Seen, list_files, strategies
from in_process import call
from leak_kit import SEEDS, make_scrape, sample
from scrapes import Scrape, jpeg, write_list, write_tar

from classifiers.hashes.digests import DIGEST_WIDTHS
from manifests import schema
from manifests.cases import open_sealed
from manifests.collection import Collection
from manifests.features import HashColumn, ShardFeatures
from manifests.keyed import read_keyed, read_secret
from manifests.records import identities_digest
from pipeline.commit import ShardFacts, commit_shard
from pipeline.executors.protocol import WorkerOptions
from pipeline.setup import Setup, begin, load_setup

SHARDS, SAMPLES, MISSING, CASES = 16, 1750, 10_400, 8
NAMES = [f"{number:05d}" for number in range(SHARDS)]
ORDER = np.random.default_rng(11).permutation(SHARDS * SAMPLES)
GONE = (ORDER[:MISSING], ORDER[MISSING : 2 * MISSING])  # what the first settle takes, and what the second one does
PLANTED = ((3, 11), (7, 14), (12, 5))  # by world: the shard of the cases of each settle
POLICY = """
name = "digests"
required = ["list.csam.exact", "list.other.exact"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "other"
when = "list.other.exact >= 1"
action = "REMOVE"
"""


def digest(number: int, name: str) -> bytes:
    return hashlib.new(name, b"%d" % number, usedforsecurity=False).digest()


def key_of(number: int) -> str:
    return f"{NAMES[number // SAMPLES]}/k{number % SAMPLES:05d}"


def cases_of(world: int, settle: int) -> np.ndarray:
    gone = GONE[settle]
    return np.sort(gone[gone // SAMPLES == PLANTED[world][settle]])[:CASES]


def make_features(shard: int) -> ShardFeatures:
    """What an examine would have stored: one picture a sample, no two alike."""
    numbers = range(shard * SAMPLES, (shard + 1) * SAMPLES)
    texts = {"shard": NAMES[shard], "role": "image", "member": "jpg", "hash_source": "bytes", "format": "jpeg"}
    columns = {name: pa.array([value] * SAMPLES) for name, value in texts.items()}
    columns |= {name: pa.nulls(SAMPLES, pa.string()) for name in ("metadata", "sample_fault", "fault")}
    columns |= {f"crawl_{name}": pa.nulls(SAMPLES, pa.binary(width)) for name, width in DIGEST_WIDTHS.items()}
    columns |= {name: pa.array([512] * SAMPLES, pa.int32()) for name in ("width", "height")}
    columns |= {name: pa.array([4096] * SAMPLES, pa.int64()) for name in ("offset", "size")}
    columns["index"] = pa.array(range(SAMPLES), pa.int32())
    columns["withheld"] = pa.array([False] * SAMPLES)
    columns["key"] = pa.array([key_of(number).partition("/")[2] for number in numbers])
    urls = [f"http://example.invalid/{number}.jpg" for number in numbers]
    columns["url"], columns["caption"] = pa.array(urls), pa.array([f"drawing {number}" for number in numbers])
    columns["url_uid"] = pa.array([hashlib.sha256(url.encode()).digest()[:16] for url in urls], pa.binary(16))
    fields = schema.examined_schema(schema.FeatureColumns((), 0, ())).names
    table = pa.table({name: columns[name] for name in fields if name in columns})
    digests = {
        name: np.frombuffer(b"".join(digest(number, name) for number in numbers), np.uint8).reshape(SAMPLES, width)
        for name, width in DIGEST_WIDTHS.items()
    }
    yes, hashes = np.ones(SAMPLES, np.bool_), {"pdq:fullres.oriented": HashColumn.empty(SAMPLES, 8, 32)}
    return ShardFeatures(table, digests, yes, hashes, np.zeros((SAMPLES, 0), np.float16), ~yes, {})


def examine(setup: Setup) -> None:
    begin(setup)
    for shard, name in enumerate(NAMES):
        features = make_features(shard)
        identities = identities_digest(features.identities())
        facts = ShardFacts(name, "0" * 64, 1, None, None, SAMPLES, identities, setup.plan.examine.batch)
        hits = setup.decider.match(features)
        common = {"collection": setup.collection, "plan": setup.plan, "decider": setup.decider}
        commit_shard(features, hits, facts=facts, settle=1, **common)


@dataclass(frozen=True, slots=True)
class World:
    """One collection after two settles: what each account saw of each of them."""

    number: int
    scrape: Scrape
    seen: dict[str, list[Seen]]


Change = Callable[[World, int, Seen], Seen]


def make_world(root: Path, number: int) -> World:
    lists = [{"id": name} for name in ("csam", "other")]
    scrape = Scrape.make(
        root,
        list=lists,
        input=[{"shards": f"shards/{{{NAMES[0]}..{NAMES[-1]}}}.tar"}],
        hashes={"kinds": ["pdq:fullres"], "views": ["oriented"]},
        policy={"file": "policy.toml"},
    )
    (root / "policy.toml").write_text(POLICY)
    scrape.settings["release"] = {"shards": False}
    scrape.write()
    accounts, home = ("outside", "sealed", "inside"), scrape.collection
    seen: dict[str, list[Seen]] = {account: [] for account in accounts}
    before: dict[str, dict[str, tuple[int, int]]] = {account: {} for account in accounts}
    kept = {f"{name}/k{index:05d}" for name in NAMES for index in range(SAMPLES)}
    csam, other = [], []
    for settle in range(2):
        cases = cases_of(number, settle)
        csam += [("md5", digest(case, "md5")) for case in cases]
        other += [("md5", digest(one, "md5")) for one in np.setdiff1d(GONE[settle], cases)]
        write_list(root / "lists/csam.csv", csam)
        write_list(root / "lists/other.csv", other)
        if settle == 0:
            examine(load_setup(WorkerOptions(scrape.config, from_stored=True)))
        to = root / f"published-{settle}"
        said = ""
        for arguments in (
            ("settle", scrape.config, "--workers", 1),
            ("status", home),
            ("publish", home, "--to", to),
        ):
            done = call(*arguments)
            assert done.code == 0, done.err
            said += done.out + done.err
        tables = {path.stem: pq.read_table(path, columns=["key"]) for path in (to / "manifest").glob("*.parquet")}
        now = {f"{shard}/{key}" for shard, table in tables.items() for key in table["key"].to_pylist()}
        gone = {name: frozenset(key for key in kept - now if key.startswith(f"{name}/")) for name in NAMES}
        kept = now
        for account in accounts:
            files = {f"published/{name}": value for name, value in list_files(to, account="inside").items()}
            files |= list_files(home, account=account)
            new = {name: value for name, value in files.items() if before[account].get(name) != value}
            before[account] = files
            seen[account].append(Seen(gone, said, new))
    assert {f"{row['shard']}/{row['key']}" for row in scrape.sealed()} == {
        key_of(case) for settle in range(2) for case in cases_of(number, settle)
    }  # the world is the one that was meant
    return World(number, scrape, seen)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> Iterator[list[World]]:
    root = tmp_path_factory.mktemp("singling-out")
    yield [make_world(root / str(number), number) for number in range(len(PLANTED))]
    shutil.rmtree(root)


def told(worlds: list[World], account: str, change: Change = lambda world, settle, seen: seen) -> set[str]:
    """Names of the strategies that beat 1 in 1,000 in every world: a guess of a shard does so in 1 of 4,096."""
    better: dict[str, list[bool]] = {}
    for settle in range(2):
        for world in worlds:
            cases = {key_of(case) for case in cases_of(world.number, settle)}
            for name, keys in strategies(change(world, settle, world.seen[account][settle])):
                better.setdefault(f"{settle + 1}: {name}", []).append(1000 * len(keys & cases) > len(keys))
    return {name for name, found in better.items() if all(found) and len(found) == len(worlds)}


def test_each_difference_is_as_large_as_law_8_asks_and_holds_the_cases(worlds):
    for world in worlds:
        for settle, seen in enumerate(world.seen["outside"]):
            missing = frozenset().union(*seen.missing.values())
            assert len(missing) == MISSING
            assert {key_of(case) for case in cases_of(world.number, settle)} <= missing


def test_no_strategy_singles_out_cases_from_what_an_outsider_sees(worlds):
    """Input, two publications, console, releases, names, sizes and times of all that is not closed to others."""
    assert told(worlds, "outside") == set()


def test_names_sizes_and_times_of_sealed_files_tell_nothing_either(worlds):
    assert told(worlds, "sealed") == set()


def test_a_listing_of_the_restricted_tier_tells_no_more_than_is_documented(worlds):
    """Only those can make one who may read which samples are withheld; its names tell of rewrites alone."""
    found = told(worlds, "inside")
    assert {name for name in found if " name " in name} == {"2: name examined/*~N.parquet"}
    assert {re.sub(r"~N|NNNN", "", name).split()[2].split("/")[0] for name in found} <= {"examined", "settled"}


# Mutants: what is seen of a product that does it wrong.


def planted(world: World, settle: int) -> str:
    return NAMES[PLANTED[world.number][settle]]


def counted(world: World, settle: int, seen: Seen) -> Seen:
    lines = [f"{name}: {CASES * (name == planted(world, settle))} sealed" for name in NAMES]
    return replace(seen, console="\n".join([seen.console, *lines]))


def unpadded(world: World, settle: int, seen: Seen) -> Seen:
    home, identity, files = world.scrape.collection, world.scrape.identity, dict(seen.files)
    for name, (padded, time) in seen.files.items():
        if name.endswith(".age"):
            table = open_sealed((home / name).read_bytes(), identity=identity, source=name)
            assert len(table) == CASES * (planted(world, settle) in name)
            files[name] = (len(schema.encode(table)) + padded % 512, time)
    return replace(seen, files=files)


def keyed_where_withheld(world: World, settle: int, seen: Seen) -> Seen:
    home, secret = Collection(world.scrape.collection), read_secret(Collection(world.scrape.collection))
    empty = {f"examined/{name}.keyed" for name in NAMES if not read_keyed(home, name, secret).images}
    return replace(seen, files={name: value for name, value in seen.files.items() if name not in empty})


def times_as_written(world: World, settle: int, seen: Seen) -> Seen:
    late = {
        name: 10**9 * (1 + number + (number >= PLANTED[world.number][settle])) for number, name in enumerate(NAMES)
    }
    shard_of = {name: next((shard for shard in NAMES if f"/{shard}." in name), "") for name in seen.files}
    moved = {name: (size, late[shard_of[name]]) for name, (size, _) in seen.files.items() if shard_of[name]}
    return replace(seen, files={**seen.files, **moved})


@pytest.mark.parametrize(
    ("mutant", "account", "caught"),
    [
        (counted, "outside", "console"),
        (unpadded, "sealed", "size sealed/*.NNNN.age"),
        (times_as_written, "sealed", "time sealed/*.NNNN.age"),
        (times_as_written, "outside", "time releases/NNNN/manifest/*.parquet"),
        (keyed_where_withheld, "inside", "name examined/*.keyed"),
    ],
)
def test_a_mutant_that_tells_is_caught(worlds, mutant, account, caught):
    found = {re.sub(r"\b000[12]\b", "NNNN", name) for name in told(worlds, account, mutant)}
    assert f"2: {caught}" in found


def test_a_copy_that_a_settle_withholds_leaves_no_sealed_file_of_its_own(tmp_path):
    """Who knows the input knows which samples are copies: a second sealed file of a shard says which is meant."""
    scrape = make_scrape(tmp_path)
    copy = sample("copied", jpeg(SEEDS["withheld"]))
    write_tar(scrape.shards / "02.tar", [*copy, *sample("plain", jpeg(99))])
    assert call("run", scrape.config, "--workers", 1).code == 0
    assert {row["key"] for row in scrape.sealed()} == {"withheld", "copied"}
    files = [path.name for path in (scrape.collection / "sealed").iterdir()]
    assert len({sum(name.startswith(f"{shard}") for name in files) for shard in ("00", "01", "02")}) == 1
