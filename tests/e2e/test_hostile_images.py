"""One hostile image costs one image: real workers, real deaths."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hostile_images as hostile
import numpy as np
import pytest
from PIL import Image

from manifests.records import FaultKind
from pipeline.decode import DecodeLimits, Decoder, Picture

SMALL = DecodeLimits(max_bytes=1 << 20, max_pixels=1_000_000, memory_mb=128, cpu_s=1, wall_s=0.8)
GOOD = hostile.encoded(hostile.drawn(), "png")


def children() -> list[int]:
    """The decode workers that this process started, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status, command = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, parent = status.rpartition(")")[2].split()[:2]
            is_worker = b"decode_worker" in command or b"hostile_images" in command
            if int(parent) == os.getpid() and state != "Z" and is_worker:
                found.append(int(entry.name))
    return found


def slots() -> Iterator[int]:
    """The descriptors of all slots of this process that anything still holds."""
    gc.collect()  # a test before may have left a decoder in a cycle, which is nobody's but waits to be found
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith("/memfd:shardscrub-decode"):
            yield int(entry.name)


def is_good(result: Picture | FaultKind) -> bool:
    return isinstance(result, Picture) and hostile.same(result.pixels, hostile.drawn())


def outcome(result: Picture | FaultKind) -> object:
    return result if isinstance(result, FaultKind) else result.pixels.tobytes()


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (hostile.HANG, FaultKind.WALL_LIMIT),
        (hostile.SPIN, FaultKind.CPU_LIMIT),
        (hostile.SEGV, FaultKind.DECODER_CRASH),
        (hostile.KILL, FaultKind.DECODER_CRASH),
        (hostile.CAP, FaultKind.DECODER_CRASH),
        (hostile.SWELL, FaultKind.MEMORY_LIMIT),
        (hostile.LIE, FaultKind.DECODER_CRASH),
    ],
)
def test_a_harmed_decoder_costs_one_image_and_leaves_nothing(
    harm: bytes, fault: FaultKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = time.time() - 1
    limits = replace(SMALL, wall_s=30.0) if harm == hostile.SPIN else SMALL
    with Decoder(limits, worker_command=hostile.WORKER_COMMAND) as decoder:
        results = decoder.decode([GOOD, hostile.marked_bytes(harm), GOOD])
        assert is_good(next(results))
        assert next(results) is fault
        for slot in slots():
            assert os.fstat(slot).st_blocks == 0
            assert hostile.MARK not in os.pread(slot, limits.slot_bytes, 0)
        assert is_good(next(results))
        results.close()
    assert list(tmp_path.iterdir()) == []
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir()), Path("/")):
        for path in folder.iterdir():
            try:
                is_new_file = path.is_file() and path.stat().st_mtime >= before
                held = path.read_bytes() if is_new_file else b""
            except (FileNotFoundError, PermissionError):
                continue
            assert hostile.MARK not in held
            assert not (is_new_file and path.name.startswith("core"))


def test_an_image_that_died_of_bad_luck_is_tried_once_more(tmp_path: Path) -> None:
    unlucky = hostile.ONCE + os.fsencode(tmp_path / "witness")
    with Decoder(SMALL, workers=2, worker_command=hostile.WORKER_COMMAND) as decoder:
        assert [is_good(result) for result in decoder.decode([GOOD, unlucky, GOOD])] == [True] * 3


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    images = [
        GOOD,
        hostile.marked_bytes(hostile.SEGV),
        b"",
        hostile.encoded(hostile.drawn(64, 48), "jpeg"),
        hostile.marked_bytes(hostile.SWELL),
        b"no image",
        hostile.marked_bytes(hostile.HANG),
        hostile.encoded(hostile.drawn(50, 20), "webp"),
        b"x" * (SMALL.max_bytes + 1),
    ]
    found = []
    for workers in (1, 3):
        with Decoder(SMALL, workers=workers, worker_command=hostile.WORKER_COMMAND) as decoder:
            found.append([outcome(result) for result in decoder.decode(images)])
    assert found[0] == found[1]


def test_a_worker_that_dies_while_idle_costs_nothing() -> None:
    with Decoder(SMALL) as decoder:
        assert all(is_good(result) for result in decoder.decode([GOOD]))
        for worker in children():
            os.kill(worker, signal.SIGKILL)
        assert all(is_good(result) for result in decoder.decode([GOOD, GOOD]))


def test_bombs_are_refused_by_their_headers() -> None:
    limits = DecodeLimits(memory_mb=256)
    bombs = {
        FaultKind.TOO_MANY_PIXELS: hostile.png_of_one_bit(50_000, 50_000),
        FaultKind.TOO_MANY_FRAMES: hostile.gif_of_frames(100_000),
        FaultKind.ANIMATED: hostile.gif_of_frames(2),
    }
    with Decoder(limits) as decoder:
        assert list(decoder.decode(bombs.values())) == list(bombs)
        assert all(is_good(result) for result in decoder.decode([GOOD]))
        assert peak_mb() < limits.memory_mb


def test_an_image_that_needs_more_memory_than_the_cap_is_a_memory_fault() -> None:
    limits = DecodeLimits(memory_mb=100)
    with Decoder(limits) as decoder:
        results = [outcome(result) for result in decoder.decode([hostile.png_of_one_bit(20_000, 3_000), GOOD])]
        assert results[0] is FaultKind.MEMORY_LIMIT
        assert results[1] == hostile.drawn().tobytes()
        assert peak_mb() < limits.memory_mb


def peak_mb() -> int:
    """The largest resident set that any child ever had, code and slot included."""
    peaks = [0]
    for worker in children():
        status = Path(f"/proc/{worker}/status").read_text()
        peaks += [int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
    return max(peaks)


def flipped(image: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(image)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def fuzz(seeds: list[bytes], count: int) -> None:
    rng = random.Random(20261122)
    images = [image for number in range(count) for image in (flipped(seeds[number % len(seeds)], rng), GOOD)]
    with Decoder(DecodeLimits(memory_mb=256)) as decoder:
        for number, result in enumerate(decoder.decode(images)):
            assert is_good(result) if number % 2 else isinstance(result, Picture | FaultKind)
        assert peak_mb() < 256


def test_a_thousand_flipped_drawings_cost_no_good_image() -> None:
    picture = hostile.drawn()
    fuzz([hostile.encoded(picture, name) for name in ("jpeg", "png", "webp", "gif", "bmp", "tiff")], 1000)


@pytest.mark.shared_data
def test_flipped_photos_cost_no_good_image(shared_data: Path) -> None:
    with Image.open(shared_data / "photos" / "chelsea.png") as photo:
        small = photo.convert("RGB").resize((120, 80))
    seeds = [hostile.encoded(small, "jpeg", progressive=True), hostile.encoded(small, "webp", lossless=False)]
    fuzz([*seeds, hostile.encoded(small, "png"), (shared_data / "clip/images/123_456.jpg").read_bytes()], 400)


PARENT = """
import sys, hostile_images as hostile
from pipeline.decode import DecodeLimits, Decoder
with Decoder(DecodeLimits(), workers=2, worker_command=hostile.WORKER_COMMAND) as decoder:
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    list(decoder.decode([hostile.marked_bytes(hostile.HANG)]))
"""


def test_killing_the_parent_leaves_no_worker_busy_or_idle() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        tasks = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        parent.kill()
    assert len(tasks) == 2
    for _ in range(1000):
        if not any(Path(f"/proc/{task}").exists() for task in tasks):
            return
        time.sleep(0.01)
    pytest.fail("a decode worker outlived its parent")


def test_a_large_picture_leaves_its_slot_when_the_next_is_asked_for() -> None:
    large = hostile.encoded(hostile.drawn(2400, 2400), "jpeg")
    with Decoder(DecodeLimits()) as decoder:
        results = decoder.decode([large, b"no image"])
        picture = next(results)
        assert isinstance(picture, Picture)
        assert picture.pixels.any()
        assert next(results) is FaultKind.NOT_AN_IMAGE
        assert not picture.pixels.any()
        assert not list(results)


def test_closing_empties_the_slot_even_under_a_view_that_was_kept() -> None:
    with Decoder(DecodeLimits()) as decoder:
        results = decoder.decode([GOOD])
        picture = next(results)
        assert isinstance(picture, Picture)
        assert picture.pixels.any()
        results.close()
    assert not np.any(picture.pixels)
    del picture  # the mapping goes with its last view
    assert not list(slots())
    assert children() == []
