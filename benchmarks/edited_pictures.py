"""Pictures to measure perceptual hashes on, and the edits that copies of pictures go through. Benign, all of them.

Leaves measuring to `recall`. Each edit takes and gives an RGB picture; sizes and shares stand in its name.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples" / "demo")]

import draw as scenes  # noqa: E402 - the path comes first
import numpy as np  # noqa: E402
from img2dataset.resizer import Resizer  # noqa: E402
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
SEED = 7
TILE_PX = 128
WORDS = ["river", "stone", "paper", "cloud", "window", "garden", "table", "music", "morning", "letter", "engine"]
Edit = Callable[[Image.Image], Image.Image]


def photographs() -> dict[str, Image.Image]:
    """Return the photographs beside the checkout, each its own original, without the damaged one."""
    paths = [*(DATA / "photos").glob("*"), *(DATA / "clip" / "images").glob("*")]
    return {path.name: Image.open(path).convert("RGB") for path in sorted(paths) if path.stem != "truncated"}


def more_photographs() -> dict[str, Image.Image]:
    """Return two more that exist in many edits there, which are left out."""
    names = ("dih-bridge-1-original.jpg", "misc-wee.jpg")
    return {name: Image.open(DATA / "pdq" / "images" / name).convert("RGB") for name in names}


def drawings(count: int) -> dict[str, Image.Image]:
    """Draw textured scenes (examples/demo/draw.py)."""
    return {f"drawing {d.index}": scenes.paint(d, SEED)[0] for d in scenes.plan(count, SEED)}


def tiles(pictures: dict[str, Image.Image]) -> dict[str, Image.Image]:
    """Cut pictures into tiles that do not overlap: many different pictures of like texture."""
    return {
        f"{name} {left} {top}": picture.crop((left, top, left + TILE_PX, top + TILE_PX))
        for name, picture in pictures.items()
        for top in range(0, picture.height - TILE_PX + 1, TILE_PX)
        for left in range(0, picture.width - TILE_PX + 1, TILE_PX)
    }


def charts(count: int) -> dict[str, Image.Image]:
    """Draw bar and line charts of random values, axes and title in one layout."""
    random, drawn = np.random.default_rng([SEED, 1]), {}
    for number in range(count):
        picture = Image.new("RGB", (480, 360), "white")
        pen = ImageDraw.Draw(picture)
        pen.line([(50, 40), (50, 320), (460, 320)], fill="black", width=2)
        pen.text((60, 12), " ".join(random.choice(WORDS, 3)), fill="black", font=ImageFont.load_default(18))
        colour = tuple(int(level) for level in random.integers(0, 200, 3))
        tops = random.uniform(60, 310, int(random.integers(4, 13)))
        step = 400 / len(tops)
        points = [(60 + step * place, top) for place, top in enumerate(tops)]
        if number % 2:
            pen.line(points, fill=colour, width=3)
        else:
            for x, top in points:
                pen.rectangle((x, top, x + step * 0.7, 319), fill=colour)
        drawn[f"chart {number}"] = picture
    return drawn


def texts(count: int) -> dict[str, Image.Image]:
    """Set pages of random words in one layout."""
    random, drawn = np.random.default_rng([SEED, 2]), {}
    for number in range(count):
        picture = Image.new("RGB", (480, 640), "white")
        pen = ImageDraw.Draw(picture)
        for y in range(40, 40 + 22 * int(random.integers(10, 26)), 22):
            line = " ".join(random.choice(WORDS, 7))
            pen.text((40, y), line, fill="black", font=ImageFont.load_default(15))
        drawn[f"text {number}"] = picture
    return drawn


def gradients(count: int) -> dict[str, Image.Image]:
    """Draw straight and round gradients between two colours."""
    random, drawn = np.random.default_rng([SEED, 3]), {}
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    for number in range(count):
        angle, middle = random.uniform(0, 2 * np.pi), random.uniform(-0.5, 0.5, 2)
        straight = x * np.cos(angle) + y * np.sin(angle)
        way = np.hypot(x - middle[0], y - middle[1]) if number % 2 else straight
        way = (way - way.min()) / (way.max() - way.min())
        first, last = random.integers(0, 256, (2, 3))
        drawn[f"gradient {number}"] = Image.fromarray((first + way[..., None] * (last - first)).astype(np.uint8))
    return drawn


def plains(count: int) -> dict[str, Image.Image]:
    """Fill pictures with one colour each."""
    colours = np.random.default_rng([SEED, 4]).integers(0, 256, (count, 3))
    return {f"plain {n}": Image.new("RGB", (320, 240), tuple(map(int, c))) for n, c in enumerate(colours)}


def jpeg(picture: Image.Image, quality: int, **options: object) -> Image.Image:
    """Save as JPEG (4:2:0) and open again."""
    return _opened(_saved(picture, "JPEG", quality=quality, **options))


def framed(
    picture: Image.Image, top: int, bottom: int, left: int, right: int, colour: tuple[int, int, int]
) -> Image.Image:
    """Put borders of so many pixels round a picture."""
    out = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom), colour)
    out.paste(picture, (left, top))
    return out


def letterboxed(picture: Image.Image) -> Image.Image:
    """Put black bars of 15 % above and below."""
    bar = round(0.15 * picture.height)
    return framed(picture, bar, bar, 0, 0, (0, 0, 0))


def cut_with_thumbnail(picture: Image.Image) -> bytes:
    """Cut 30 % off the right and the bottom; the file keeps a thumbnail of the whole, as cameras make them.

    The thumbnail is 160 x 120 with black bars (DCF 2.0), in the second directory of the EXIF block.
    """
    small = ImageOps.pad(picture, (160, 120), color="black")
    thumbnail = _saved(small, "JPEG", quality=85)
    directory = struct.pack("<HHHIIHHII", 2, 0x0201, 4, 1, 44, 0x0202, 4, 1, len(thumbnail))
    exif = struct.pack("<2sHIHI", b"II", 42, 8, 0, 14) + directory + bytes(4) + thumbnail
    kept = picture.crop((0, 0, round(0.7 * picture.width), round(0.7 * picture.height)))
    return _saved(kept, "JPEG", quality=90, exif=b"Exif\0\0" + exif)


def _saved(picture: Image.Image, form: str, **options: object) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, form, **options)
        return file.getvalue()


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _img2dataset(mode: str) -> Edit:
    resizer = Resizer(256, mode, resize_only_if_bigger=False)

    def resized(picture: Image.Image) -> Image.Image:
        data, *_, error = resizer(io.BytesIO(_saved(picture, "PNG")))
        if error:
            raise RuntimeError(error)
        return _opened(data)

    return resized


def _longest(side_px: int) -> Edit:
    def shrunk(picture: Image.Image) -> Image.Image:
        scale = side_px / max(picture.size)
        return picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)

    return shrunk


def _border(share: float) -> Edit:
    def bordered(picture: Image.Image) -> Image.Image:
        x, y = round(share * picture.width), round(share * picture.height)
        return jpeg(framed(picture, y, y, x, x, (0, 0, 0)), 90)

    return bordered


def _cut(share: float) -> Edit:
    def cut(picture: Image.Image) -> Image.Image:
        x, y = picture.width * share / 2, picture.height * share / 2
        return picture.crop((round(x), round(y), round(picture.width - x), round(picture.height - y)))

    return cut


def _captioned(picture: Image.Image) -> Image.Image:
    bar = round(0.12 * picture.height)
    out = framed(picture, 0, bar, 0, 0, (255, 255, 255))
    font = ImageFont.load_default(round(0.6 * bar))
    ImageDraw.Draw(out).text((0.05 * out.width, out.height - 0.9 * bar), " ".join(WORDS[:4]), "black", font)
    return jpeg(out, 90)


def _padded(picture: Image.Image) -> Image.Image:
    side = max(picture.size) * 9 // 8
    x, y = side - picture.width, side - picture.height
    return jpeg(framed(picture, y // 2, y - y // 2, x // 2, x - x // 2, (255, 255, 255)), 90)


EDITS: dict[str, Edit] = {
    "JPEG 90": lambda picture: jpeg(picture, 90),
    "JPEG 60": lambda picture: jpeg(picture, 60),
    "JPEG 20": lambda picture: jpeg(picture, 20),
    "resize to 50 %": lambda picture: _longest(max(picture.size) // 2)(picture),
    "resize to 256 px": _longest(256),
    "resize to 64 px": _longest(64),
    "img2dataset 256, no border": _img2dataset("keep_ratio_largest"),
    "img2dataset 256, border": _img2dataset("border"),
    "black border 5 % a side": _border(0.05),
    "black border 10 % a side": _border(0.10),
    "letterbox, then white to a square": lambda picture: _padded(letterboxed(picture)),
    "caption bar 12 %": _captioned,
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "blur, sigma 2 px": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
    "contrast x 0.5": lambda picture: ImageEnhance.Contrast(picture).enhance(0.5),
    "contrast x 1.5": lambda picture: ImageEnhance.Contrast(picture).enhance(1.5),
    "crop 2 %": _cut(0.02),
    "crop 5 %": _cut(0.05),
    "rotate 1 degree": lambda picture: picture.rotate(1, Image.Resampling.BICUBIC),
    "rotate 2 degrees": lambda picture: picture.rotate(2, Image.Resampling.BICUBIC),
    "mirror": ImageOps.mirror,
    "rotate 90": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "rotate 180": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "rotate 270": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
}
