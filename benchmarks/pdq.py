"""How fast is PDQ on one core against pdqhash, and how many photographs need the slow form?

Both get the same pixels, in turn, pinned to one core; each goes over all pictures a few times, so that neither
finds the caches as the other left them. Ours makes eight variants and the reference one. The slow form decides
where rounding could change a bit: its price is stated apart and, by its share at that size, inside the last ratio.
The share is of pictures with a quality of 50 or more.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the paths and the number of threads come first
import pdqhash  # noqa: E402
from measuring import interleave, median_ratio, save  # noqa: E402
from PIL import Image  # noqa: E402

from classifiers.hashes import pdq, pdq_linear, pdq_rounding  # noqa: E402
from classifiers.signals import Pixels  # noqa: E402

SIZES = {(1024, 768): 20, (512, 512): 12, (256, 256): 6}  # and the least ratio that is asked of it
MOST_FOR_EIGHT = 0.15
MOST_SLOW = 0.02
ROUNDS = 7
REPEATS = 4
CROPS = 1200
DATA = ROOT.parent / "shared" / "data"
FOLDERS = ("photos", "clip/images", "pdq/images")


def pictures() -> tuple[list[Image.Image], str]:
    """Return photographs where they lie beside the checkout, else drawn textures, and which of the two."""
    names = [path for folder in FOLDERS for path in sorted((DATA / folder).glob("*")) if path.stem != "truncated"]
    if names:
        return [Image.open(path).convert("RGB") for path in names], "photographs"
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(20):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize((1600, 1004), 3)
        noise = random.normal(0, 6, (1004, 1600, 3))
        drawn.append(Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)))
    return drawn, "drawn"


def crops(sources: list[Image.Image], size: tuple[int, int] | None = None) -> Iterator[Pixels]:
    """Cut random parts out of the pictures, all at `size`, or half as they are and half resized at random."""
    random = np.random.default_rng(0)
    for number in range(CROPS):
        source = sources[random.integers(len(sources))]
        width, height = (int(side * random.uniform(0.3, 1)) for side in source.size)
        left, top = random.integers(source.width - width + 1), random.integers(source.height - height + 1)
        part = source.crop((left, top, left + width, top + height))
        scale = random.uniform(0.3, 1.5) if number % 2 else 1.0
        scaled = (max(8, int(width * scale)), max(8, int(height * scale)))
        yield np.asarray(part.resize(size or scaled, Image.Resampling.BICUBIC))


def slow_share(parts: Iterable[Pixels]) -> dict[str, float]:
    """Return how many of the pictures worth a hash need the slow form."""
    slow = [pdq.encode_fast(part) is None for part in parts if (pdq.Pdq().encode(part).quality or 0) >= 50]
    return {"pictures": len(slow), "slow": sum(slow), "share": sum(slow) / len(slow)}


def one_variant(pixels: Pixels) -> None:
    """Hash as `Pdq` does, but the picture alone."""
    signs, places = pdq.SIGNS, pdq.BIT_PLACES
    pdq.SIGNS, pdq.BIT_PLACES = signs[:1], places[:1]
    pdq.encode_fast(pixels)
    pdq.SIGNS, pdq.BIT_PLACES = signs, places


def new_size(pixels: Pixels) -> None:
    """Hash as if no picture of this height or width had come before."""
    for cached in (pdq_linear._taps, pdq_linear._row_bands, pdq_linear._column_bands, pdq_rounding.drift):
        cached.cache_clear()
    pdq.encode_fast(pixels)


def measure(arrays: list[Pixels], share: float) -> dict[str, object]:
    """Time every form over the pictures that the fast form answers, all of them each round."""
    forms = {
        "pdqhash": pdqhash.compute,
        "ours x 8": pdq.Pdq().encode,
        "pdqhash x 8": pdqhash.compute_dihedral,  # here, so that both of ours come after the same
        "ours x 1": one_variant,
        "ours x 8, first of its size": new_size,
        "ours x 8, slow form": pdq.encode_slowly,
    }
    many = arrays * REPEATS
    seconds = interleave(
        {name: lambda form=form: [form(pixels) for pixels in many] for name, form in forms.items()}, rounds=ROUNDS
    )
    ms = {name: statistics.median(values) / len(many) * 1e3 for name, values in seconds.items()}
    with_slow = [
        fast + share * slow for fast, slow in zip(seconds["ours x 8"], seconds["ours x 8, slow form"], strict=True)
    ]
    return {
        "ms": ms,
        "ratio": {name: median_ratio(seconds["pdqhash"], values) for name, values in seconds.items()},
        "ratio_with_slow": median_ratio(seconds["pdqhash"], with_slow),
        "eight_add": median_ratio(seconds["ours x 8"], seconds["ours x 1"]) - 1,
    }


def main() -> None:
    """Measure, print a table and write the figures."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sources, kind = pictures()
    shares = {
        "as they are": slow_share(np.asarray(source) for source in sources),
        "crops": slow_share(crops(sources)),
        **{f"crops at {width}x{height}": slow_share(crops(sources, (width, height))) for width, height in SIZES},
    }
    for name, share in shares.items():
        print(f"slow form, {kind} {name}: {share['slow']} of {share['pictures']}, {share['share']:.2%}")
    plan = {
        "sizes": [{"size": size, "least_ratio": bar} for size, bar in SIZES.items()],
        "most_for_eight": MOST_FOR_EIGHT,
        "most_slow": MOST_SLOW,
        "rounds": ROUNDS,
        "repeats": REPEATS,
        "crops": CROPS,
        "source": kind,
    }
    rows = []
    for size, bar in SIZES.items():
        arrays = [np.asarray(source.resize(size, Image.Resampling.BICUBIC)) for source in sources[::3]]
        arrays = [pixels for pixels in arrays if pdq.encode_fast(pixels) is not None]
        row = measure(arrays, shares[f"crops at {size[0]}x{size[1]}"]["share"])
        rows.append({"size": size, "pictures": len(arrays), **row})
        print(f"{size[0]}x{size[1]}, {len(arrays)} pictures (at least {bar}x asked):")
        for form, ms in row["ms"].items():
            print(f"    {form:<30}{ms:9.3f} ms {row['ratio'][form]:8.1f}x")
        print(f"    eight variants add {row['eight_add']:.1%}")
        print(f"    with the slow form by its share {row['ratio_with_slow']:.1f}x")
    print(save("pdq", plan, {"slow_form": shares, "results": rows}))


if __name__ == "__main__":
    main()
