"""Out of memory in earnest: a process whose address space is bounded, and a batch that cannot fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import torch
from scrapes import ROOT

from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.signals import BatchTooLargeError
from classifiers.weights import digest_folder

ROWS, ROOM_MIB = 2048, 300  # the normalised pixels of one such batch alone are 1.2 GB
BOUNDED = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from classifiers.embedders.open_clip import OpenClipEmbedder
from classifiers.signals import BatchTooLargeError
folder, sha256, precisions, rows, room = json.loads(sys.argv[1])
torch.set_num_threads(1)
views = np.zeros((rows, 224, 224, 3), np.uint8)
for precision in precisions:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    tower = OpenClipEmbedder(
        Path(folder), name="tiny-stand-in@1", sha256=sha256, device="cpu", precision=precision, batch=rows
    )
    before = tower.embed(views[:16])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (room << 20), resource.RLIM_INFINITY))
    try:
        tower.embed(views)
    except BatchTooLargeError as error:
        after = tower.with_batch(16).embed(views[:32])
        print(json.dumps([error.rows, str(error), error.__context__ is None, bool((after[:16] == before).all())]))
"""


def test_a_batch_that_does_not_fit_is_said_so_and_a_small_one_still_does(tmp_path: Path) -> None:
    sha256 = stand_ins.write_stand_in_clip(tmp_path / "tiny", seed=1)
    given = json.dumps([str(tmp_path / "tiny"), sha256, ["fp32", "bf16"], ROWS, ROOM_MIB])
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, given],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = f"a forward pass over {ROWS} views does not fit in memory"
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [[ROWS, said, True, True]] * 2  # one of each precision


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_every_way_in_which_torch_says_so_is_known(tmp_path: Path, error: Exception) -> None:
    tower = failing(tmp_path, error)
    with pytest.raises(BatchTooLargeError, match="a forward pass over 17 views does not fit in memory"):
        tower.embed(np.zeros((17, 224, 224, 3), np.uint8))


def test_any_other_error_of_torch_is_left_as_it_is(tmp_path: Path) -> None:
    tower = failing(tmp_path, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tower.embed(np.zeros((1, 224, 224, 3), np.uint8))


def failing(root: Path, error: Exception) -> OpenClipEmbedder:
    """A stand-in whose tower fails as torch does."""
    stand_ins.write_stand_in_clip(root / "tiny", seed=1)
    tower = OpenClipEmbedder(
        root / "tiny",
        name="tiny-stand-in@1",
        sha256=digest_folder(root / "tiny"),
        device="cpu",
        precision="fp32",
        batch=32,
    )

    def fail(*_: object) -> None:
        raise error

    tower._tower.register_forward_pre_hook(fail)  # type: ignore[attr-defined]
    return tower
