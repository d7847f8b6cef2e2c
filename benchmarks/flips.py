"""How many decisions flip with the batch, the precision, the view or the device, and what a margin makes of them.

Pictures: half drawn, half random crops of photographs (all drawn where those are not beside the checkout). Tower:
random weights (a stand-in), 512 wide, so that random heads and, where it is there, LAION's B/32 head can read it.
Compared are scores of the same picture: alone in a forward pass of one row, which a run never makes, and in a batch
of 32; alone as a run makes it, filled up to 16 rows; in fp32 and bf16; from our view and from open_clip's own
transform; on the CPU and on CUDA. A flip is a score on the other side of a threshold.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import numpy as np  # noqa: E402 - the paths come first
import stand_ins  # noqa: E402
import torch  # noqa: E402
from measuring import save  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402
from scrapes import draw  # noqa: E402

from classifiers.embedders.open_clip import OpenClipEmbedder  # noqa: E402
from classifiers.heads.laion import LaionNsfwHead  # noqa: E402
from classifiers.heads.mlp import MlpHead  # noqa: E402
from classifiers.signals import Classifier  # noqa: E402
from classifiers.torchvision_schemas import open_clip  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
LAION = DATA / "weights" / "laion" / "clip_autokeras_nsfw_b32.zip"
THRESHOLDS, MARGIN, BATCH, RANDOM_HEADS = (0.1, 0.45, 0.5), 0.005, 32, 8
NAME = "flips-stand-in@1"
stand_ins._MODELS["vit-s-32"] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 6, "width": 384, "head_width": 64, "patch_size": 32},
    "text_cfg": stand_ins._TEXT,
}


def pictures(count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield drawn scenes and crops of photographs, 150 to 500 pixels a side."""
    random = np.random.default_rng(7)
    photographs = [
        np.asarray(Image.open(path).convert("RGB"))
        for path in sorted((DATA / "photos").glob("*"))
        if path.stem != "truncated"
    ]
    for number in range(count):
        height, width = (int(side) for side in random.integers(150, 500, 2))
        if number % 2 and photographs:
            photograph = photographs[number % len(photographs)]
            height, width = min(height, photograph.shape[0]), min(width, photograph.shape[1])
            top = random.integers(0, photograph.shape[0] - height + 1)
            left = random.integers(0, photograph.shape[1] - width + 1)
            yield np.ascontiguousarray(photograph[top : top + height, left : left + width])
        else:
            yield np.asarray(draw(number, size=(width, height)))


def load(folder: Path, sha256: str, precision: str, device: str = "cpu") -> OpenClipEmbedder:
    """Load the stand-in as a run does."""
    return OpenClipEmbedder(folder, name=NAME, sha256=sha256, device=device, precision=precision, batch=BATCH)


def load_heads(folder: Path, sha256: str, embedder: OpenClipEmbedder) -> dict[str, list[Classifier]]:
    """Return the heads by kind."""
    heads: dict[str, list[Classifier]] = {"random heads": []}
    for seed in range(RANDOM_HEADS):
        path, name = folder / f"{seed}.safetensors", f"head{seed}-stand-in@1"
        digest = stand_ins.write_stand_in_head(
            path, name=name, embedder_name=embedder.name, dims=embedder.dims, seed=seed
        )
        head = MlpHead.load(path, sha256=digest, embedder_name=embedder.name, dims=embedder.dims)
        heads["random heads"].append(head)
    if LAION.is_file():
        digest = hashlib.sha256(LAION.read_bytes()).hexdigest()
        known = frozenset({sha256})
        head = LaionNsfwHead.load(
            LAION, sha256=digest, embedder_name=embedder.name, dims=embedder.dims, backbones=known
        )
        heads["LAION B/32"] = [head]
    return heads


def compare(
    one: NDArray[np.float16], other: NDArray[np.float16], heads: dict[str, list[Classifier]]
) -> dict[str, object]:
    """Return how far apart embeddings and scores are, and the share of flips, with and without a margin."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    result: dict[str, object] = {
        "pictures": len(a),
        "cosine, least": float(cosines.min()),
        "embeddings of the same bits": float((one == other).all(axis=1).mean()),
    }
    for kind, group in heads.items():
        first, second = (np.stack([head.score(rows) for head in group]) for rows in (one, other))
        apart = np.abs(first - second)
        figures = {"score, most apart": float(apart.max()), "score, 99 % within": float(np.quantile(apart, 0.99))}
        for bar in THRESHOLDS:
            flips = (first >= bar) != (second >= bar)
            unknown = (np.abs(first - bar) < MARGIN) | (np.abs(second - bar) < MARGIN)
            figures |= {
                f"flips at {bar}": float(flips.mean()),
                f"unknown at {bar} with the margin": float((np.abs(first - bar) < MARGIN).mean()),
                f"flips at {bar} outside the margin": float((flips & ~unknown).mean()),
            }
        result[kind] = figures
    return result


def measure(root: Path, model: str, count: int, alone_as_run: int) -> dict[str, object]:
    """Return every comparison."""
    folder = root / "model"
    sha256 = stand_ins.write_stand_in_clip(folder, seed=1, size=model)
    towers = {precision: load(folder, sha256, precision) for precision in ("fp32", "bf16")}
    heads = load_heads(root, sha256, towers["fp32"])
    drawn = list(pictures(count))
    views = np.stack([towers["fp32"].view(picture) for picture in drawn])
    results: dict[str, object] = {}
    rows = {}
    for precision, tower in towers.items():
        rows[precision] = tower.embed(views)
        alone = np.concatenate([tower._pass(view[None]) for view in views])
        results[f"1 row / batch of {BATCH}, {precision}"] = compare(rows[precision], alone, heads)
        few = rows[precision][:alone_as_run]
        filled = np.concatenate([tower.embed(view[None]) for view in views[:alone_as_run]])
        results[f"1 row as a run fills it up / batch of {BATCH}, {precision}"] = compare(few, filled, heads)
    results["fp32 / bf16"] = compare(rows["fp32"], rows["bf16"], heads)
    transform = open_clip.image_transform(224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = np.stack([(transform(Image.fromarray(picture)) * 255).round().byte().numpy() for picture in drawn])
    theirs = np.ascontiguousarray(theirs.transpose(0, 2, 3, 1))
    for precision, tower in towers.items():
        found = compare(rows[precision], tower.embed(theirs), heads)
        results[f"our view / open_clip's transform, {precision}"] = found
    for precision in towers:
        what = f"CPU / CUDA, {precision}"
        if torch.cuda.is_available():
            results[what] = compare(rows[precision], load(folder, sha256, precision, "cuda").embed(views), heads)
        else:
            results[what] = "not measured"
    return results


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="vit-s-32", choices=("vit-s-32", "vit-b-32"))
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--alone-as-run", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(prefix="shardscrub-bench-") as root:
        results = measure(Path(root), given.model, given.pictures, given.alone_as_run)
    for what, figures in results.items():
        print(f"{what}: {figures}")
    plan = {
        **vars(given),
        "batch": BATCH,
        "thresholds": THRESHOLDS,
        "margin": MARGIN,
        "random_heads": RANDOM_HEADS,
        "laion_head": LAION.is_file(),
    }
    print(save("flips", plan, {"results": results}))


if __name__ == "__main__":
    main()
