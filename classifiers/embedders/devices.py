"""Which device and precision a machine offers. torch is asked only where the answer needs it.

A run resolves both once, into its plan; `cpu` with a stated precision is resolved without importing torch.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

PRECISIONS = ("fp32", "bf16")
DEVICES = ("cpu", "cuda")


def resolve_device(requested: str) -> str:
    """Return 'cpu' or 'cuda' for 'auto', 'cpu' or 'cuda'.

    Raises:
        ValueError: another word, or CUDA where there is none.
    """
    if requested not in ("auto", *DEVICES):
        raise ValueError(f"device: expected auto, cpu or cuda, found '{requested}'")
    if requested == "cpu" or (requested == "auto" and not _driver_loads()):
        return "cpu"
    import torch  # noqa: PLC0415 - see above

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise ValueError(
            f"device: cuda was asked for, but torch {torch.__version__} finds no CUDA device; "
            "ask for cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    return "cpu"


def _driver_loads() -> bool:
    """Say whether there is NVIDIA's driver: torch, a second to import, finds no CUDA device without it."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def resolve_precision(requested: str, device: str, cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """Return 'fp32' or 'bf16' for 'auto', 'fp32' or 'bf16' on 'cpu' or 'cuda'.

    'auto' is bf16 on CUDA and on CPUs that multiply bf16 in hardware (avx512_bf16 or amx_bf16 among the
    flags in `cpu_info`), else fp32.

    Raises:
        ValueError: another word.
    """
    if requested not in ("auto", *PRECISIONS):
        raise ValueError(f"precision: expected auto, fp32 or bf16, found '{requested}'")
    if requested != "auto":
        return requested
    if device == "cuda":
        return "bf16"
    flags = cpu_info.read_text().split() if cpu_info.is_file() else []
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "fp32"
