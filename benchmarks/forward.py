"""What share of the tower's bare forward rate does the embedder reach inside the loop of a run?

Bare: the same ViT-B-32-quickgelu (random weights, a stand-in), weights and layout as loaded, on pixels that lie
normalised in memory, channels-last and in the tower's precision; nothing is copied, and its best batch of 16, 32,
64 and 128 counts. Inside: uint8 views, as a decoder and `view` leave them, are put into the array of a batch of 32
as `measure.py` does, and `OpenClipEmbedder.embed` makes unit float16 rows of them. Two heads score each batch; they
are a line of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import numpy as np  # noqa: E402 - the paths come first
import stand_ins  # noqa: E402
import torch  # noqa: E402
from measuring import interleave, median_ratio, save  # noqa: E402

from classifiers.embedders.folder import CONFIG_FILE  # noqa: E402
from classifiers.embedders.open_clip import OpenClipEmbedder  # noqa: E402
from classifiers.heads.mlp import MlpHead  # noqa: E402
from classifiers.weights import digest_folder  # noqa: E402

BATCH, BARE_BATCHES, BAR = 32, (16, 32, 64, 128), 0.92
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def write_model(folder: Path) -> str:
    """Write the stand-in with QuickGELU, as OpenAI's towers have it, and return its digest."""
    stand_ins.write_stand_in_clip(folder, seed=1, size="vit-b-32")
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["quick_gelu"] = True
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return digest_folder(folder)


def load(folder: Path, sha256: str, precision: str) -> OpenClipEmbedder:
    """Load the stand-in as a run does."""
    return OpenClipEmbedder(
        folder, name="vit-b-32-stand-in@1", sha256=sha256, device="cpu", precision=precision, batch=BATCH
    )


def make_heads(folder: Path, embedder: OpenClipEmbedder) -> list[MlpHead]:
    """Write and load two heads with a hidden layer."""
    heads = []
    for seed in range(2):
        path = folder / f"{seed}.safetensors"
        name = f"head{seed}-stand-in@1"
        digest = stand_ins.write_stand_in_head(
            path, name=name, embedder_name=embedder.name, dims=embedder.dims, seed=seed
        )
        heads.append(MlpHead.load(path, sha256=digest, embedder_name=embedder.name, dims=embedder.dims))
    return heads


def bare(tower: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Run the tower alone, once, over normalised pixels."""
    with torch.inference_mode():
        tower(pixels)


def inside(
    embedder: OpenClipEmbedder, heads: list[MlpHead], pictures: list[np.ndarray], spent: list[float]
) -> None:
    """Do with one batch of decoded pictures what `measure` does; the seconds of the heads go to `spent`."""
    views = np.zeros((len(pictures), *pictures[0].shape), np.uint8)
    for row, picture in enumerate(pictures):
        views[row] = picture
    embedding = embedder.embed(views)
    began = time.perf_counter()
    for head in heads:
        head.score(embedding)
    spent.append(time.perf_counter() - began)


def measure(root: Path, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return rates and ratios by precision, each pair of one bare and one other forward pass."""
    torch.set_num_threads(threads)
    sha256 = write_model(root / "model")
    pictures = [stand_ins.draw_picture(224, 224, seed) for seed in range(max(BARE_BATCHES))]
    results: dict[str, dict[str, float]] = {}
    for name, dtype in PRECISIONS.items():
        embedder = load(root / "model", sha256, name)
        heads, spent = make_heads(root, embedder), []
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)
        pixels = pixels.sub_(embedder._mean).div_(embedder._std).to(dtype)
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        passes = {str(batch): lambda t=embedder._tower, p=pixels[:batch]: bare(t, p) for batch in BARE_BATCHES}
        tried = {int(batch): min(seconds) / int(batch) for batch, seconds in interleave(passes, rounds=2).items()}
        best = min(tried, key=tried.__getitem__)
        forms = {
            "bare": passes[str(best)],
            "inside": lambda e=embedder, h=heads, s=spent: inside(e, h, pictures[:BATCH], s),
        }
        seconds = interleave(forms, rounds=rounds)
        alone = [value / best for value in seconds["bare"]]
        whole = [value / BATCH for value in seconds["inside"]]
        embedding = [total - part / BATCH for total, part in zip(whole, spent[1:], strict=True)]
        results[name] = {
            "best bare batch": best,
            "bare, images/s": 1 / statistics.median(alone),
            "inside, images/s": 1 / statistics.median(embedding),
            "inside / bare": median_ratio(alone, embedding),
            "inside / bare, lowest pair": min(a / b for a, b in zip(alone, embedding, strict=True)),
            "inside with two heads / bare": median_ratio(alone, whole),
        }
    results["bf16 / fp32"] = {
        form: results["bf16"][f"{form}, images/s"] / results["fp32"][f"{form}, images/s"]
        for form in ("bare", "inside")
    }
    return results


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    flags = set(Path("/proc/cpuinfo").read_text().split())
    hardware = sorted({"avx512_bf16", "amx_bf16"} & flags)
    print(f"bf16 in hardware: {', '.join(hardware) or 'none'}")
    with tempfile.TemporaryDirectory(prefix="shardscrub-bench-") as root:
        results = measure(Path(root), given.threads, given.rounds)
    for name, figures in results.items():
        for what, value in figures.items():
            print(f"{name:<12}{what:<34}{value:.3f}")
    print(f"bar for bf16, inside / bare: {BAR}")
    plan = {
        "model": "ViT-B-32-quickgelu, random weights",
        "batch": BATCH,
        "bare_batches": BARE_BATCHES,
        "threads": given.threads,
        "rounds": given.rounds,
    }
    print(save("forward", plan, {"bf16_hardware": hardware, "bar": BAR, "results": results}))


if __name__ == "__main__":
    main()
