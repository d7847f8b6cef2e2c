"""What share of the bare model's forward rate does a whole run reach on all cores, and how does a peer do?

Ours: `shardscrub run` on drawn JPEGs of 200 to 520 px with captions: digests, PDQ with eight variants of every
default view, a PDQ list of a million entries, the embedding, two heads on it, words, decisions, commits, a release
without tars. Bare: the same tower in bf16 with views in memory, the better of a process a core and one process
with a thread a core, at its best batch of 16 to 128. Both are timed in turn. With `--peer PYTHON`, an
interpreter that has clip-retrieval 2.45, its image embedding of the same tars with the same weights is timed too.

The rate of a run is told twice: of the whole command, and of its examine once every worker has started. So is
the peer's: of the whole command, and of all shards but two, by the seconds that those add.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import numpy as np  # noqa: E402 - the paths come first
from measuring import save  # noqa: E402
from modelled import add_models  # noqa: E402
from scrapes import Scrape, draw, encode, write_list, write_tar  # noqa: E402

from classifiers.weights import digest_folder  # noqa: E402

BATCHES, SHARDS, LISTED = {"cpu": (16, 32, 64, 128), "cuda": (64, 128, 256, 512)}, 8, 1_000_000
BARE = """
import json, sys, time, warnings
sys.path.insert(0, sys.argv[1]); warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np, torch
from classifiers.embedders.open_clip import OpenClipEmbedder
_, _, folder, sha256, batch, threads, images, device = sys.argv
torch.set_num_threads(int(threads))
tower = OpenClipEmbedder(Path(folder), name="tiny-stand-in@1", sha256=sha256, device=device, precision="bf16",
                         batch=int(batch), jit=device == "cuda")
views = np.random.default_rng(1).integers(0, 256, (int(batch), 224, 224, 3), np.uint8)
tower.embed(views)
print("ready", flush=True); sys.stdin.readline()
began, done = time.perf_counter(), 0
while done < int(images):
    tower.embed(views); done += int(batch)
print(json.dumps(done / (time.perf_counter() - began)))
"""
PEER = """
import sys
sys.path.insert(0, sys.argv[1])
import classifiers.torchvision_schemas
from clip_retrieval.clip_inference.main import main
if __name__ == "__main__":  # its loaders start this file again
    main(input_dataset=sys.argv[2], output_folder=sys.argv[3], input_format="webdataset", enable_text=False,
         enable_metadata=False, clip_model="open_clip:ViT-B-32/" + sys.argv[4], use_jit=False, batch_size=64,
         num_prepro_workers=2, write_batch_size=10**6, wds_image_key="jpg")
"""


def bare(folder: Path, device: str, *, batch: int, processes: int, threads: int, images: int) -> float:
    """Return forward passes a second of some processes at once."""
    sha256 = digest_folder(folder)
    arguments = [str(ROOT), str(folder), sha256, str(batch), str(threads), str(images // processes), device]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(json.loads(process.communicate()[0]) for process in running)


def run(scrape: Scrape, images: int, *, device: str = "cpu", workers: int = 0) -> dict[str, float]:
    """Return the rates of one run of the command; 0 workers are one a core."""
    options = ["--profile", "--device", device, "--workers", str(workers)]
    shutil.rmtree(scrape.collection, ignore_errors=True)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", str(scrape.config), *options],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    whole = images / (time.perf_counter() - began)
    (note,) = (scrape.collection / "journal").glob("*-examine-*.json")
    profile = json.loads(note.read_text())["profile"]
    started = profile["wall_s"] - profile["seconds"]["start"] / profile["workers"]
    return {"whole command": whole, "examine": images / profile["wall_s"], "examine, started": images / started}


def peer_weights(folder: Path, path: Path) -> Path:
    """Write the model's image tower beside a text tower of the real size: the peer tries both when it starts."""
    import open_clip  # noqa: PLC0415 - with a peer only
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    model = open_clip.create_model("ViT-B-32")
    tower = {
        name: values
        for name, values in load_file(folder / "open_clip_model.safetensors").items()
        if name.startswith("visual.")
    }
    missing, unexpected = model.load_state_dict(tower, strict=False)
    if unexpected or any(name.startswith("visual.") for name in missing):
        raise RuntimeError("the stand-in's image tower is not ViT-B-32's")
    save_file(model.state_dict(), path)
    return path


def peer(python: str, scrape: Scrape, weights: Path, images: int, *, shards: int = SHARDS) -> float:
    """Return the seconds of the peer's whole command over some shards."""
    pattern = str(scrape.shards / f"{{00000..{shards - 1:05d}}}.tar")
    with tempfile.TemporaryDirectory() as out:
        program = scrape.root / "peer.py"
        program.write_text(PEER)
        began = time.perf_counter()
        subprocess.run(
            [python, "-W", "ignore", str(program), str(ROOT), pattern, out, str(weights)],
            check=True, capture_output=True, env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"},
        )  # fmt: skip
        seconds = time.perf_counter() - began
        rows = sum(len(np.load(path)) for path in Path(out).rglob("*.npy"))
    if rows != images:
        raise RuntimeError(f"the peer embedded {rows} of {images} images")
    return seconds


def make(root: Path, images: int, *, model: str | None = "vit-b-32", device: str = "cpu") -> Scrape:
    """Write the scrape: JPEGs with captions, the model, its heads, the words and the list."""
    scrape, compiled = Scrape.make(root), device == "cuda"
    if model:
        add_models(scrape, size=model, precision="bf16", compiled=compiled)
        batch = 256 if compiled else 64
        scrape.settings["embedder"] |= {"batch": batch, "precision": "bf16", "compile": compiled}  # type: ignore[operator]
    scrape.settings["text"] = {"concepts": ["minor", "sexual"]}
    scrape.settings["release"] = {"shards": False}
    random = np.random.default_rng(1)
    entries = [("md5", random.bytes(16)), *(("pdq", random.bytes(32)) for _ in range(LISTED))]
    write_list(root / "lists" / "known.csv", entries)
    scrape.write()
    each = images // SHARDS
    for shard in range(SHARDS):
        members = []
        for number in range(each):
            width, height = (int(side) for side in random.integers(200, 521, 2))
            members.append(
                (f"{number:05d}.jpg", encode(draw(shard * each + number, size=(width, height)), quality=90))
            )
            members.append((f"{number:05d}.txt", b"a drawing of some shapes on a plain background"))
        write_tar(scrape.shards / f"{shard:05d}.tar", members)
    return scrape


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peer", default="", help="a Python that has clip-retrieval")
    parser.add_argument("--device", choices=list(BATCHES), default="cpu", help="cuda: the tower is compiled")
    parser.add_argument("--model", choices=("vit-b-32", "vit-l-14"), default="vit-b-32", help="its shape")
    given = parser.parse_args()
    root, cores = Path(tempfile.mkdtemp(prefix="shardscrub-bench-")), len(os.sched_getaffinity(0))
    try:
        scrape = make(root / "scrape", given.images, model=given.model, device=given.device)
        folder, device = root / "scrape" / "model", given.device
        layouts = [(batch, n) for batch in BATCHES[device] for n in ({1, cores} if device == "cpu" else {1})]
        tried = {
            (batch, n): bare(folder, device, batch=batch, processes=n, threads=cores // n, images=4 * 128)
            for batch, n in layouts
        }
        batch, n = max(tried, key=lambda key: tried[key])
        bares, runs, peers = [], [], []
        if given.peer:
            weights, few = peer_weights(folder, root / "peer.safetensors"), 2 * given.images // SHARDS
            few_s = peer(given.peer, scrape, weights, few, shards=2)  # a shard each of its loaders
        for pair in range(given.pairs):
            bares.append(bare(folder, device, batch=batch, processes=n, threads=cores // n, images=given.images))
            runs.append(run(scrape, given.images, device=device))
            if given.peer and pair % 2 == 0:  # it takes longest
                seconds = peer(given.peer, scrape, weights, given.images)
                started = (given.images - few) / (seconds - few_s)
                peers.append({"whole command": given.images / seconds, "started": started})
            print(
                round(bares[-1], 2),
                {name: round(rate, 2) for name, rate in runs[-1].items()},
                peers[-1:],
                flush=True,
            )
    finally:
        shutil.rmtree(root)
    shares = {
        name: statistics.median(one[name] / rate for one, rate in zip(runs, bares, strict=True)) for name in runs[0]
    }
    pairs = (("whole command", "whole command"), ("examine, started", "started"))
    against = {
        theirs: statistics.median(run[ours] for run in runs) / statistics.median(one[theirs] for one in peers)
        for ours, theirs in pairs
        if peers
    }
    results = {
        "bare, images/s": bares, "bare layout": {"batch": batch, "processes": n, "threads": cores // n},
        "bare, every layout tried": {f"batch {b}, {p} processes": rate for (b, p), rate in tried.items()},
        "runs, images/s": runs, "share of bare (median)": shares,
        "clip-retrieval, images/s": peers,
        "ratio to clip-retrieval (of medians)": against,
    }  # fmt: skip
    told = {name: found for name, found in results.items() if "median" in name}
    print(json.dumps(told, indent=2))
    print(
        save(
            "end_to_end",
            {**vars(given), "peer": bool(given.peer), "listed": LISTED, "shards": SHARDS},
            results,
        )
    )


if __name__ == "__main__":
    main()
