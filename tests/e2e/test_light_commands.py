"""What each command loads: the plain ones need no torch, no picture library and no numpy for their help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from in_process import call
from scrapes import ROOT, Scrape, jpeg, write_tar


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    scrape = Scrape.make(tmp_path_factory.mktemp("light"))
    write_tar(scrape.shards / "a.tar", [("kept.jpg", jpeg(3)), ("cut.jpg", jpeg(4)[:-500])])
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    return scrape.collection


def modules_after(code: str, *, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter without the packages `blocked`; it says at its end what it has loaded."""
    program = f"""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {blocked!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Blocked())
        code = 0
        try:
{textwrap.indent(textwrap.dedent(code), " " * 12)}
        except SystemExit as end:
            code = end.code
        import json
        sys.stderr.write("\\nLOADED " + json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
        sys.exit(code)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(json.loads(done.stderr.rpartition("LOADED ")[2]))


def command_line(*arguments: object) -> str:
    return f"from pipeline.cli import main\nsys.argv = {['shardscrub', *map(str, arguments)]!r}\nmain()"


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("cases", "keys", "--help")])
def test_help_loads_no_torch_no_arrow_and_no_numpy(arguments):
    done = modules_after(command_line(*arguments))
    assert done.returncode == 0
    assert "Usage: shardscrub" in done.stdout
    assert not loaded(done) & {"torch", "pyarrow", "numpy", "PIL", "scipy"}


def test_reading_what_was_written_loads_no_torch():
    names = sorted(path.stem for path in (ROOT / "manifests").glob("*.py"))
    code = "\n".join(f"import manifests.{name}" for name in names if name != "__init__")
    done = modules_after(code)
    assert done.returncode == 0, done.stderr
    assert not loaded(done) & {"torch", "torchvision", "open_clip", "PIL", "scipy", "classifiers", "pipeline"}


EXTRAS = (
    "torch", "torchvision", "open_clip", "img2dataset", "webdataset", "faiss", "imagehash", "PIL", "simplejpeg",
    "scipy", "safetensors", "braceexpand", "fsspec", "rich",
)  # fmt: skip


def test_the_commands_of_a_plain_install_need_none_of_the_rest(collection, tmp_path):
    commands = [
        ("--help",),
        ("status", collection, "--restricted"),
        ("explain", collection, "a/cut"),
        ("quarantine", collection),
        ("verify", collection),
        ("report", collection, "--to", tmp_path / "reports"),
        ("init", tmp_path / "run"),
        ("cases", "keys", "new", tmp_path / "case.key"),
    ]
    code = f"""
        from pipeline.cli import main
        for arguments in {[list(map(str, one)) for one in commands]!r}:
            sys.argv = ["shardscrub", *arguments]
            try:
                main()
            except SystemExit as end:
                if end.code:
                    raise
    """
    done = modules_after(code, blocked=EXTRAS)
    assert done.returncode == 0, done.stderr
    assert not loaded(done) & set(EXTRAS)
    code = "import pathlib\nfrom manifests.handover import open_kept\n"
    code += f"print([sample.key for sample in open_kept(pathlib.Path({str(collection)!r}))])"
    assert modules_after(code, blocked=EXTRAS).stdout == "['a/kept']\n"


def test_a_plain_install_says_what_scrubbing_needs(collection):
    done = modules_after(command_line("run", collection.parent / "scrub.toml"), blocked=EXTRAS)
    assert done.returncode == 2
    assert "which a plain install leaves out: pip install 'shardscrub[run]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_settling_needs_no_torch(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_tar(scrape.shards / "a.tar", [("a.jpg", jpeg(3))])
    assert call("examine", scrape.config, "--workers", 1).code == 0
    done = modules_after(command_line("settle", scrape.config, "--workers", 1), blocked=("torch", "open_clip"))
    assert done.returncode == 0, done.stderr
