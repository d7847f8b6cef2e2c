"""The list store on disk: modes, encryption, changes, kills, removal, withdrawal, categories."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from classifiers.blocklists.algorithms import WIDTHS, ListError
from classifiers.blocklists.entries import Batch, Collected, Entries, Note, collect
from classifiers.blocklists.lists import make_feeds
from classifiers.blocklists.match import join_column, search_column
from classifiers.blocklists.shared import attach_lists, share_indexes, share_lists
from classifiers.blocklists.stored import set_digest
from manifests.cases import new_identity
from manifests.records import canonical_json
from pipeline.errors import ConfigError
from pipeline.lists.categories import effects_of, known_effects
from pipeline.lists.check import check_store
from pipeline.lists.manifest import About
from pipeline.lists.report import difference_lines, shown
from pipeline.lists.store import ListStore

ABOUT = About(purpose="csam", received_from="A hotline", permitted_uses=("training sets",), expires="2999-01-31")
CASE = {"(none)": "case"}
COUNT = 6


def values(seed: int, algorithm: str, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng([seed, len(algorithm)]).integers(0, 256, (count, WIDTHS[algorithm]), np.uint8)


def entries(seed: int = 1, *, algorithms=("md5", "sha1", "pdq"), category: str = "(none)") -> list[Entries]:
    numbers = np.arange(1, COUNT + 1)
    return [Entries(name, values(seed, name), numbers, category) for name in algorithms]


def gather(*blocks: Entries, notes: tuple[Note, ...] = ()) -> Collected:
    records = [block.records for block in blocks] + [[note.record for note in notes]]
    numbers = np.unique(np.concatenate(records).astype(np.int64))
    return collect([Batch("list.csv", numbers, blocks, notes)])


@pytest.fixture
def store(tmp_path: Path) -> ListStore:
    key = tmp_path / "store.key"
    key.write_text(new_identity()[0] + "\n")
    key.chmod(0o600)
    return ListStore(tmp_path / "lists", key)


def add(store: ListStore, seed: int = 1, list_id: str = "known", **options: object):
    return store.add(list_id, gather(*entries(seed)), ABOUT, CASE, format_name="plain", **options)


def on_disk(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def traces(root: Path, seeds: tuple[int, ...]) -> list[str]:
    """Files that hold an entry, raw or in hex."""
    wanted = [bytes(row) for seed in seeds for name in ("md5", "sha1", "pdq") for row in values(seed, name)]
    found = []
    for name, data in on_disk(root).items():
        lower = data.lower()
        if any(entry in data or entry.hex().encode() in lower for entry in wanted):
            found.append(name)
    return found


def test_a_version_is_read_as_it_was_imported(store: ListStore) -> None:
    made = add(store, stated_count=COUNT, tolerance=0.01)
    manifest, stored = store.read("known")
    assert manifest == made == store.manifest("known", 1) == store.newest("known")
    assert manifest.name == "known@1"
    assert (manifest.records, manifest.taken, manifest.stated_count) == (COUNT, COUNT, COUNT)
    assert dict(manifest.entries) == {"md5": COUNT, "pdq": COUNT, "sha1": COUNT}
    assert dict(manifest.canaries) == {"md5": 1, "pdq": 2, "sha1": 1}
    assert manifest.set_digest == set_digest(stored.rows)
    assert manifest.permitted_uses == ("training sets",)
    assert manifest.age_days(datetime.now(UTC)) == 0
    for name in ("md5", "sha1", "pdq"):
        assert {bytes(row) for row in stored.rows[name]} == {bytes(row) for row in values(1, name)}


def test_canaries_are_in_no_count_and_no_set_digest(store: ListStore) -> None:
    first, second = add(store), add(store, list_id="other")
    assert first.set_digest == second.set_digest
    one, two = store.read("known")[1], store.read("other")[1]
    assert {canary.entry for canary in one.canaries}.isdisjoint(canary.entry for canary in two.canaries)
    held = {bytes(row) for rows in one.rows.values() for row in rows}
    assert held.isdisjoint(canary.entry for canary in one.canaries)


def test_folders_and_files_are_for_their_owner_only(store: ListStore) -> None:
    add(store)
    for path in (store.root, *store.root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_entry_lies_on_the_disk_in_clear(store: ListStore) -> None:
    add(store)
    add(store, 2)
    assert traces(store.root, (1, 2)) == []
    plain = ListStore(store.root.parent / "plain", plain=True)
    add(plain)
    assert traces(plain.root, (1,)) == ["known/0001/entries.bin"]


def test_an_unencrypted_version_is_read_only_where_that_is_allowed(store: ListStore) -> None:
    manifest = add(ListStore(store.root, plain=True))
    assert not manifest.encrypted
    with pytest.raises(ListError, match="unsafe_plain_lists"):
        store.read("known")
    assert ListStore(store.root, plain=True).read("known")[0] == manifest


def test_a_flipped_byte_is_noticed_wherever_it_is(store: ListStore) -> None:
    add(store)
    path = store.folder("known", 1) / "entries.age"
    data = path.read_bytes()
    for place in (0, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ListError, match=r"known@1.*entries\.age: changed on disk"):
            store.read("known")
    path.unlink()
    with pytest.raises(ListError, match=r"entries\.age: no such file"):
        store.read("known")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("set_digest", "0" * 64),
        ("entries", {"md5": COUNT}),
        ("effects", {"(none)": "remove"}),
        ("canaries", {}),
        ("purpose", "other"),
        ("expires", "2999-1-31"),
        ("version", 2),
        ("version", "1"),
        ("records", -1),
        ("schema", 2),
        ("imported_at", "yesterday"),
        ("surprise", 1),
        ("fates", None),
        ("fates", {"rejected": 0.5}),
        ("encrypted", 1),
        ("contact", 1),
        ("permitted_uses", "training sets"),
        ("entries_by_category", {}),
    ],
)
def test_a_changed_manifest_is_refused(store: ListStore, key: str, value: object) -> None:
    add(store)
    path = store.folder("known", 1) / "manifest.json"
    path.write_bytes(canonical_json(json.loads(path.read_text()) | {key: value}) + b"\n")
    with pytest.raises(ListError, match=r"manifest\.json"):
        store.read("known")


def test_a_manifest_in_another_form_of_json_is_refused(store: ListStore) -> None:
    add(store)
    path = store.folder("known", 1) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    with pytest.raises(ListError, match="not in the one form"):
        store.read("known")


def test_damaged_json_is_refused_by_the_name_of_its_file(store: ListStore) -> None:
    add(store)
    path = store.folder("known", 1) / "manifest.json"
    for text in (b"", b"[]", b"\xff", b"{", b"[" * 100_000, path.read_bytes()[:-3]):
        path.write_bytes(text)
        with pytest.raises(ListError, match=r"0001/manifest\.json: damaged"):
            store.newest("known")


def test_another_key_does_not_open_the_store(store: ListStore, tmp_path: Path) -> None:
    add(store)
    other = tmp_path / "other.key"
    other.write_text(new_identity()[0])
    other.chmod(0o600)
    with pytest.raises(ListError, match="not the key that it was imported with"):
        ListStore(store.root, other).read("known")


def test_a_key_is_refused_in_the_store_open_to_others_or_not_a_key(store: ListStore, tmp_path: Path) -> None:
    assert store.key is not None
    add(store)
    inside = store.root / "store.key"
    os.link(store.key, inside)
    elsewhere = tmp_path / "link"
    elsewhere.symlink_to(inside)
    wrong = tmp_path / "wrong.key"
    wrong.write_text("nothing")
    wrong.chmod(0o600)
    for key, message in (
        (inside, "in the store"),
        (elsewhere, "in the store"),
        (tmp_path / "none.key", "no such key file"),
        (wrong, "expected an age identity"),
        (None, "give the store's key file"),
    ):
        with pytest.raises(ListError, match=message):
            add(ListStore(store.root, key))
    store.key.chmod(0o640)
    with pytest.raises(ListError, match="0640"):
        store.read("known")


@pytest.mark.parametrize("name", ["", "Known", "../known", ".known", "a/b", "a" * 65, "known\n"])
def test_an_id_names_a_folder_of_the_store_and_nothing_else(store: ListStore, name: str) -> None:
    with pytest.raises(ListError, match="list id"):
        add(store, list_id=name)
    assert not store.root.exists()


@pytest.mark.parametrize("left", [(), ("entries.age",), (".tmp-entries.age-00ff",), (".tmp-manifest.json-00ff",)])
def test_what_a_killed_import_left_does_not_count_and_is_swept(store: ListStore, left: tuple[str, ...]) -> None:
    add(store)
    folder = store.folder("known", 2)
    folder.mkdir(mode=0o700)
    for name in left:
        (folder / name).write_bytes(b"half")
    assert store.versions("known") == (1,)
    assert store.read("known")[0].version == 1
    assert "did not finish" in "".join(check_store(store)[1])
    assert add(store, 2).version == 2
    assert sorted(path.name for path in folder.iterdir()) == ["entries.age", "manifest.json"]
    assert check_store(store)[1] == []


def test_a_removed_version_is_gone_and_its_number_stays_used(store: ListStore) -> None:
    add(store)
    second = add(store, 2)
    store.remove("known", 2)
    assert store.versions("known") == (1,)
    assert json.loads((store.folder("known", 2) / "removed.json").read_text())["set_digest"] == second.set_digest
    assert [path.name for path in store.folder("known", 2).iterdir()] == ["removed.json"]
    with pytest.raises(ListError, match="no version 2; it has 1"):
        store.read("known", 2)
    assert add(store, 3).version == 3
    assert check_store(store)[1] == []
    store.remove("known", 1)
    store.remove("known", 3)
    with pytest.raises(ListError, match="any more"):
        store.read("known")
    assert add(store).version == 4


@pytest.mark.parametrize("left", ["entries.age", "manifest.json"])
def test_a_killed_removal_is_finished_by_running_it_again(store: ListStore, left: str) -> None:
    add(store)
    add(store, 2)
    folder = store.folder("known", 1)
    rest = (folder / left).read_bytes()
    store.remove("known", 1)
    (folder / left).write_bytes(rest)
    assert store.versions("known") == (2,)
    assert left in "".join(check_store(store)[1])
    store.remove("known", 1)
    assert [path.name for path in folder.iterdir()] == ["removed.json"]


def test_a_withdrawn_list_leaves_no_trace_but_word_of_it(store: ListStore) -> None:
    plain = ListStore(store.root, store.key, plain=True)
    made = [add(plain), add(store, 2), add(store, 3)]
    add(store, 9, list_id="another")
    store.remove("known", 2)
    assert traces(store.root, (1, 2, 3)) == ["known/0001/entries.bin"]
    before = [os.open(path, os.O_RDONLY) for path in sorted((store.root / "known").rglob("entries.*"))]
    record = store.withdraw("known", "the owner took it back")
    for fd in before:  # the blocks themselves, as one who had opened the files still sees them
        assert set(os.read(fd, 1 << 20)) == {0}
        os.close(fd)
    assert list(on_disk(store.root / "known")) == ["withdrawn.json"]
    assert traces(store.root, (1, 2, 3)) == []
    assert record.versions == {str(item.version): item.set_digest for item in made}
    for act in (lambda: store.read("known"), lambda: add(store), lambda: store.remove("known", 1)):
        with pytest.raises(ListError, match=f"withdrawn on {record.withdrawn_at[:10]}.*the owner took it back"):
            act()
    assert store.ids() == ("another", "known")
    assert store.withdraw("known", "again") == record
    notes, problems = check_store(store)
    assert not problems
    assert f"known: withdrawn {record.withdrawn_at}: the owner took it back" in notes
    assert "withdrawn" in shown(store, "known")[1][-1]


def test_a_killed_withdrawal_is_finished_by_running_it_again(store: ListStore) -> None:
    add(store)
    add(store, 2)
    kept = {path: path.read_bytes() for path in (store.root / "known").rglob("*") if path.is_file()}
    record = store.withdraw("known", "asked")
    for count in range(1, len(kept) + 1):
        for path in list(kept)[:count]:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(kept[path])
        with pytest.raises(ListError, match="withdrawn on"):
            store.read("known")
        assert "did not finish" in "".join(check_store(store)[1])
        assert store.withdraw("known", "asked") == record
        assert list(on_disk(store.root / "known")) == ["withdrawn.json"]


def test_a_list_with_a_damaged_manifest_can_still_be_destroyed(store: ListStore) -> None:
    add(store)
    second = add(store, 2)
    (store.folder("known", 1) / "manifest.json").write_bytes(b"{")
    record = store.withdraw("known", "asked")
    assert record.versions == {"1": None, "2": second.set_digest}
    assert list(on_disk(store.root / "known")) == ["withdrawn.json"]


def test_what_is_destroyed_is_never_another_file_behind_a_link(store: ListStore, tmp_path: Path) -> None:
    add(store)
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    (store.folder("known", 1) / "link").symlink_to(precious)
    with pytest.raises(OSError, match="link"):
        store.withdraw("known", "asked")
    assert precious.read_bytes() == b"mine"


def test_check_finds_modes_strangers_and_expiry(store: ListStore) -> None:
    late = About(purpose="ncii", expires="2020-02-29")
    store.add("late", gather(*entries()), late, CASE, format_name="plain")
    add(store)
    (store.folder("known", 1) / "entries.age").chmod(0o644)
    store.folder("known", 1).chmod(0o755)
    (store.root / "notes.txt").write_text("mine")
    (store.root / "notes.txt").chmod(0o600)
    notes, problems = check_store(store)
    assert len(notes) == 2
    assert len(problems) == 4
    text = "\n".join(problems)
    for part in (
        "late@1: expired 2020-02-29",
        "entries.age: expected mode 0600, found 0644",
        "notes.txt: does not",
    ):
        assert part in text
    assert "0001: expected mode 0700, found 0755" in text
    assert [line for line in shown(store, None)[1] if "2020-02-29 (past)" in line]


def test_lists_without_anything_to_match_are_refused(store: ListStore) -> None:
    ignored = gather(*entries(category="0"))
    with pytest.raises(ListError, match="nothing to match is left: 18 entries"):
        store.add("known", ignored, ABOUT, {"0": "ignore"}, format_name="plain")
    empty = gather(notes=(Note("skipped", "a video", 1),))
    with pytest.raises(ListError, match="nothing to match"):
        store.add("known", empty, ABOUT, {}, format_name="plain")
    assert not store.root.exists()


def test_ignored_entries_are_counted_and_not_stored(store: ListStore) -> None:
    both = gather(*entries(1, category="A1"), *entries(2, category="0"), *entries(1, category="0"))
    effects = {"A1": "case", "0": "ignore"}
    manifest = store.add("known", both, ABOUT, effects, format_name="plain")
    sixes = {"md5": COUNT, "pdq": COUNT, "sha1": COUNT}
    assert manifest.entries == sixes
    assert manifest.entries_by_effect == {"case": sixes, "remove": {}, "ignore": sixes}
    assert manifest.entries_by_category == {"A1": sixes, "0": {name: 2 * COUNT for name in sixes}}
    stored = store.read("known")[1]
    assert {bytes(row) for row in stored.rows["md5"]} == {bytes(row) for row in values(1, "md5")}
    assert {int(mask) for mask in stored.masks["md5"]} == {0b11}


def test_an_effect_is_said_once_and_for_every_category(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[effects]\nA1 = "case"\n"Z" = "ignore"\n')
    collected = gather(*entries(1, category="A1"), *entries(2, category="B\n"), *entries(3))
    with pytest.raises(ConfigError, match=r"'\(none\)' \(18 entries\), 'B\\n' \(18 entries\)"):
        effects_of(collected, known_effects(path, ""))
    with pytest.raises(ConfigError, match=r"'A1' \(18 entries\), 'B"):
        effects_of(collected, known_effects(None, "remove"))
    assert effects_of(gather(*entries()), known_effects(None, "remove")) == {"(none)": "remove"}
    assert effects_of(gather(*entries(category="A1")), known_effects(path, "")) == {"A1": "case"}
    for given in ((None, ""), (path, "case"), (None, "ignore"), (tmp_path / "none.toml", "")):
        with pytest.raises(ConfigError):
            known_effects(*given)
    for text in (
        "",
        "[effects]\nA1 = 'seal'",
        "[effects]\nA1 = 1",
        "[effects]\nA1 = []",
        "A1 = 'case'",
        "[effect]",
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"map\.toml"):
            known_effects(path, "")


def test_a_difference_is_counts_of_both_sides_and_the_middle(store: ListStore) -> None:
    add(store)
    more = Entries("md5", values(5, "md5", 2), np.arange(1, 3))
    store.add("known", gather(*entries(algorithms=("md5", "pdq")), more), ABOUT, CASE, format_name="plain")
    lines = difference_lines(store.read("known", 1)[1], store.read("known", 2)[1])
    assert lines == [
        "md5: only in the first 0, only in the second 2, in both 6",
        "pdq: only in the first 0, only in the second 0, in both 6",
        "sha1: only in the first 6, only in the second 0, in both 0",
    ]


@pytest.mark.parametrize("count", [1, 2, 4, 16, 65_536])
def test_near_duplicates_are_all_found_after_saving_loading_indexing_and_joining(store, count):
    random = np.random.default_rng(count)
    code = np.frombuffer(b"\x33\xcc" * 16, np.uint8)
    bits = np.tile(np.unpackbits(code), (count, 1))
    for row in range(1, count):  # each differs in up to 5 bits, so any two of them in up to 10
        bits[row, random.integers(0, 256, 5)] ^= 1
    codes = np.unique(np.packbits(bits, axis=1), axis=0)
    others = random.integers(0, 256, (5000, 32), np.uint8)
    block = Entries("pdq", np.concatenate([codes, others]), np.arange(1, len(codes) + 5001))
    store.add("near", gather(block), ABOUT, CASE, format_name="plain")
    manifest, stored = store.read("near")
    about = {"list_id": "near", "version": 1, "purpose": "csam", "source": "", "set_digest": manifest.set_digest}
    lists = make_feeds(stored, **about, radius=31, radius64=4)
    memory = share_lists(lists, [])
    (found,) = attach_lists(memory, share_indexes(lists, threads=1))
    column = found.columns["pdq"]
    assert column.index is not None
    for hits in (search_column(column, codes[:1], 31), join_column(column, codes[:1], 31, threads=1)):
        assert {column.rows[row].tobytes() for row in hits.entry} == {row.tobytes() for row in codes}
