"""Lists of random hashes in the formats of lines and tables, each with lines that give no entry."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from list_fixture import Fixture

from classifiers.blocklists.algorithms import CODE_WIDTHS, WIDTHS, ListError
from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers.protocol import Importer, ReadOptions


def make_values(algorithm: str, seed: int, count: int) -> list[bytes]:
    """Return random values that no check refuses: of a code just half of the bits are set."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2, (count, 8 * WIDTHS[algorithm]), np.uint8)
    if algorithm in CODE_WIDTHS:
        bits[:] = np.arange(bits.shape[1]) % 2
        bits = random.permuted(bits, axis=1)
    return [row.tobytes() for row in np.packbits(bits, axis=1)]


def spell_all(value: bytes) -> list[str]:
    """Return every way to write a value."""
    b64, b32 = base64.b64encode(value).decode(), base64.b32encode(value).decode()
    return [value.hex(), value.hex().upper(), b64, b64.rstrip("="), b32, b32.rstrip("=")]


def write_plain(folder: Path, seed: int, records: int) -> Fixture:
    """`algorithm,value,category` in all spellings; also lines that are no records, or of no known algorithm."""
    half = records // 2
    values = [("md5", v) for v in make_values("md5", seed, half)]
    values += [("pdq", v) for v in make_values("pdq", seed + 1, records - half)]
    lines = ["algorithm,value,category", "# made", ""]
    for number, (algorithm, value) in enumerate(values):
        spelled = spell_all(value)[number % 6]
        lines.append(f"{algorithm},{spelled},{'AB'[number % 2]}")
    other = make_values("sha1", seed + 2, 1)[0].hex()
    lines += [f"photodna,{other},A", f"md5,{other},A", lines[3], f"md5,{other}"]
    path = folder / "list.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    rows = {name: count for name, count in (("md5", half), ("pdq", records - half)) if count}
    return Fixture((path,), ReadOptions(), records + 1, {"skipped": 1, "rejected": 2}, rows)


def write_bare(folder: Path, seed: int, records: int) -> Fixture:
    """SHA-256 without a header."""
    path = folder / "sha256.txt"
    path.write_text("".join(v.hex() + "\n" for v in make_values("sha256", seed, records)))
    return Fixture((path,), ReadOptions("sha256"), records, {}, {"sha256": records})


def write_parquet(folder: Path, seed: int, records: int) -> Fixture:
    """MD5 as text, SHA-256 as bytes; some rows have only one of them, one row has neither."""
    md5: list[str | None] = [v.hex() for v in make_values("md5", seed, records)]
    sha256: list[bytes | None] = [*make_values("sha256", seed + 1, records)]
    for row in range(0, records, 5):
        md5[row] = None
    table = {
        "url": ["http://example.com/"] * (records + 1),
        "uid": make_values("url_md5", seed, records + 1),
        "md5": [*md5, None],
        "sha256": [*sha256, None],
    }
    path = folder / "table.parquet"
    pq.write_table(pa.table(table), path, row_group_size=max(1, records // 3))
    rows = {"md5": records - len(range(0, records, 5)), "sha256": records}
    return Fixture(
        (path,), ReadOptions(), records, {"rejected": 1}, {name: count for name, count in rows.items() if count}
    )


ICSE_HEADER = (
    "MD5;SHA1;PhotoDNA;Image ID;Is distributed;Victim identified;Offender identified;Series name;"
    "Number of submissions;File Available;Media Type;Baseline"
)


def write_icse(folder: Path, seed: int, records: int) -> Fixture:
    """Images with both digests, a third of them with a code that is not matched; a video, and a line cut short."""
    md5 = [v.hex().upper() for v in make_values("md5", seed, records + 3)]
    sha1 = [v.hex().upper() for v in make_values("sha1", seed + 1, records + 3)]
    photodna = base64.b64encode(np.random.default_rng(seed).bytes(144)).decode()
    rows = []
    for number in range(records):
        code = photodna if number % 3 == 0 else ""
        baseline = ("True", "False", "")[number % 3]
        rows.append(
            f'{md5[number]};{sha1[number]};{code};{number};False;False;False;"Series; {number}";1;True;Image;'
        )
        rows[-1] += baseline
    rows.append(f"{md5[-1]};{sha1[-1]};;7;False;False;False;;1;True;VIDEO/mp4;True")
    rows.append(f";;{photodna};8;False;False;False;;1;True;Image;True")
    rows.append(f"{md5[-2]};{sha1[-2]};;9;False")
    path = folder / "icse.csv"
    path.write_text("\n".join([ICSE_HEADER, *rows]) + "\n")
    return Fixture(
        (path,), ReadOptions(), records, {"skipped": 2, "rejected": 1}, {"md5": records, "sha1": records}
    )


def write_threatexchange(folder: Path, seed: int, records: int) -> Fixture:
    """Typed values, three of types that are not matched, a bad one and one without a type."""
    values = [v.hex() for v in make_values("pdq", seed, records)]
    others = [v.hex() for v in make_values("md5", seed, 2)]
    lines = [f"pdq {value}" for value in values]
    lines += [
        f"video_md5 {others[0]}",
        "raw_text some words",
        "url https://example.com/",
        f"pdq {others[1]}",
        others[0],
    ]
    path = folder / "local_file.txt"
    path.write_text("\n".join(lines))
    return Fixture((path,), ReadOptions(), records, {"skipped": 3, "rejected": 2}, {"pdq": records})


def write_urls(folder: Path, seed: int, records: int) -> Fixture:
    """URLs and a domain for every fifth of them; a line that is neither, and a domain of one label."""
    names = [v.hex() for v in make_values("md5", seed, records)]
    lines = [
        f"*.{name}.example" if n % 5 == 4 else f"https://Host-{name}.example/%7ea" for n, name in enumerate(names)
    ]
    path = folder / "urls.txt"
    path.write_text("\n".join([*lines, "ftp://host.example/", "example"]))
    domains = records // 5
    rows = {"url": records - domains, "domain": domains}
    return Fixture((path,), ReadOptions(), records, {"rejected": 2}, {name: n for name, n in rows.items() if n})


Maker = Callable[[Path, int, int], Fixture]
PLAIN_MAKERS: dict[str, Maker] = {
    "plain": write_plain,
    "parquet": write_parquet,
    "icse": write_icse,
    "threatexchange": write_threatexchange,
    "urls": write_urls,
}


def collect_fixture(importer: Importer, fixture: Fixture) -> Collected:
    """Import a fixture, and hold its counts against what was written."""
    found = collect(importer.read(fixture.paths, fixture.options))
    assert (found.taken, found.fates) == (fixture.taken, fixture.fates)
    assert {algorithm: len(values) for algorithm, values in found.rows.items()} == fixture.rows
    check_sums(found, fixture)
    return found


def check_sums(found: Collected, fixture: Fixture) -> None:
    """Every record has a fate, and nothing that is told holds a long word of the file."""
    assert found.records == found.taken + sum(found.fates.values())
    assert all(count > 0 for count in found.fates.values())
    check_silence(repr((found.reasons, found.places)), fixture)


def check_silence(told: str, fixture: Fixture) -> None:
    """What is told holds no word of 16 or more characters that is in the file."""
    words = {word for path in fixture.paths for word in re.findall(rb"[\w+/=.-]{16,}", path.read_bytes())}
    assert not [word for word in words if word.decode() in told]


def check_mutations(importer: Importer, fixture: Fixture, seed: int, count: int = 300) -> int:
    """Import the first file of a fixture with random damage; how often it was refused as a whole."""
    random = np.random.default_rng(seed)
    path = fixture.paths[0]
    whole = path.read_bytes()
    refused = 0
    for _ in range(count):
        path.write_bytes(_damage(bytearray(whole), random))
        try:
            check_sums(collect(importer.read(fixture.paths, fixture.options)), fixture)
        except ListError as error:
            refused += 1
            check_silence(str(error), fixture)
    path.write_bytes(whole)
    return refused


def _damage(data: bytearray, random: np.random.Generator) -> bytes:
    kind = random.integers(5)
    at, length = int(random.integers(len(data))), int(random.integers(1, 40))
    if kind == 0:  # a byte becomes another
        data[at] = int(random.integers(256))
    elif kind == 1:  # some bytes become punctuation of these formats
        data[at : at + length] = random.choice(np.frombuffer(b'",;\t \r\n#%=', np.uint8), length).tobytes()
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = data[at : at + length] * 2
    else:  # the file ends too early
        del data[at:]
    return bytes(data)
