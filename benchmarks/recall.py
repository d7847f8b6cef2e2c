"""How often is an edited copy still found by its original's code, and how often do two different pictures match?

Recall: distance 31 or less between code 0 of the original, as a list would hold it, and any usable code of any
default kind, view and variant of the copy; beside it `pdq:fullres` of the oriented picture alone, and pdqhash 0.2.8
on the copy's own pixels. Then how exactly borders are found, and the pairs of different pictures that match. Writes
JSON, and the tables of docs/recall.md.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import edited_pictures as pictures  # noqa: E402 - the paths come first
import numpy as np  # noqa: E402
import pdqhash  # noqa: E402
from measuring import save  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.stats import beta  # noqa: E402

from classifiers.hashes.pdq import Pdq  # noqa: E402
from classifiers.hashes.registry import find_kind  # noqa: E402
from classifiers.hashes.views import ORIENTED, VIEW_NAMES, Bounds, picture_views, strip_border  # noqa: E402
from classifiers.signals import Pixels  # noqa: E402
from pipeline.config import THUMBNAIL as THUMBNAIL_VIEW  # noqa: E402
from pipeline.config import HashesConfig  # noqa: E402
from pipeline.exif_thumbnail import find_thumbnail  # noqa: E402

PAGE = ROOT / "docs" / "recall.md"
RADIUS, CONFIDENCE = 31, 0.95
DRAWINGS, MORE_DRAWINGS, OTHERS = 48, 400, 60
ALL = ("JPEG 90", "JPEG 60", "JPEG 20", "mirror", "rotate 90", "rotate 180", "rotate 270")
RESIZES = ("resize to 50 %", "resize to 256 px", "resize to 64 px")
BARE, PADDED = "img2dataset 256, no border", "img2dataset 256, border"
BARS_TWICE = "letterbox, then white to a square"
THUMBNAIL = "crop 30 %, thumbnail left in the file"
BORDER_COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "any": None}
QUALITIES = (90, 75, 60)
PDQ = Pdq()
DEFAULTS = HashesConfig()
KINDS = tuple(find_kind(name) for name in DEFAULTS.kinds)
VIEWS = tuple(name for name in DEFAULTS.views if name in VIEW_NAMES)
ALONE = f"{PDQ.name}.{ORIENTED}"
DEFAULT, AS_IT_IS, CODE_0 = "default", "as it is", "as it is, code 0"
Counts = dict[str, int]


def array(picture: Image.Image) -> Pixels:
    """Return the pixels of a picture."""
    return np.asarray(picture.convert("RGB"))


def usable_codes(pixels: Pixels, prefix: str = "") -> dict[str, NDArray[np.uint8]]:
    """Return the usable codes of every default kind and view of an upright picture, eight each, by column."""
    found = {}
    for name, view in picture_views(pixels, 1, VIEWS):
        for kind in KINDS:
            code = kind.encode(view)
            if code is not None and code.usable:
                found[f"{kind.name}.{prefix}{name}"] = code.codes
    return found


def hits(code: NDArray[np.uint8], codes: Iterable[NDArray[np.uint8]]) -> bool:
    """Say whether any of the codes lies within the radius."""
    return any(int(np.bitwise_count(each ^ code).sum(axis=1).min()) <= RADIUS for each in codes)


def count_hits(original: NDArray[np.uint8], copy: Pixels, thumbnail: Pixels | None, counts: Counts) -> None:
    """Match one copy against one code and add to the counts."""
    codes = usable_codes(copy)
    if thumbnail is not None and THUMBNAIL_VIEW in DEFAULTS.views:
        codes |= usable_codes(thumbnail, "thumbnail ")
    bits, quality = pdqhash.compute(copy)
    theirs = int((np.packbits(bits) != original).any()) and int(
        np.bitwise_count(np.packbits(bits) ^ original).sum()
    )
    counts["n"] += 1
    alone = [codes[ALONE]] if ALONE in codes else []
    counts[DEFAULT] += hits(original, codes.values())
    counts[AS_IT_IS] += hits(original, alone)
    counts[CODE_0] += hits(original, [code[:1] for code in alone])
    counts["pdqhash"] += quality >= 50 and theirs <= RADIUS


def recall(originals: dict[str, Image.Image]) -> dict[str, Counts]:
    """Count hits by edit."""
    names = [*pictures.EDITS, f"{BARS_TWICE}; listed with its bars", THUMBNAIL]
    table = {name: dict.fromkeys(("n", DEFAULT, AS_IT_IS, CODE_0, "pdqhash"), 0) for name in names}
    for original in originals.values():
        code = PDQ.encode(array(original))
        assert code is not None
        assert code.usable
        for name, edit in pictures.EDITS.items():
            count_hits(code.codes[0], array(edit(original)), None, table[name])
        barred = PDQ.encode(array(pictures.letterboxed(original)))
        assert barred is not None
        count_hits(barred.codes[0], array(pictures.EDITS[BARS_TWICE](original)), None, table[names[-2]])
        data = pictures.cut_with_thumbnail(original)
        thumbnail = find_thumbnail(data)
        assert thumbnail is not None
        opened = [array(Image.open(io.BytesIO(each))) for each in (data, thumbnail)]
        count_hits(code.codes[0], opened[0], opened[1], table[THUMBNAIL])
    return table


def lower_bound(count: int, n: int) -> float:
    """Return the one-sided Clopper-Pearson bound of a share."""
    return float(beta.ppf(1 - CONFIDENCE, count, n - count + 1)) if count else 0.0


def border_cases(original: Image.Image, random: np.random.Generator) -> Iterator[tuple[str, Image.Image, Bounds]]:
    """Yield bordered copies: up to 15 % a side, each side missing in one case of three."""
    width, height = original.size
    for name, fixed in BORDER_COLOURS.items():
        colour = fixed or tuple(int(level) for level in random.integers(0, 256, 3))
        widest = np.array([height, height, width, width]) * 0.15
        sides = [int(side) for side in random.integers(1, widest.astype(int) + 2) * (random.random(4) > 1 / 3)]
        inside = Bounds(sides[0], sides[0] + height, sides[2], sides[2] + width)
        yield name, pictures.framed(original, *sides, colour), inside


def borders(groups: dict[str, dict[str, Image.Image]]) -> dict[str, dict[str, Counts]]:
    """Count borders found within 1 px on each side, on pictures without one of their own."""
    table: dict[str, dict[str, Counts]] = {}
    for group, originals in groups.items():
        random = np.random.default_rng([pictures.SEED, 5])
        counts = {f"JPEG {quality}": {"pictures": 0, "n": 0, "within 1 px": 0} for quality in QUALITIES}
        for original in originals.values():
            if strip_border(array(original)) is not None:
                continue
            for count in counts.values():
                count["pictures"] += 1
            for _, bordered, inside in border_cases(original, random):
                for quality in QUALITIES:
                    found = strip_border(array(pictures.jpeg(bordered, quality)))
                    found = found or Bounds(0, bordered.height, 0, bordered.width)
                    sides = ("top", "bottom", "left", "right")
                    off = max(abs(getattr(found, side) - getattr(inside, side)) for side in sides)
                    counts[f"JPEG {quality}"]["n"] += 1
                    counts[f"JPEG {quality}"]["within 1 px"] += off <= 1
        table[group] = counts
    return table


def false_matches(group: dict[str, Image.Image]) -> dict[str, object]:
    """Compare all pairs of different pictures: every usable code of one with every first code of the other."""
    codes = [codes for picture in group.values() if (codes := usable_codes(array(picture)))]
    found: dict[str, object] = {"pictures": len(group), "usable": len(codes)}
    pairs = len(codes) * (len(codes) - 1) // 2
    if not pairs:
        return found | {"pairs": 0, "matching": 0, "nearest": None, "share": None}
    every = [np.concatenate(list(views.values())) for views in codes]
    first = [np.stack([view[0] for view in views.values()]) for views in codes]
    signs = [np.unpackbits(np.concatenate(side), axis=1) * np.float32(2) - 1 for side in (every, first)]
    distances = (256 - signs[0] @ signs[1].T) / 2
    for axis, side in enumerate((every, first)):
        starts = np.cumsum([0, *(len(one) for one in side[:-1])])
        distances = np.minimum.reduceat(distances, starts, axis=axis)
    nearest = np.minimum(distances, distances.T)[np.triu_indices(len(codes), 1)]
    matching = int((nearest <= RADIUS).sum())
    # 3 / n where there is none, else the one-sided Clopper-Pearson bound
    most = 3 / pairs if not matching else float(beta.ppf(CONFIDENCE, matching + 1, pairs - matching))
    return found | {"pairs": pairs, "matching": matching, "nearest": int(nearest.min()), "share at most": most}


def bars(table: dict[str, dict[str, Counts]], found: dict[str, dict[str, Counts]]) -> dict[str, bool]:
    """Say which of the promised figures hold, photographs and drawings together."""
    both = table["together"]
    return {
        "JPEG, mirror, right angles: all of n by default": all(both[e][DEFAULT] == both[e]["n"] for e in ALL),
        "resize: equal to pdqhash": all(both[e][CODE_0] == both[e]["pdqhash"] for e in RESIZES),
        "border then strip: at most one more miss": both[PADDED][DEFAULT] >= both[BARE][DEFAULT] - 1,
        "bounds within 1 px at JPEG 90: 95 %": all(
            count["JPEG 90"]["within 1 px"] >= 0.95 * count["JPEG 90"]["n"] for count in found.values()
        ),
    }


def tables(results: dict[str, object]) -> dict[str, str]:
    """Write the tables of the page, by marker."""
    recalls, found, pairs = results["recall"], results["bounds"], results["false_matches"]
    lines = [
        "| edit | photographs | drawings | together | at least | oriented `pdq:fullres` alone | pdqhash |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, all_of in recalls["together"].items():
        parts = [f"{recalls[group][name][DEFAULT]}/{recalls[group][name]['n']}" for group in recalls]
        parts += [f"{lower_bound(all_of[DEFAULT], all_of['n']):.3f}"]
        parts += [f"{all_of[key]}/{all_of['n']}" for key in (AS_IT_IS, "pdqhash")]
        lines.append(f"| {name} | {' | '.join(parts)} |")
    bound_lines = ["| pictures | saved as | bordered copies | within 1 px |", "|---|---|---|---|"]
    for group, counts in found.items():
        for quality, c in counts.items():
            share = f"{c['within 1 px']} ({c['within 1 px'] / c['n']:.1%})"
            bound_lines.append(f"| {c['pictures']} {group} | {quality} | {c['n']} | {share} |")
    pair_lines = [
        "| pictures | usable | pairs | at 31 or less | nearest | share at most |",
        "|---|---|---|---|---|---|",
    ]
    for group, row in pairs.items():
        tail = (
            "- | - | -"
            if not row["pairs"]
            else f"{row['matching']} | {row['nearest']} | {row['share at most']:.1e}"
        )
        pair_lines.append(f"| {row['pictures']} {group} | {row['usable']} | {row['pairs']:,} | {tail} |")
    held = [f"| {name} | {'held' if value else '**missed**'} |" for name, value in results["bars"].items()]
    return {
        "recall": "\n".join(lines),
        "bars": "\n".join(["| bar | |", "|---|---|", *held]),
        "bounds": "\n".join(bound_lines),
        "false-matches": "\n".join(pair_lines),
    }


def rewrite(page: Path, parts: dict[str, str]) -> None:
    """Put each table between its markers."""
    text = page.read_text()
    for name, table in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
        if count != 1:
            raise ValueError(f"{page.name}: expected the markers of {name!r} once, found them {count} times")
    page.write_text(text)


def main() -> None:
    """Measure, print the tables and write the figures."""
    photographs = pictures.photographs()
    if not photographs:
        raise SystemExit("the reference photographs (shared/data beside the checkout) are not here")
    drawings = pictures.drawings(DRAWINGS)
    table = {"photographs": recall(photographs), "drawings": recall(drawings)}
    table["together"] = {
        name: {key: row[key] + table["drawings"][name][key] for key in row}
        for name, row in table["photographs"].items()
    }
    found = borders({"photographs": photographs, "drawings": drawings})
    more = photographs | pictures.more_photographs()
    groups = {
        "photographs": more,
        "tiles of photographs": pictures.tiles(more),
        "drawings": pictures.drawings(MORE_DRAWINGS),
        "photographs and drawings": more | drawings,
        "charts": pictures.charts(OTHERS),
        "pages of text": pictures.texts(OTHERS),
        "gradients": pictures.gradients(OTHERS),
        "plain colours": pictures.plains(OTHERS),
    }
    pairs = {name: false_matches(group) for name, group in groups.items()}
    results = {"recall": table, "bounds": found, "false_matches": pairs, "bars": bars(table, found)}
    parts = tables(results)
    print(*parts.values(), sep="\n\n")
    rewrite(PAGE, parts)
    plan = {
        "radius": RADIUS,
        "kinds": DEFAULTS.kinds,
        "views": DEFAULTS.views,
        "photographs": len(photographs),
        "drawings": DRAWINGS,
    }
    plan |= {"edits": list(table["together"]), "qualities": QUALITIES, "seed": pictures.SEED}
    print(save("recall", plan, results))


if __name__ == "__main__":
    main()
