"""The plain distribution in an environment with another torch: verifies and iterates, and loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import in_process
import pytest
from scrapes import ROOT, Scrape, write_plain_shards

ITERATE = """
import sys
from pathlib import Path
from manifests.handover import open_kept
print(sum(1 for sample in open_kept(Path(sys.argv[1])) if sample.members["jpg"] and sample.caption))
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    made = Scrape.make(tmp_path_factory.mktemp("scrape"))
    write_plain_shards(made.shards, 2, 10)
    done = in_process.call("run", made.config, "--workers", 1)
    assert done.code == 0, done.err
    return made


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the built wheel, its plain dependencies, and a torch that cannot be imported."""
    root = tmp_path_factory.mktemp("plain")
    check = {"check": True, "capture_output": True, "text": True, "timeout": 240}
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", root], cwd=ROOT, **check)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "env"], **check)
    interpreter = root / "env" / "bin" / "python"
    wheel = next(root.glob("*.whl"))
    install = ["install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run([*pip_of(interpreter), *install], **check)
    site = Path(subprocess.run(
        [interpreter, "-c", "import site; print(site.getsitepackages()[0])"], **check
    ).stdout.strip())  # fmt: skip
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text('raise ImportError("this environment has a torch of its own")\n')
    (site / "torch-1.0.0.dist-info").mkdir()
    (site / "torch-1.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0.0\n")
    return interpreter


def pip_of(python: Path) -> list[object]:
    """The pip of this environment, at work in another one: to copy one there takes seconds."""
    return [sys.executable, "-m", "pip", "--python", python]


def call(python: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_plain_install_brings_no_torch(python: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [*pip_of(python), "list", "--format", "json"], cwd=tmp_path, capture_output=True, check=True
    )
    listed = json.loads(told.stdout)
    versions = {item["name"]: item["version"] for item in listed}
    assert versions["torch"] == "1.0.0"
    assert not {"torchvision", "open_clip_torch", "pillow", "simplejpeg"} & set(versions)


def test_it_verifies_a_collection(python: Path, scrape: Scrape, tmp_path: Path) -> None:
    done = call(python, "-m", "pipeline.cli", "verify", scrape.collection, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all files agree" in done.stdout


def test_it_iterates_the_kept_samples(python: Path, scrape: Scrape, tmp_path: Path) -> None:
    done = call(python, "-c", ITERATE, scrape.collection, cwd=tmp_path)
    assert done.stdout.split() == ["20", "False"], done.stderr


def test_help_works_and_running_says_what_is_missing(python: Path, scrape: Scrape, tmp_path: Path) -> None:

    assert call(python, "-m", "pipeline.cli", "--help", cwd=tmp_path).returncode == 0
    done = call(python, "-m", "pipeline.cli", "run", scrape.config, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'shardscrub[run]'" in done.stderr
