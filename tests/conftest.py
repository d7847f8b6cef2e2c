"""Fixtures and options that all tests share."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# Torch's idle threads else spin on the cores that the other worker needs; no result depends on how they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# Thousands of collected tests are walked through again at every collection of garbage: seldom is enough.
gc.set_threshold(100_000)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption("--crash-rounds", type=int, default=3, help="how many random kills the crash tests make")
    parser.addoption("--rewrite-golden", action="store_true", help="write the golden files instead of comparing")


def pytest_collection_modifyitems(items):
    if SHARED_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="the reference pictures (shared/data beside the checkout) are not here")
    for item in items:
        if item.get_closest_marker("shared_data"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return SHARED_DATA


@pytest.fixture
def crash_rounds(request) -> int:
    return request.config.getoption("--crash-rounds")


@pytest.fixture
def rewrite_golden(request) -> bool:
    return request.config.getoption("--rewrite-golden")
