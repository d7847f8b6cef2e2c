"""A log in a folder: its layout, that only its entries decide its bytes, and that no change of it goes unseen."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import audit_kit
import pytest
from audit_kit import KEYS, ORIGIN, SIGNER, check, files_of, made_entries, made_signer, write_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.audit.log import CHECKPOINT, Log, check_extends, read_checkpoint
from manifests.audit.merkle import EMPTY_ROOT, leaf_hash
from manifests.audit.note import Checkpoint, NoteKey
from manifests.audit.tiles import Edge, LogError, Tiles, check_log, paths_of, tile_path
from manifests.signers import FileSigner

SIZES = (0, 1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 70_000)
WIDTHS = {  # the number of full tiles, and the width of the partial one, by level; bundles are as level 0
    0: [],
    1: [(0, 1)],
    2: [(0, 2)],
    255: [(0, 255)],
    256: [(1, 0), (0, 1)],
    257: [(1, 1), (0, 1)],
    65_535: [(255, 255), (0, 255)],
    65_536: [(256, 0), (1, 0), (0, 1)],
    65_537: [(256, 1), (1, 0), (0, 1)],
    70_000: [(273, 112), (1, 17), (0, 1)],
}
FLIPS = 1200


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Nothing here is about the loss of power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "log"
    write_log(folder, 300)
    return folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "log"))


def laid_out(folder: Path) -> dict[str, list[tuple[int, int]]]:
    """Count what lies there: full tiles, and the width of the one partial tile, by level."""
    found: dict[str, list[list[int]]] = {}
    for name in files_of(folder / "tile"):
        level, *_, last = Path(name).parts
        full, widths = found.setdefault(level, [[], []])
        (widths if ".p" in name else full).append(int(last))
    assert all(len(widths) < 2 for _, widths in found.values())
    return {level: (len(full), sum(widths)) for level, (full, widths) in found.items()}


def test_logs_of_the_sizes_where_layouts_turn_are_laid_out_as_the_text_says(tmp_path):
    log = Log.open(tmp_path / "grown", ORIGIN, KEYS)
    for size in SIZES:
        log.append(made_entries(log.size, size))
        log.publish(SIGNER)
        levels = dict(enumerate(WIDTHS[size]))
        expected = {str(level): widths for level, widths in levels.items()}
        assert laid_out(log.folder) == expected | ({"entries": WIDTHS[size][0]} if size else {})
        assert set(files_of(log.folder)) == {*paths_of(size), CHECKPOINT}
        assert check(log.folder).size == size
    write_log(tmp_path / "at-once", SIZES[-1])
    assert files_of(tmp_path / "at-once") == files_of(tmp_path / "grown")
    leaves = [leaf_hash(entry) for entry in made_entries(0, SIZES[-1])]
    assert log.checkpoint.root == audit_kit.root_of(leaves)
    assert Tiles(log.folder, SIZES[-1]).entry(66_000) == made_entries(66_000, 66_001)[0]


def test_paths_hold_three_digits_a_part():
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tile_path("entries", 273, 112) == "tile/entries/273.p/112"
    assert tile_path(63, 1000) == "tile/63/x001/000"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 560), st.booleans()), max_size=6), st.integers(0, 560))
def test_in_whatever_splits_entries_are_appended_the_bytes_are_the_same(tmp_path_factory, stops, size):
    folder = tmp_path_factory.mktemp("split")
    log = Log.open(folder / "split", ORIGIN, KEYS)
    for stop, publish in sorted(stops):
        log.append(made_entries(log.size, min(stop, size)))
        if publish:
            log.publish(SIGNER)
            log = Log.open(log.folder, ORIGIN, KEYS)
    log.append(made_entries(log.size, size))
    log.publish(SIGNER)
    write_log(folder / "whole", size)
    assert files_of(folder / "split") == files_of(folder / "whole")
    shutil.rmtree(folder)


@pytest.mark.shared_data
def test_the_tiles_of_a_foreign_log_are_those_that_its_entries_make_here(shared_data, tmp_path):
    foreign, edge, older = shared_data / "tlog", Edge(), None
    for size in range(16):
        lines = (foreign / f"checkpoint.{size}").read_text().split("\n")
        checkpoint = Checkpoint.parse("\n".join(lines[:3]) + "\n")
        if size:
            for name, data in [*edge.add(Tiles(foreign, size).entry(size - 1)), *edge.partial()]:
                assert (foreign / name).read_bytes() == data
        assert edge.tree.root() == checkpoint.root
        check_log(foreign, size, checkpoint.root)
        if older:
            check_extends(foreign, older, checkpoint)
        older = checkpoint
    written = tmp_path / "log"
    log = Log.open(written, ORIGIN, KEYS)
    log.append(Tiles(foreign, 15).entries(0))
    log.publish(SIGNER)
    files = {name: data for name, data in files_of(written).items() if name != CHECKPOINT}
    assert files == {name: (foreign / name).read_bytes() for name in files}
    assert log.checkpoint.root == older.root


def test_every_bit_that_is_turned_is_noticed_and_its_file_named(copy):
    files, random = sorted(files_of(copy)), Random(7)
    assert len(files) == 6
    for number in range(FLIPS):
        name = files[number % len(files)]
        path = copy / name
        data = path.read_bytes()
        bit = random.randrange(len(data) * 8)
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        with pytest.raises(LogError) as error:
            check(copy)
        assert str(error.value).startswith(f"{path}: "), (name, bit)
        path.write_bytes(data)
    check(copy)


def test_a_log_whose_edge_was_changed_is_not_opened_for_appending(copy):
    edge = {name: data for name, data in files_of(copy).items() if ".p" in name or name == CHECKPOINT}
    assert len(edge) == 4
    for name, data in edge.items():
        (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(LogError) as error:
            Log.open(copy, ORIGIN, KEYS)
        assert str(error.value).startswith(f"{copy / name}: ")
        (copy / name).write_bytes(data)


def test_every_truncation_of_the_last_bundle_and_of_other_files_is_noticed(copy):
    for name, data in files_of(copy).items():
        lengths = range(len(data)) if name.startswith("tile/entries/001") else (0, 1, len(data) // 2, len(data) - 1)
        for changed in (*(data[:length] for length in lengths), data + b"\0", data * 2):
            (copy / name).write_bytes(changed)
            with pytest.raises(LogError) as error:
                check(copy)
            assert str(copy / name) in str(error.value)
        (copy / name).write_bytes(data)


def test_what_is_missing_or_no_plain_file_is_named_and_not_waited_for(copy):
    for name, data in files_of(copy).items():
        path = copy / name
        path.unlink()
        for make in (lambda _: None, os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")):
            make(path)
            with pytest.raises(LogError) as error:
                check(copy)
            assert str(error.value).startswith(f"{path}: ")
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        path.write_bytes(data)


def test_two_entries_that_changed_places_are_noticed(copy):
    path = copy / "tile/entries/000"
    a, b = ((len(entry).to_bytes(2) + entry) for entry in made_entries(20, 22))
    path.write_bytes(path.read_bytes().replace(a + b, b + a))
    with pytest.raises(LogError, match=r"entries/000: "):
        check(copy)


def test_a_log_that_was_made_anew_in_all_its_files_does_not_have_the_signed_root(copy, tmp_path):
    note = (copy / CHECKPOINT).read_bytes()
    log = Log.open(tmp_path / "other", ORIGIN, KEYS)
    log.append([b"another", *made_entries(1, 300)])
    log.publish(SIGNER)
    (log.folder / CHECKPOINT).write_bytes(note)
    with pytest.raises(LogError, match=r"checkpoint: the 300 entries have another root"):
        check(log.folder)
    with pytest.raises(LogError):
        Log.open(log.folder, ORIGIN, KEYS)


def test_a_shorter_or_rewritten_log_of_the_same_key_is_refused_against_an_older_checkpoint(small, tmp_path):
    old, _ = read_checkpoint(small, ORIGIN, KEYS)
    for entries in (made_entries(0, 299), [b"another", *made_entries(1, 300)], [b"another", *made_entries(1, 400)]):
        log = Log.open(tmp_path / str(len(entries)), ORIGIN, KEYS)
        log.append(entries)
        log.publish(SIGNER)
        new = check(log.folder)
        with pytest.raises(LogError, match=r"checkpoint: .*(taken away|rewritten)"):
            check_extends(log.folder, old, new)
        shutil.rmtree(log.folder)
    write_log(tmp_path / "grown", 700)
    new = check(tmp_path / "grown")
    check_extends(tmp_path / "grown", old, new)
    check_extends(tmp_path / "grown", new, new)
    check_extends(tmp_path / "grown", Checkpoint(ORIGIN, 0, EMPTY_ROOT), new)
    for other in (Checkpoint("example.com/other", 300, old.root), Checkpoint(ORIGIN, 0, old.root)):
        with pytest.raises(LogError, match="checkpoint: "):
            check_extends(tmp_path / "grown", other, new)


def test_a_damaged_tile_and_not_a_rewritten_log_is_said_to_be_damaged(copy):
    old, new = Checkpoint(ORIGIN, 200, audit_kit.root_of([*map(leaf_hash, made_entries(0, 200))])), check(copy)
    check_extends(copy, old, new)
    (copy / "tile/0/000").write_bytes(bytes(8192))
    with pytest.raises(LogError, match=r"tile/0/000: "):
        check_extends(copy, old, new)


def test_a_log_is_opened_with_its_own_name_and_keys_only(small):
    stranger = made_signer(seed=2)
    for origin, keys in (("example.com/other", KEYS), (ORIGIN, [NoteKey.of(stranger)]), (ORIGIN, [])):
        with pytest.raises(LogError, match=r"checkpoint: "):
            Log.open(small, origin, keys)


def test_a_new_key_takes_over_once_both_are_known_and_others_are_refused(copy):
    new = made_signer(seed=2)
    with pytest.raises(LogError, match="not published"):
        write_log(copy, 310).publish(made_signer(seed=3), new)
    keys = (*KEYS, NoteKey.of(new))
    log = Log.open(copy, ORIGIN, keys)
    log.append([b"rotated"])
    log.publish(SIGNER, new)
    log.append([b"by the new key"])
    log.publish(new)
    assert read_checkpoint(copy, ORIGIN, keys[1:])[0].size == 312


def test_publishing_again_changes_nothing_and_keeps_what_others_signed(copy):
    log = Log.open(copy, ORIGIN, KEYS)
    before = files_of(copy)
    assert log.publish(SIGNER) == before[CHECKPOINT]
    assert files_of(copy) == before
    cosigned = before[CHECKPOINT] + "— witness.example/w 2net5wAAAABqEiEg\n".encode()
    (copy / CHECKPOINT).write_bytes(cosigned)
    assert Log.open(copy, ORIGIN, KEYS).publish(SIGNER) == cosigned
    assert check(copy).size == 300


def test_what_another_writer_published_meanwhile_is_not_written_over(copy):
    late = Log.open(copy, ORIGIN, KEYS)
    write_log(copy, 301)
    files = files_of(copy)
    for step in (lambda: late.append([b"late"]), lambda: late.publish(SIGNER)):
        with pytest.raises(LogError, match="another writer"):
            step()
    assert files_of(copy) == files


def test_an_entry_that_is_too_long_is_refused_and_the_longest_is_taken(tmp_path):
    log = Log.open(tmp_path / "log", ORIGIN, KEYS)
    log.append([bytes(65_535), b""])
    log.publish(SIGNER)
    assert check(log.folder).size == 2
    assert Tiles(log.folder, 2).entries(0) == [bytes(65_535), b""]
    with pytest.raises(LogError, match="65536 bytes"):
        log.append([b"fits", bytes(65_536)])
    for step in (lambda: log.append([b"more"]), lambda: log.publish(SIGNER)):
        with pytest.raises(LogError, match="open the log again"):
            step()


def test_a_signer_that_does_not_sign_leaves_the_log_as_it_was(copy):
    files = files_of(copy)
    wrong = FileSigner(SIGNER.name, SIGNER.public_key, made_signer(seed=9)._key)
    log = Log.open(copy, ORIGIN, KEYS)
    log.append(made_entries(300, 310))
    with pytest.raises(LogError, match="not published"):
        log.publish(wrong)
    assert files_of(copy) == files


def test_files_of_others_in_the_folder_stay(copy):
    (copy / "tile" / "README").write_text("served from here")
    (copy / "tile" / "0" / "001.p" / "3").write_bytes(bytes(96))
    write_log(copy, 301)
    assert (copy / "tile" / "README").exists()
    assert set(files_of(copy)) == {*paths_of(301), CHECKPOINT, "tile/README"}
