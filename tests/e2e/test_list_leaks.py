"""No entry of a list is printed or written: every command, every file, every repr; and nothing is left of it.

What the features of a scrape hold of its own pictures is theirs. So the digests listed here belong to withheld
pictures or to none, and the listed codes are a few bits off those of the pictures that they hit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from in_process import call
from listed_scrapes import (
    actions,
    codes_of,
    entry_at,
    import_rows,
    places_of,
    spellings,
    spoil_canary,
    store_options,
    write_policy,
    write_rows,
)
from scrapes import Command, Scrape, jpeg, list_store, shardscrub, write_tar

from classifiers.blocklists.algorithms import WIDTHS
from classifiers.blocklists.canaries import make_canaries
from classifiers.blocklists.entries import collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.registry import find_importer
from classifiers.blocklists.lists import MATCHED
from classifiers.blocklists.match import match_codes, match_digests, search_column
from classifiers.hashes.digests import DIGEST_WIDTHS, take_digests
from pipeline.examiners import make_examiner
from pipeline.executors.processes import ProcessesExecutor
from pipeline.executors.protocol import Outcome, Task, WorkerOptions
from pipeline.hits import encode_hits
from pipeline.lists.categories import keep_matched
from pipeline.matching import find_hits, gather_queries
from pipeline.run_lists import read_lists
from pipeline.runs import Part, examine_all
from pipeline.settle import load_features, read_commit
from pipeline.settle_matches import match_collection
from pipeline.setup import begin, load_setup

KINDS = ("phash", "dhash", "whash", "ahash")
Row = tuple[str, bytes, str]


def random_entries(seed: int) -> dict[str, bytes]:
    """One value for each algorithm, about half of its bits set."""
    random = np.random.default_rng(seed)
    values = {}
    for name, width in WIDTHS.items():
        bits = np.arange(8 * width) % 2 == 0
        values[name] = np.packbits(random.permutation(bits)).tobytes()
    return values


FAR, LATER, BAD = random_entries(1), random_entries(2), random_entries(3)


def csam_rows() -> list[Row]:
    """Hits by every algorithm, on pictures that a run withholds: samples 0 to 7, and 8 in the next version."""
    rows = [(name, getattr(take_digests(jpeg(seed)), name), "A") for seed, name in enumerate(DIGEST_WIDTHS)]
    rows.append(("pdq", entry_at(jpeg(3), 6), "A"))
    rows += [(name, entry_at(jpeg(4 + place), 2, name), "A") for place, name in enumerate(KINDS)]
    return rows + [(name, FAR[name], "A") for name in MATCHED]


@dataclass(slots=True)
class Told:
    """All that commands printed."""

    scrape: Scrape
    text: str = ""

    def run(self, code: int, *arguments: object, own_process: bool = False) -> Command:
        done = (shardscrub if own_process else call)(*arguments)
        assert done.code == code, (arguments, done.err)
        self.text += done.out + done.err
        return done


@dataclass(frozen=True, slots=True)
class Story:
    scrape: Scrape
    told: Told
    needles: frozenset[bytes]
    store_before: frozenset[tuple[str, bytes]]  # what of the entries the store held before they were withdrawn
    refusal: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("list-leaks")
    (root / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(root / "tmp"))
        yield tell(Scrape.make(root / "scrape", hashes={"kinds": ["pdq:fullres", *KINDS]}))


def tell(scrape: Scrape) -> Story:
    told = Told(scrape)
    rows, others = csam_rows(), [("pdq", entry_at(jpeg(9), 6), "B"), ("sha256", FAR["sha256"][::-1], "A")]
    later = [*rows, ("md5", take_digests(jpeg(8)).md5, "A"), *((name, LATER[name], "B") for name in MATCHED)]
    told.text += import_rows(scrape, "csam", rows, "csam").out
    told.text += import_rows(scrape, "ncii", others, "ncii").out
    store, whole = store_options(scrape, key=False), store_options(scrape)
    urls = scrape.root / "given" / "urls.csv"
    for name in ("url_md5", "url_sha256"):
        urls.write_text(f"{name}\n{FAR[name].hex()}\n{LATER[name].hex().upper()}\n")
        known = ("--id", name, "--purpose", "csam", "--effect", "case", "--format", "urls")
        told.run(0, "lists", "import", urls, *whole, *known)
    scrape.settings["list"] = [{"id": "csam"}, {"id": "ncii"}]
    near = "list.csam.exact >= 1 or list.csam.pdq_distance <= 31"
    for name in KINDS:
        near += f" or list.csam.{name}_distance <= 4"
    rules = [("listed", near, "SEAL"), ("listed-other", "list.other.pdq_distance <= 31", "REMOVE")]
    write_policy(scrape, required="list.csam.exact", rules=rules)
    for shard in range(2):
        numbers = range(6 * shard, 6 * shard + 6)
        members = [(f"{number:02d}.jpg", jpeg(number)) for number in numbers]
        write_tar(scrape.shards / f"{shard}.tar", [*members, (f"cut{shard}.jpg", jpeg(20 + shard)[:-600])])
    told.run(0, "run", scrape.config, "--dry-run", "--workers", 1)
    told.run(0, "run", scrape.config, "--workers", 2, own_process=True)
    told.text += import_rows(scrape, "csam", later, "csam").out
    told.run(0, "settle", scrape.config, "--workers", 1)
    home = scrape.collection
    told.run(0, "retry", home, "--reasons", "truncated", "--workers", 1)
    for options in (("status", home), ("status", home, "--restricted"), ("quarantine", home), ("verify", home)):
        told.run(0, *options)
    for key in [f"{number // 6}/{number:02d}" for number in range(12)] + ["0/cut0"]:
        told.run(0, "explain", home, key)
    for one in ((), ("csam",)):
        told.run(0, "lists", "show", *one, *store)
    told.run(0, "lists", "check", *whole)
    told.run(0, "lists", "diff", "csam@1", "csam", *whole)
    told.run(0, "lists", "diff", "csam", "ncii", *whole)
    fail(told)
    found = places_of(frozenset().union(*(spellings(row[1]) for row in later)), list_store(scrape.root).root)
    told.run(2, "lists", "withdraw", "csam", *store, "--why", "the agreement ended")
    told.run(0, "lists", "withdraw", "csam", *store, "--why", "the agreement ended", "--yes")
    assert "csam  withdrawn " in told.run(0, "lists", "show", *store).out
    assert "csam: withdrawn " in told.run(0, "lists", "check", *whole).out
    refusal = told.run(2, "run", scrape.config, "--workers", 1).err
    values = [value for _, value, _ in (*later, *others)] + [*FAR.values(), *LATER.values(), *BAD.values()]
    needles = frozenset().union(*map(spellings, values))
    return Story(scrape, told, needles, frozenset(found), refusal)


def fail(told: Told) -> None:
    """Imports of lines that are no entries, and runs that are refused."""
    scrape, whole = told.scrape, store_options(told.scrape)
    path = scrape.root / "given" / "bad.csv"
    options = ("--id", "bad", "--purpose", "csam")
    bad = [f"{name},{value.hex()[:-1]}" for name, value in BAD.items()]
    bad += [f"md5,{BAD['sha256'].hex()}", f"{BAD['md5'].hex()},md5", f"pdq,{BAD['pdq'].hex()}\u00e9"]
    path.write_text("\n".join(["algorithm,value", *bad]))
    told.run(4, "lists", "import", path, *whole, *options, "--effect", "case")
    for form in ("ncmec", "tat"):
        told.run(2, "lists", "import", path, *whole, *options, "--effect", "case", "--format", form)
    write_rows(path, [(name, BAD[name], "unmapped") for name in MATCHED])
    categories = scrape.root / "given" / "map.toml"  # of the imports before
    told.run(2, "lists", "import", path, *whole, *options, "--categories", categories)
    before = spoil_canary(list_store(scrape.root), "csam", "pdq", 31)
    told.run(1, "retry", scrape.collection, "--reasons", "truncated", "--workers", 1)
    for file, data in before.items():
        file.write_bytes(data)
    file = list_store(scrape.root).folder("csam", 2) / "entries.age"
    file.write_bytes(file.read_bytes()[:-1])
    told.run(2, "settle", scrape.config)
    told.run(3, "lists", "check", *whole)
    for each, data in before.items():
        each.write_bytes(data)


def test_the_lists_did_hit_by_every_algorithm(story: Story) -> None:
    sealed = {f"{number:02d}" for number in range(9)}
    fates = {**dict.fromkeys(sealed, "SEAL"), "09": "REMOVE", "10": "KEEP", "11": "KEEP"}
    assert actions(story.scrape, 3) == {**fates, "cut0": "QUARANTINE", "cut1": "QUARANTINE"}
    hit = {hit["algorithm"] for row in story.scrape.sealed() for hit in row["hits"]}
    assert hit == set(MATCHED)


def test_no_command_prints_an_entry(story: Story) -> None:
    printed = story.told.text.encode("utf-8", "surrogateescape")
    assert [needle for needle in story.needles if needle in printed] == []
    assert b"bad.csv:" in printed  # the places of bad lines are told
    assert list_store(story.scrape.root).manifest("ncii", 1).set_digest.encode() in printed


def test_no_file_holds_an_entry(story: Story) -> None:
    root = story.scrape.root
    assert places_of(story.needles, story.scrape.collection, root / "list-store", root.parent / "tmp") == set()
    assert story.store_before == frozenset()
    mine = [path for path in Path("/dev/shm").iterdir() if path.is_file() and path.stat().st_uid == os.getuid()]
    recent = [path for path in mine if path.stat().st_mtime > root.stat().st_ctime - 60]
    assert {needle for path in recent for needle in story.needles if needle in path.read_bytes()} == set()
    found = {needle for _, needle in places_of(story.needles, root / "given")}
    assert len(found) > len(MATCHED)  # the same search does find them in what was imported


def test_the_features_that_are_in_clear_are_searched_for_real(story: Story) -> None:
    kept = frozenset([codes_of(jpeg(10))[0].tobytes(), take_digests(jpeg(10)).sha256])
    assert len(places_of(kept, story.scrape.collection / "examined")) == 2


def test_nothing_is_left_of_a_withdrawn_list(story: Story) -> None:
    home = list_store(story.scrape.root).home("csam")
    assert [path.name for path in home.rglob("*")] == ["withdrawn.json"]
    assert f"list 'csam' was withdrawn on {datetime.now(UTC).year}-" in story.refusal
    assert "the agreement ended" in story.refusal


@pytest.fixture
def listed(tmp_path: Path) -> Scrape:
    """The csam list alone, over four small shards; the delivery is gone."""
    scrape = Scrape.make(tmp_path / "scrape", hashes={"kinds": ["pdq:fullres", *KINDS]}, list=[{"id": "csam"}])
    import_rows(scrape, "csam", csam_rows(), "csam")
    for shard in range(4):
        write_tar(
            scrape.shards / f"{shard}.tar", [(f"{shard}.jpg", jpeg(shard)), (f"{shard}k.jpg", jpeg(30 + shard))]
        )
    return scrape


def test_the_words_for_things_show_no_entry(listed: Scrape) -> None:
    path = listed.root / "given" / "csam.csv"
    batches = list(find_importer("plain", [path]).read([path], ReadOptions("")))
    collected = collect(batches)
    manifest, stored = list_store(listed.root).read("csam")
    options = WorkerOptions(listed.config)
    setup = load_setup(options)
    (matched,) = setup.decider.lists
    examine_all(setup, options, workers=1, part=Part())
    commits = [read_commit(setup.collection, shard, setup.plan) for shard in setup.collection.committed_shards()]
    features = load_features(setup.collection, commits[0])
    queries = gather_queries(features, setup.decider.lists)
    found = find_hits(queries, setup.decider.lists, search_column)
    column = matched.columns["pdq"]
    of_collection = match_collection(setup.collection, commits, setup.decider, search_column)
    task = Task("settle", "0", 1, hits=encode_hits(found.hits))
    things = [
        *batches, *(block for batch in batches for block in batch.entries), collected, manifest, stored, matched,
        *make_canaries(MATCHED, 1), *matched.canaries, column, search_column(column, column.rows, 31), queries,
        match_codes(matched, "pdq", column.rows, search_column), of_collection, setup.decider, setup, options, task,
        match_digests(matched, "md5", matched.columns["md5"].rows), *queries.digests.values(), found, features,
        *queries.codes.values(), Outcome("0", error="shard 0: no such file"), setup.plan,
        read_lists(setup.config, now=datetime.now(UTC)), keep_matched(collected, {"A": "case"}),
    ]  # fmt: skip
    with make_examiner(setup, lambda _: None) as examiner:
        things += [examiner, examiner.canaries, examiner.decider]
    needles = {needle for _, value, _ in csam_rows() for needle in spellings(value)}
    needles |= {needle for one in stored.canaries for needle in spellings(one.entry)}
    needles |= {repr(value)[2:-1].encode() for _, value, _ in csam_rows()}
    for thing in things:
        text = f"{thing!r} {thing}"
        assert not [needle for needle in needles if needle in text.encode()], type(thing).__name__
        assert "array(" not in text, type(thing).__name__
        assert "\\x" not in text, type(thing).__name__


def test_workers_share_one_copy_and_no_file_holds_an_entry_meanwhile(listed: Scrape, monkeypatch) -> None:
    tmp = listed.root.parent / "tmp"
    tmp.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp))
    needles = frozenset().union(*(spellings(value) for _, value, _ in csam_rows()))
    setup = load_setup(WorkerOptions(listed.config))
    setup.collection.make()
    begin(setup)
    options = WorkerOptions(listed.config, lists_fd=setup.lists_fd)
    tasks = [Task("examine", source.name, 1) for source in setup.sources]
    executor = ProcessesExecutor(options, workers=2, journal=setup.collection.journal)
    seen: dict[int, set[str]] = {}
    with closing(executor):
        for outcome in executor.run(tasks, lambda _: None):
            assert outcome.error == ""
            for pid in children():
                seen.setdefault(pid, set()).update(mapped_lists(pid))
            folders = (listed.collection, listed.root / "list-store", tmp)
            assert places_of(needles, *folders) == set()
    ours = f"{os.fstat(setup.lists_fd).st_ino} r--s"
    assert len(seen) == 2
    assert set(map(frozenset, seen.values())) == {frozenset([ours])}


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def mapped_lists(pid: int) -> Iterator[str]:
    """Inode and rights of the memory files of lists that a process has mapped."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        _, rights, _, _, inode, *name = line.split(maxsplit=5)
        if name and name[0].startswith("/memfd:lists"):
            yield f"{inode} {rights}"
