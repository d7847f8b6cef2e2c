"""While a run withholds samples, nothing of them is written in clear: every write of every process, by strace."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from modelled import add_models
from plain_search import MAGIC, Marks, find, marks_of
from scrapes import ROOT, Scrape, jpeg, write_list, write_tar

from manifests.cases import SealError, open_sealed

CALLS = (
    "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,mmap,io_uring_setup,renameat2,linkat"
)
KNOWN, LATER, KEPT = 2, 4, 1
# Writes each sealed table in clear first, as a careless envelope would.
CARELESS = """
import tempfile
from manifests import cases, schema
whole = cases.seal
def seal(table, **options):
    with tempfile.NamedTemporaryFile() as file:
        file.write(schema.encode(table))
        file.flush()
        return whole(table, **options)
cases.seal = seal
"""
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def trace(scrape: Scrape, name: str, *arguments: object, before: str = "") -> Path:
    """Run the command under strace; returns the folder with one trace a process."""
    out = scrape.root.parent / name
    out.mkdir()
    code = f"{before}\nfrom pipeline.cli import main\nmain()"
    strace = [
        "strace",
        "-ff",
        "--seccomp-bpf",
        "-y",
        "-qq",
        "-xx",
        "-s",
        str(1 << 28),
        "-e",
        f"trace={CALLS}",
        "-o",
        out / "trace",
    ]
    command = [*strace, sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(out)}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr:
        pytest.skip("no process may be traced here")
    assert done.returncode == 0, done.stderr
    return out


def written(traces: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every regular file that was written to, as its process wrote it: path and bytes."""
    for path in sorted(traces.glob("trace.*")):
        files: dict[str, list[bytes]] = {}
        for line in path.read_text("latin-1").splitlines():
            call, to = re.match(r"(\w+)\((.*)", line).groups() if re.match(r"\w+\(", line) else ("", "")
            if call in ("write", "pwrite64", "writev", "pwritev", "pwritev2"):
                target = place(re.match(r"\d+<([^>]*)>", to).group(1))
                pieces = re.findall(r'"((?:\\x[0-9a-f]{2})*)"(?:\.\.\.)?', to.partition(">")[2])
                files.setdefault(target, []).append(bytes.fromhex("".join(pieces).replace("\\x", "")))
            elif call == "mmap":
                shared = re.search(r"PROT_WRITE.*MAP_SHARED.*?<([^>]*)>", to)
                to = place(shared.group(1)) if shared else ""
                # uids.npy is sorted in place; what it holds at the end is looked at as it lies.
                assert is_memory(to) or "/releases/" in to, to
            else:
                assert call in ("", "linkat", "renameat2"), line[:300]
        yield from ((target, b"".join(parts)) for target, parts in files.items() if not is_memory(target))


def place(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text


def is_memory(target: str) -> bool:
    """Pipes, sockets, terminals and unnamed memory are no files; /dev/shm would be one."""
    return (
        not target.startswith("/") or target.startswith(("/memfd:", "/dev/null", "/dev/pts")) or "/proc/" in target
    )


def seen_in(marks: Marks, traces: Path) -> set[str]:
    return {target for target, data in written(traces) if find(marks, data)}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    made = Scrape.make(
        tmp_path_factory.mktemp("plain") / "scrape", list=[{"id": name} for name in ("csam", "other")]
    )
    add_models(made)
    members = []
    for number in range(6):
        about = {"url": f"http://example.invalid/url-{number}.jpg", "caption": f"caption number {number}"}
        members += [(f"k{number}.jpg", jpeg(number)), (f"k{number}.json", json.dumps(about).encode())]
    write_tar(made.shards / "00.tar", members)
    write_list(made.root / "lists/other.csv", [("md5", bytes(range(16)))])
    list_numbers(made, KNOWN)
    return made


def list_numbers(scrape: Scrape, *numbers: int) -> None:
    entries = [("sha1", hashlib.sha1(jpeg(number)).digest()) for number in numbers]
    write_list(scrape.root / "lists/csam.csv", [*entries, ("pdq", bytes(range(32)))])


@pytest.fixture(scope="module")
def traced(scrape) -> dict[str, Path]:
    """A run that withholds one sample, a settle that withholds another, and the same settle with a bad envelope."""
    found = {"run": trace(scrape, "run", "run", scrape.config, "--workers", 1)}
    list_numbers(scrape, KNOWN, LATER)
    shutil.copytree(scrape.collection, scrape.root / "before")
    found["settle"] = trace(scrape, "settle", "settle", scrape.config, "--workers", 2)
    scrape.collection.rename(scrape.root / "good")
    (scrape.root / "before").rename(scrape.collection)
    found["careless"] = trace(scrape, "careless", "settle", scrape.config, "--workers", 1, before=CARELESS)
    return found


def marks(scrape: Scrape, *numbers: int) -> Marks:
    rows = [row for row in scrape.sealed() if row["key"] in {f"k{number}" for number in numbers}]
    assert len(rows) == len(numbers)
    return marks_of(rows, [jpeg(number) for number in numbers])


def test_no_write_of_a_run_or_a_settle_holds_anything_of_a_withheld_sample(scrape, traced):
    home = scrape.root / "good"
    assert seen_in(marks(scrape, KNOWN), traced["run"]) == set()
    assert seen_in(marks(scrape, KNOWN, LATER), traced["settle"]) == set()
    assert not any(
        find(marks(scrape, KNOWN, LATER), path.read_bytes()) for path in home.glob("releases/0002/*.npy")
    )
    sealed = [target for name in ("run", "settle") for target, _ in written(traced[name]) if "/sealed/" in target]
    assert len(sealed) == 2  # it did write what it withheld


def test_the_same_search_finds_what_is_not_withheld_yet(scrape, traced):
    assert any("/examined/" in target for target in seen_in(marks(scrape, LATER), traced["run"]))
    kinds = {data[:4] == MAGIC for target, data in written(traced["run"]) if "/examined/" in target}
    assert kinds == {True, False}


def test_an_envelope_that_writes_a_plain_copy_first_would_be_found(scrape, traced):
    assert seen_in(marks(scrape, LATER), traced["careless"]) != set()


def test_a_sealed_file_opens_with_its_identity_alone_and_a_flipped_bit_is_an_error(scrape, traced):
    path = sorted((scrape.collection / "sealed").glob("*.age"))[0]
    data, other = path.read_bytes(), pyrage.x25519.Identity.generate()
    assert open_sealed(data, identity=scrape.identity, source="x").num_rows == 1
    with pytest.raises(SealError):
        open_sealed(data, identity=str(other), source="x")
    step = len(data) // 97
    for at in [*range(0, 300, 7), *range(300, len(data), step), len(data) - 1]:
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(SealError):
            open_sealed(flipped, identity=scrape.identity, source="x")
