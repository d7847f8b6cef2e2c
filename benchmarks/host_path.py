"""How long does one image take on the host: decode, three digests, PDQ and the CLIP view, on one core?

Ours: isolated decoder, one-pass digests, PDQ as a linear operator, antialiased uint8 view. Reference: Pillow +
hashlib + pdqhash + Pillow bicubic, in process. Both are pinned to one core, so the transfer of pixels from the
isolated decoder is inside our figure; it is also stated apart.
"""

from __future__ import annotations

import hashlib
import io
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the paths come first
import pdqhash  # noqa: E402
import simplejpeg  # noqa: E402
import torch  # noqa: E402
from measuring import interleave, median_ratio, save  # noqa: E402
from PIL import Image  # noqa: E402

from classifiers.embedders.views import square_view  # noqa: E402
from classifiers.hashes.digests import take_digests  # noqa: E402
from classifiers.hashes.pdq import Pdq  # noqa: E402
from classifiers.hashes.registry import find_kind  # noqa: E402
from pipeline.config import HashesConfig  # noqa: E402
from pipeline.decode import DecodeLimits, Decoder, Picture  # noqa: E402
from pipeline.hash_pictures import PictureHashes  # noqa: E402

SIZES = ((1600, 1004), (512, 512), (256, 256))
VIEW = 224
ROUNDS = 9
BY_DEFAULT = "ours, default hashes and views"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"


def pictures() -> tuple[list[Image.Image], str]:
    """Return photographs where they lie beside the checkout, else drawn textures, and which of the two."""
    names = [p for p in sorted(PHOTOS.glob("*")) if p.suffix in (".jpg", ".png") and p.stem != "truncated"]
    if names:
        return [Image.open(path).convert("RGB") for path in names[:8]], "photographs"
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize((1600, 1004), 3)
        noise = random.normal(0, 6, (1004, 1600, 3))
        drawn.append(Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)))
    return drawn, "drawn"


def encode(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """Return a JPEG of the picture at `size`."""
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def reference(data: bytes) -> None:
    """Do for one image what peers do: Pillow, hashlib, pdqhash, Pillow bicubic."""
    for kind in (hashlib.md5, hashlib.sha1, hashlib.sha256):
        kind(data).digest()
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    pdqhash.compute(np.asarray(picture))
    width, height = picture.size
    scale = VIEW / min(width, height)
    view = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (view.width - VIEW) // 2, (view.height - VIEW) // 2
    np.asarray(view.crop((left, top, left + VIEW, top + VIEW)))


def ours(decoder: Decoder, pdq: Pdq, images: list[bytes]) -> None:
    """Do the same on our path."""
    for data in images:
        take_digests(data)
    for picture in decoder.decode(images):
        assert isinstance(picture, Picture)
        pdq.encode(picture.pixels)
        square_view(picture.pixels, VIEW)


def ours_by_default(decoder: Decoder, hashes: PictureHashes, images: list[bytes]) -> None:
    """Do what a run does unless configured otherwise: every default hash of every default view."""
    for data in images:
        take_digests(data)
    for picture in decoder.decode(images):
        assert isinstance(picture, Picture)
        list(hashes.of_picture(picture))
        square_view(picture.pixels, VIEW)


def transfer(decoder: Decoder, images: list[bytes]) -> None:
    """Decode alone, with the way to the isolated worker and back."""
    for picture in decoder.decode(images):
        assert isinstance(picture, Picture)


def steps(pdq: Pdq, images: list[bytes]) -> dict[str, Callable[[], object]]:
    """Return the parts of both forms, one at a time."""
    arrays = [simplejpeg.decode_jpeg(data) for data in images]
    return {
        "digests": lambda: [take_digests(data) for data in images],
        "simplejpeg in process": lambda: [simplejpeg.decode_jpeg(data) for data in images],
        "PDQ x 8": lambda: [pdq.encode(array) for array in arrays],
        "view": lambda: [square_view(array, VIEW) for array in arrays],
        "pdqhash": lambda: [pdqhash.compute(array) for array in arrays],
        "Pillow decode": lambda: [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in images],
    }


def main() -> None:
    """Measure, print a table and write the figures."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    sources, kind = pictures()
    pdq, rows = Pdq(), []
    chosen = HashesConfig()
    hashes = PictureHashes(tuple(find_kind(name) for name in chosen.kinds), chosen.views)
    plan = {"sizes": SIZES, "view": VIEW, "rounds": ROUNDS, "images": len(sources), "source": kind, "jpeg": 90}
    with Decoder(DecodeLimits(), workers=1) as decoder:
        for size in SIZES:
            images = [encode(picture, size) for picture in sources]
            seconds = interleave(
                {
                    "reference": lambda images=images: [reference(data) for data in images],
                    "ours": lambda images=images: ours(decoder, pdq, images),
                    "ours, default hashes and views": lambda images=images: ours_by_default(
                        decoder, hashes, images
                    ),
                    "decode in the isolated worker": lambda images=images: transfer(decoder, images),
                    **steps(pdq, images),
                },
                rounds=ROUNDS,
            )
            per_image = {name: statistics.median(values) / len(images) * 1e3 for name, values in seconds.items()}
            ratio = median_ratio(seconds["reference"], seconds["ours"])
            default = median_ratio(seconds["reference"], seconds[BY_DEFAULT])
            pdq_ratio = median_ratio(seconds["pdqhash"], seconds["PDQ x 8"])
            ratios = {"ratio": ratio, "default_ratio": default, "pdq_ratio": pdq_ratio}
            rows.append({"size": size, "ms_per_image": per_image, **ratios})
            print(f"{size[0]}x{size[1]}: {ratio:.1f}x the reference, PDQ alone {pdq_ratio:.1f}x pdqhash")
            print(f"    with every default hash and view {default:.1f}x")
            for name, value in per_image.items():
                print(f"    {name:<32}{value:8.3f} ms")
    print(save("host_path", plan, {"results": rows}))


if __name__ == "__main__":
    main()
