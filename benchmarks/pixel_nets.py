"""How many pictures a second do the pixel nets see, and what does making their views cost?

Each net scores its own views of the same pictures in turn: photographs beside the checkout, or drawn ones. The path
of `open-nsfw.onnx` may be given as the argument; it then runs on one thread and on as many as there are cores. The
ratios are against the first net. Nets whose weights are not beside the checkout are left out.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the paths come first
from measuring import interleave, median_ratio, save  # noqa: E402
from PIL import Image  # noqa: E402

from classifiers.image.face_age import FaceAge  # noqa: E402
from classifiers.image.nsfwjs import NsfwJs  # noqa: E402
from classifiers.image.onnx_net import OnnxNet  # noqa: E402
from classifiers.image.protocol import PixelNet  # noqa: E402
from classifiers.signals import Pixels  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
ROUNDS = 5
COUNT = 32


def pictures() -> list[Pixels]:
    """Return photographs where they lie beside the checkout, else drawn textures."""
    paths = [path for path in sorted((DATA / "photos").glob("*")) if path.stem != "truncated"]
    if paths:
        return [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    random = np.random.default_rng(1)
    return [
        np.asarray(Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize((640, 480), 3))
        for _ in range(10)
    ]


def main() -> None:
    """Measure, print and save."""
    cores = len(os.sched_getaffinity(0))
    nets: dict[str, PixelNet] = {}
    if len(sys.argv) > 1:
        for threads in sorted({1, cores}):
            nets[f"open-nsfw, threads: {threads}"] = OnnxNet.open_nsfw(Path(sys.argv[1]), threads=threads)
    for name, kind in (("nsfwjs", NsfwJs), ("face-age", FaceAge)):
        if (DATA / "weights" / name.removesuffix("-age")).is_dir():
            nets[f"{name}, threads: 1"] = kind(DATA / "weights" / name.removesuffix("-age"))
    if not nets:
        sys.exit("no weights: give the path of open-nsfw.onnx, or put the others beside the checkout")
    sources = pictures()
    views = {name: np.stack([net.view(pixels) for pixels in sources]) for name, net in nets.items()}
    batches = {name: np.resize(kept, (COUNT, *kept.shape[1:])) for name, kept in views.items()}
    scoring = interleave({name: lambda n=name: nets[n].score(batches[n]) for name in nets}, rounds=ROUNDS)
    viewing = interleave(
        {name: lambda n=name: [nets[n].view(pixels) for pixels in sources] for name in nets}, rounds=ROUNDS
    )
    first = next(iter(nets))
    results = {
        name: {
            "net": net.full_name,
            "scored a second": round(COUNT / statistics.median(scoring[name]), 1),
            "against the first": round(median_ratio(scoring[first], scoring[name]), 2),
            "viewed a second": round(len(sources) / statistics.median(viewing[name]), 1),
        }
        for name, net in nets.items()
    }
    for name, figures in results.items():
        print(name, figures)
    plan = {"rounds": ROUNDS, "views": COUNT, "pictures": [list(pixels.shape) for pixels in sources]}
    print(save("pixel_nets", plan, {"nets": results}))


if __name__ == "__main__":
    main()
