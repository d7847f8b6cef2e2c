"""What every importer of lists keeps, whatever its format. A new one in the registry is found here."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from list_fixture import Fixture
from list_fixtures import write_ncmec, write_stopncii, write_tat, write_vics
from list_fixtures_plain import write_icse, write_parquet, write_plain, write_threatexchange, write_urls

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers.protocol import Importer
from classifiers.blocklists.importers.registry import IMPORTERS, files_of, find_importer

MAKERS: dict[str, Callable[[Path, int, int], Fixture]] = {
    "plain": write_plain,
    "parquet": write_parquet,
    "ncmec": write_ncmec,
    "vics": write_vics,
    "icse": write_icse,
    "threatexchange": write_threatexchange,
    "stopncii": write_stopncii,
    "tat": write_tat,
    "urls": write_urls,
}
ENDS_WITH_A_BRACKET = ("ncmec", "vics", "stopncii", "tat")
MUTATIONS, RECORDS = 2_000, 8


@dataclass(frozen=True)
class Case:
    importer: Importer
    make: Callable[[Path, int, int], Fixture]

    def read(self, fixture: Fixture, paths: tuple[Path, ...] | None = None) -> Collected:
        return collect(self.importer.read(paths or fixture.paths, fixture.options))

    def outcome(self, fixture: Fixture, paths: tuple[Path, ...]) -> Collected | ListError:
        try:
            return self.read(fixture, paths)
        except ListError as error:
            return error


@pytest.fixture(params=IMPORTERS)
def case(request):
    return Case(IMPORTERS[request.param], MAKERS[request.param])


def content(collected: Collected) -> tuple:
    """All that an import gives but the places, which are in the order of the files."""
    return (
        {name: (rows.tobytes(), collected.masks[name].tobytes()) for name, rows in collected.rows.items()},
        collected.categories,
        (collected.records, collected.taken, collected.duplicates),
        dict(collected.fates),
        dict(collected.reasons),
    )


def rejected(collected: Collected) -> int:
    return sum(count for reason, count in collected.reasons.items() if reason.startswith("rejected: "))


def spellings(collected: Collected) -> Iterator[bytes]:
    """All values as a file may write them."""
    for rows in collected.rows.values():
        for row in rows:
            value = row.tobytes()
            yield from (value.hex().encode(), value.hex().upper().encode())
            yield from (base64.b64encode(value), base64.b32encode(value))


def long_words(fixture: Fixture) -> set[str]:
    found = [word for path in fixture.paths for word in re.findall(rb"[0-9A-Za-z+/=:._-]{16,}", path.read_bytes())]
    return {word.decode() for word in found}


def test_every_importer_is_registered_under_its_own_name_and_has_a_maker_of_files():
    assert all(importer.name == name for name, importer in IMPORTERS.items())
    assert set(MAKERS) == set(IMPORTERS)


@pytest.mark.parametrize("records", [RECORDS, 301])
def test_counts_are_those_that_the_maker_states(case, tmp_path, records):
    fixture = case.make(tmp_path, 1, records)
    collected = case.read(fixture)
    assert collected.taken == fixture.taken > 0
    assert {fate: count for fate, count in collected.fates.items() if count} == fixture.fates
    assert {name: len(rows) for name, rows in collected.rows.items()} == fixture.rows
    assert collected.records == collected.taken + sum(collected.fates.values())


def test_reading_twice_gives_the_same(case, tmp_path):
    fixture = case.make(tmp_path, 2, 40)
    first, second = case.read(fixture), case.read(fixture)
    assert content(first) == content(second)
    assert first.places == second.places


def test_the_order_of_the_files_changes_nothing(case, tmp_path):
    fixture = case.make(tmp_path, 3, 40)
    assert content(case.read(fixture)) == content(case.read(fixture, tuple(reversed(fixture.paths))))


def test_every_file_is_recognised_by_its_importer_alone(case, tmp_path):
    for path in case.make(tmp_path, 4, RECORDS).paths:
        assert find_importer("auto", [path]) is case.importer


def test_nothing_that_is_shown_holds_a_word_of_the_files(case, tmp_path):
    fixture = case.make(tmp_path, 5, 40)
    batches = list(case.importer.read(fixture.paths, fixture.options))
    collected = collect(batches)
    shown = [repr(collected), *collected.reasons, *collected.fates, *map(str, collected.places.items())]
    for batch in batches:
        shown += [repr(batch), str(batch), *map(repr, batch.entries), *map(repr, batch.notes)]
    text = "\n".join(shown)
    assert not [word for word in long_words(fixture) if word in text]


def mutated(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 60))
    match rng.randrange(5):
        case 0:
            return data[:start] + rng.randbytes(1) + data[start + 1 :]
        case 1:
            return data[:start]
        case 2:
            return data[:start] + rng.randbytes(rng.randint(1, 8)) + data[start:]
        case 3:
            return data[:end] + data[start:]
        case _:
            return data[:start] + data[end:]


def test_whatever_is_done_to_a_file_it_is_accounted_for_or_refused(case, tmp_path):
    fixture = case.make(tmp_path, 6, RECORDS)
    words, rng, refused = long_words(fixture), random.Random(6), 0
    originals = {path: path.read_bytes() for path in fixture.paths}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for _ in range(MUTATIONS):
        chosen = rng.choice(fixture.paths)
        damaged = scratch / chosen.name  # made anew each time: to overwrite a file can wait for the disk
        damaged.write_bytes(mutated(originals[chosen], rng))
        outcome = case.outcome(fixture, tuple(damaged if path == chosen else path for path in fixture.paths))
        damaged.unlink()
        if isinstance(outcome, ListError):
            refused += 1
            assert outcome.__cause__ is None
            assert not [word for word in words if word in str(outcome)]
        else:
            assert outcome.records == outcome.taken + sum(outcome.fates.values())
    assert 0 < refused < MUTATIONS


@pytest.mark.parametrize("name", ENDS_WITH_A_BRACKET)
def test_a_file_that_ends_early_is_refused(name, tmp_path):
    case = Case(IMPORTERS[name], MAKERS[name])
    fixture = case.make(tmp_path, 7, RECORDS)
    for path in fixture.paths:
        data = path.read_bytes()
        for length in {0, 1, *range(2, len(data), 37), len(data) - 1}:
            path.write_bytes(data[:length])
            with pytest.raises(ListError, match=re.escape(path.name)):
                case.read(fixture)
        path.write_bytes(data)


def test_a_damaged_value_is_rejected_and_never_passed_over(case, tmp_path):
    fixture = case.make(tmp_path, 8, 24)
    before = case.read(fixture)
    found = 0
    for path in fixture.paths:
        data = path.read_bytes()
        for spelling in spellings(before):
            if data.count(spelling) != 1 or data.startswith(b"PAR1"):
                continue
            at = data.index(spelling) + found % len(spelling)
            path.write_bytes(data[:at] + b"!" + data[at + 1 :])
            assert rejected(case.read(fixture)) == rejected(before) + 1
            found += 1
        path.write_bytes(data)
    assert found >= len(fixture.paths) or case.importer.name in ("parquet", "urls")


def test_a_name_that_is_not_registered_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ListError, match="plain, parquet, ncmec, vics, icse, threatexchange, stopncii, tat, urls"):
        find_importer("nothing", [tmp_path])


@pytest.mark.parametrize("data", [b"", b"{}", b"<a/>", b"\0\1\2", b"caption,width\nx,3\n"])
def test_a_file_that_no_importer_recognises_is_refused(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ListError, match="no format"):
        find_importer("auto", [path])


def test_a_folder_stands_for_its_files_and_hidden_ones_are_left_out(tmp_path):
    folder = tmp_path / "pages"
    (folder / "inner").mkdir(parents=True)
    names = ["b.xml", "a.xml", ".hidden"]
    for name in names:
        (folder / name).write_text("x")
    single = tmp_path / "z.xml"
    single.write_text("x")
    assert files_of([single, folder]) == (single, folder / "a.xml", folder / "b.xml")
    assert files_of([folder, folder / "a.xml"]) == (folder / "a.xml", folder / "b.xml")


def test_no_files_and_missing_files_are_refused(tmp_path):
    for paths in ([], [tmp_path]):
        with pytest.raises(ListError, match="found none"):
            files_of(paths)
    with pytest.raises(FileNotFoundError):
        files_of([tmp_path / "absent"])


def test_values_keep_their_category(tmp_path):
    """Masks are the only place where a category is kept, so a shift would be silent."""
    fixture = write_ncmec(tmp_path, 9, 28)
    collected = collect(IMPORTERS["ncmec"].read(fixture.paths, fixture.options))
    assert collected.categories == ("(none)", "A1", "B2")
    assert np.all(collected.masks["pdq"] == 1)
    assert np.all(collected.masks["md5"] == 2)
    assert set(collected.masks["sha1"].tolist()) == {2, 4}
