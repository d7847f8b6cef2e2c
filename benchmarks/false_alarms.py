"""How high do the pixel nets score pictures that are benign for certain, by the kind of picture?

Photographs beside the checkout, each as 12 pictures: whole, whole at 256 and 96 px, and nine crops of 60 % of the
sides. Those of one photograph are not independent, so the intervals over them are too narrow, and a handful of
photographs stands for no web. Drawings, charts, pages and gradients are drawn here, each from numbers of its own.
An interval is Clopper and Pearson's of 95 %. Nobody in the photographs is under 18.

The path of `open-nsfw.onnx` is the argument; nets whose weights are not at hand are left out. Writes JSON and
prints the tables of docs/models.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import edited_pictures as pictures  # noqa: E402 - the paths come first
import numpy as np  # noqa: E402
from measuring import save  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.stats import beta  # noqa: E402

from classifiers.image.face_age import FaceAge  # noqa: E402
from classifiers.image.nsfwjs import NsfwJs  # noqa: E402
from classifiers.image.onnx_net import OnnxNet  # noqa: E402
from classifiers.image.protocol import PixelNet  # noqa: E402
from classifiers.signals import Scores  # noqa: E402

WEIGHTS = pictures.DATA / "weights"
BARS = (0.1, 0.3, 0.5)
DRAWN = 96
SCALES, CROP = (256, 96), 0.6
STRATA = {
    "portrait (astronaut)": ("astronaut",),
    "man at a camera, in profile": ("camera",),
    "medical (retina, cell)": ("retina", "cell"),
    "textures (brick, grass, gravel)": ("brick", "grass", "gravel"),
    "cat, coffee, rocket, galaxies": ("chelsea", "coffee", "rocket", "hubble_deep_field"),
}
SNAPSHOTS = "seven snapshots of the web"
DRAWERS: dict[str, Callable[[int], dict[str, Image.Image]]] = {
    "drawn shapes": pictures.drawings,
    "drawn charts": pictures.charts,
    "drawn pages of text": pictures.texts,
    "drawn gradients": pictures.gradients,
}
Pictures = dict[str, Image.Image]


def load_nets() -> dict[str, PixelNet]:
    """Return the nets whose weights are at hand."""
    nets: dict[str, PixelNet] = {}
    if len(sys.argv) > 1:
        nets["OpenNSFW"] = OnnxNet.open_nsfw(Path(sys.argv[1]), threads=1)
    for name, kind, folder in (("nsfwjs", NsfwJs, "nsfwjs"), ("face age", FaceAge, "face")):
        if (WEIGHTS / folder).is_dir():
            nets[name] = kind(WEIGHTS / folder)
    if not nets:
        sys.exit("no weights: give the path of open-nsfw.onnx, or put the others beside the checkout")
    return nets


def parts_of(picture: Image.Image) -> list[Image.Image]:
    """Return a photograph as 12 pictures."""
    small = [picture.copy() for _ in SCALES]
    for copy, side in zip(small, SCALES, strict=True):
        copy.thumbnail((side, side))
    wide, tall = (round(CROP * side) for side in picture.size)
    corners = [
        (round(x * (picture.width - wide) / 2), round(y * (picture.height - tall) / 2))
        for y in range(3)
        for x in range(3)
    ]
    return [picture, *small, *(picture.crop((x, y, x + wide, y + tall)) for x, y in corners)]


def strata_of(photographs: Pictures) -> dict[str, tuple[int, list[Image.Image]]]:
    """Return the pictures of each stratum, and of how many photographs they are (0: drawn)."""
    by_stem = {Path(name).stem: picture for name, picture in photographs.items()}
    named = {stem for stems in STRATA.values() for stem in stems}
    groups = STRATA | {SNAPSHOTS: tuple(sorted(by_stem.keys() - named))}
    found = {
        stratum: (len(stems), [part for stem in stems for part in parts_of(by_stem[stem])])
        for stratum, stems in groups.items()
        if stems and by_stem.keys() >= set(stems)
    }
    return found | {stratum: (0, list(draw(DRAWN).values())) for stratum, draw in DRAWERS.items()}


def score(net: PixelNet, group: list[Image.Image]) -> Scores:
    """Score pictures one by one."""
    return np.concatenate([net.score(net.view(np.asarray(picture))[None]) for picture in group])


def interval(count: int, n: int) -> tuple[float, float]:
    """Return Clopper and Pearson's two-sided 95 % interval of a share."""
    low = float(beta.ppf(0.025, count, n - count + 1)) if count else 0.0
    return low, float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0


def alarms(scores: Scores) -> dict[str, object]:
    """Count the scores at or over each bar."""
    if np.isnan(scores).any():
        raise ValueError("a net gave no score")
    counts = {str(bar): int((scores >= np.float32(bar)).sum()) for bar in BARS}
    bounds = {bar: [round(bound, 4) for bound in interval(count, len(scores))] for bar, count in counts.items()}
    return {"n": len(scores), "at or over": counts, "interval": bounds, "highest": round(float(scores.max()), 3)}


def one_by_one(nets: dict[str, PixelNet], photographs: Pictures) -> dict[str, dict[str, float | None]]:
    """Score each whole photograph; beside face age, the apparent age of the youngest face."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, picture in photographs.items():
        rows[name] = {net: round(float(score(nets[net], [picture])[0]), 3) for net in nets}
        if isinstance(ages_of := nets.get("face age"), FaceAge):
            (ages,) = ages_of.ages(ages_of.view(np.asarray(picture))[None])
            rows[name]["youngest face"] = round(min(ages), 1) if ages else None
    return rows


def print_tables(table: dict[str, dict[str, object]], rows: dict[str, dict[str, float | None]]) -> None:
    """Print both tables as Markdown."""
    print(
        "| pictures | n | net |",
        " | ".join(f"≥ {bar}" for bar in BARS),
        "| highest |\n|---|---|---|---|---|---|---|",
    )
    for stratum, entry in table.items():
        for net, found in entry["nets"].items():
            shares = [
                f"{count} ({100 * found['interval'][bar][0]:.1f} to {100 * found['interval'][bar][1]:.1f} %)"
                for bar, count in found["at or over"].items()
            ]
            print(f"| {stratum} | {found['n']} | {net} | {' | '.join(shares)} | {found['highest']:.3f} |")
    names = list(next(iter(rows.values()), {}))
    print("\n| photograph |", " | ".join(names), "|\n|" + "---|" * (len(names) + 1))
    for name, values in rows.items():
        print(f"| {name} |", " | ".join("-" if value is None else f"{value:g}" for value in values.values()), "|")


def main() -> None:
    """Measure, print and save."""
    nets = load_nets()
    photographs = pictures.photographs()
    table = {
        stratum: {"photographs": count, "nets": {name: alarms(score(net, group)) for name, net in nets.items()}}
        for stratum, (count, group) in strata_of(photographs).items()
    }
    rows = one_by_one(nets, photographs)
    print_tables(table, rows)
    plan = {
        "nets": {name: net.full_name for name, net in nets.items()},
        "bars": list(BARS),
        "drawn": DRAWN,
        "scales": list(SCALES),
        "crop": CROP,
        "photographs": sorted(photographs),
    }
    print(save("false_alarms", plan, {"strata": table, "photographs": rows}))


if __name__ == "__main__":
    main()
