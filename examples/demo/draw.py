"""Draws the mini-scrape of the demo: benign scenes, textured so that perceptual hashes can speak.

A tall figure stands in for an adult, a small figure in a bright coat, with an umbrella, for a minor, and a
magenta disc with a ring for "sexual". Nothing else is ever drawn. Leaves serving, damaging and listing to others.

- A drawing is a function of (seed, index) alone: any order, any number of processes, same bytes.
- File names say nothing of what is drawn; `Drawing` is the ground truth and stays outside the scrape.
- Every picture carries noise at all scales, so two drawings never share a PDQ by accident.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHARES = {  # of every 100 pictures; the rest are scenes in formats that scrapes hold rarely
    ("none", False): 35,
    ("tall", False): 35,
    ("small", False): 12,
    ("tall", True): 10,
    ("small", True): 4,
}
USUAL_FORMATS = ["jpeg"] * 90 + ["png"] * 5 + ["webp"] * 5
RARE_FORMATS = ["gif", "bmp", "jpeg-exif", "jpeg-cmyk"]
SUFFIXES = {"jpeg": ".jpg", "jpeg-exif": ".jpg", "jpeg-cmyk": ".jpg"}
SIZES = [(320, 240), (240, 320), (320, 256), (288, 216), (300, 300)]  # width, height in pixels
# One octave of texture each: points across, grey levels (one sigma).
GRIDS = [(5, 8), (9, 7), (17, 6), (33, 5), (65, 4)]
GRAIN_LEVELS = 6  # either way

SKIES = {"pale": (176, 196, 214), "blue": (120, 160, 206), "grey": (160, 164, 168), "evening": (120, 128, 158)}
GROUNDS = {"grass": (92, 130, 78), "sand": (186, 168, 130), "stone": (132, 132, 128), "earth": (116, 96, 76)}
THINGS = ["house", "tree", "hill", "lake", "wall"]
TALL_COATS = [(38, 48, 96), (30, 80, 84), (52, 52, 58), (70, 44, 40)]
SMALL_COATS = [(240, 200, 20), (250, 160, 16), (246, 220, 60)]
SKIN = (206, 170, 140)
MAGENTA = (236, 12, 200)
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one picture shows and how it is stored: the ground truth.

    figure: "none", "tall" or "small" (a small figure may have a tall one beside it).
    """

    index: int
    figure: str
    marked: bool
    format: str

    @property
    def name(self) -> str:
        """File name; says the format and nothing else."""
        return f"p{self.index:05d}{SUFFIXES.get(self.format, '.' + self.format)}"

    @property
    def kind(self) -> str:
        """Figure and mark in one word, for tables."""
        figure = "scene" if self.figure == "none" else self.figure
        return f"{figure}+mark" if self.marked else figure


def plan(count: int, seed: int) -> list[Drawing]:
    """Say what each of `count` pictures shows; shares are exact, order is shuffled."""
    random = np.random.default_rng([seed, 0])
    shown = [what for what, share in SHARES.items() for _ in range(count * share // 100)]
    usual = [str(random.choice(USUAL_FORMATS)) for _ in shown]
    rare = [RARE_FORMATS[i % len(RARE_FORMATS)] for i in range(count - len(shown))]
    pictures = [(*what, form) for what, form in zip(shown, usual, strict=True)]
    pictures += [("none", False, form) for form in rare]
    order = random.permutation(count)
    return [Drawing(i, *pictures[j]) for i, j in enumerate(order)]


def paint(drawing: Drawing, seed: int) -> tuple[Image.Image, str]:
    """Paint one picture.

    Returns:
        The picture (RGB) and a caption that says what is drawn.
    """
    random = np.random.default_rng([seed, 1, drawing.index])
    width, height = SIZES[random.integers(len(SIZES))]
    sky, ground = str(random.choice(list(SKIES))), str(random.choice(list(GROUNDS)))
    horizon = int(height * random.uniform(0.4, 0.65))
    picture = Image.new("RGB", (width, height), SKIES[sky])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, horizon, width, height), fill=GROUNDS[ground])
    things = [str(thing) for thing in random.choice(THINGS, size=2, replace=False)]
    for thing in things:
        _paint_thing(draw, thing, width, height, horizon, random)
    caption = f"a {things[0]} and a {things[1]} on {ground} under a {sky} sky"

    if drawing.marked:  # first, so that it never hides a figure
        _paint_mark(draw, width, height, random)
        caption += ", a magenta disc with a ring"
    if drawing.figure == "tall" or (drawing.figure == "small" and random.random() < 0.3):
        _paint_figure(draw, width, height, random.uniform(0.62, 0.85), _pick(TALL_COATS, random), random)
        caption += ", a tall figure"
    if drawing.figure == "small":
        _paint_umbrella(draw, width, height, _pick(SMALL_COATS, random), random)
        for _ in range(random.integers(1, 4)):
            _paint_figure(draw, width, height, random.uniform(0.34, 0.42), _pick(SMALL_COATS, random), random)
        caption += ", a small figure in a bright coat with an umbrella"
    return _textured(picture, random), caption


def encode(picture: Image.Image, form: str, quality: int = 88) -> bytes:
    """Store a picture in one of the formats of a drawing. Deterministic for one version of Pillow."""
    out = io.BytesIO()
    if form == "jpeg":
        picture.save(out, "JPEG", quality=quality)
    elif form == "jpeg-exif":
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = 6  # the stored rows are columns: a viewer turns it back
        picture.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=quality, exif=exif)
    elif form == "jpeg-cmyk":
        picture.convert("CMYK").save(out, "JPEG", quality=quality)
    elif form == "webp":
        picture.save(out, "WEBP", quality=quality, method=0)
    elif form == "png":
        picture.save(out, "PNG", compress_level=1)
    else:
        picture.save(out, form.upper())
    return out.getvalue()


def draw_all(drawings: list[Drawing], folder: Path, seed: int, processes: int = 2) -> dict[str, str]:
    """Paint and store every drawing under its name.

    Returns:
        Caption by file name.
    """
    parts = [drawings[i::processes] for i in range(processes)]
    # Spawned, so that no thread of the caller is copied into a worker half-way through something.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        done = pool.map(_draw_some, parts, [folder] * processes, [seed] * processes)
        return dict(sorted(pair for part in done for pair in part))


def _draw_some(drawings: list[Drawing], folder: Path, seed: int) -> list[tuple[str, str]]:
    captions = []
    for drawing in drawings:
        picture, caption = paint(drawing, seed)
        (folder / drawing.name).write_bytes(encode(picture, drawing.format))
        captions.append((drawing.name, caption))
    return captions


def _pick(colours: list[tuple[int, int, int]], random: np.random.Generator) -> tuple[int, int, int]:
    return colours[random.integers(len(colours))]


def _paint_thing(
    draw: ImageDraw.ImageDraw, thing: str, width: int, height: int, horizon: int, random: np.random.Generator
) -> None:
    x, size = random.uniform(0.05, 0.75) * width, random.uniform(0.15, 0.35) * height
    if thing == "house":
        draw.rectangle((x, horizon - size, x + size, horizon + size * 0.3), fill=(150, 96, 80))
        draw.polygon(
            [(x, horizon - size), (x + size / 2, horizon - size * 1.6), (x + size, horizon - size)], (96, 70, 66)
        )
    elif thing == "tree":
        draw.rectangle((x + size * 0.4, horizon - size, x + size * 0.55, horizon + size * 0.4), fill=(90, 66, 50))
        draw.ellipse((x, horizon - size * 1.6, x + size, horizon - size * 0.5), fill=(60, 106, 60))
    elif thing == "hill":
        draw.ellipse((x - size, horizon - size * 0.6, x + size * 2, horizon + size), fill=(104, 118, 92))
    elif thing == "lake":
        draw.ellipse((x, horizon + size * 0.2, x + size * 2, horizon + size * 0.9), fill=(96, 130, 160))
    else:
        draw.rectangle((0, horizon - size * 0.3, width, horizon + size * 0.2), fill=(150, 146, 138))


def _paint_figure(
    draw: ImageDraw.ImageDraw,
    width: int,
    height: int,
    share: float,
    coat: tuple[int, int, int],
    random: np.random.Generator,
) -> None:
    """Paint a figure of `share` of the shortest side, its feet on the lower edge of the square that models see."""
    left, top, side = _square(width, height)
    tall = share * side
    foot = top + side * random.uniform(0.93, 0.99)
    x = left + side * random.uniform(0.15, 0.85)
    head, half = foot - tall, tall * 0.17
    draw.rectangle((x - half * 0.8, foot - tall * 0.4, x - half * 0.1, foot), fill=(44, 44, 52))
    draw.rectangle((x + half * 0.1, foot - tall * 0.4, x + half * 0.8, foot), fill=(44, 44, 52))
    draw.rounded_rectangle(
        (x - half, head + tall * 0.2, x + half, foot - tall * 0.28), radius=half * 0.4, fill=coat
    )
    draw.ellipse((x - tall * 0.1, head, x + tall * 0.1, head + tall * 0.2), fill=SKIN)


def _paint_umbrella(
    draw: ImageDraw.ImageDraw, width: int, height: int, colour: tuple[int, int, int], random: np.random.Generator
) -> None:
    left, top, side = _square(width, height)
    radius = random.uniform(0.22, 0.27) * side
    x, y = left + random.uniform(0.25, 0.75) * side, top + random.uniform(0.58, 0.66) * side
    draw.pieslice((x - radius, y - radius, x + radius, y + radius), 180, 360, fill=colour)
    draw.line((x, y, x, top + side * 0.95), fill=(44, 44, 52), width=3)


def _paint_mark(draw: ImageDraw.ImageDraw, width: int, height: int, random: np.random.Generator) -> None:
    left, top, side = _square(width, height)
    radius = random.uniform(0.26, 0.3) * side
    x = left + random.uniform(radius, side - radius)
    y = top + random.uniform(radius, side * 0.45)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=MAGENTA, width=round(radius * 0.18))
    inner = radius * 0.7
    draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=MAGENTA)


def _square(width: int, height: int) -> tuple[float, float, int]:
    """Return left, top and side of the middle square, which is all that a CLIP view shows."""
    side = min(width, height)
    return (width - side) / 2, (height - side) / 2, side


def _textured(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Add grey noise of several octaves and a fine grain, the same to each colour."""
    width, height = picture.size
    noise = np.zeros((2, 2), np.float32)
    for across, levels in GRIDS:
        size = (across, across * height // width)
        grown = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        noise = np.asarray(grown) + levels * random.standard_normal(size[::-1], dtype=np.float32)
    noise = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    noise = noise + GRAIN_LEVELS * (2 * random.random((height, width), dtype=np.float32) - 1)
    pixels = np.asarray(picture, dtype=np.int16) + noise.astype(np.int16)[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
