"""Named views of one picture, for hashes that see a picture whole: as stored, without its border.

Owns which views a picture has and where its border ends. Leaves hashing to the hash kinds, the embedded thumbnail
(bytes, not pixels) to whoever reads the file, and which views a run asks for to its configuration.

- A view is made only where it differs from the oriented picture. Border views are slices of it: no copy.
- Borders are told by luma alone, which is all that PDQ sees; whole numbers, so every machine finds the same.
- A line (row or column) is border while at most 1 in 50 of its pixels stands more than 12 grey levels from the
  median of the side's outermost line. Of long lines 512 to 1023 evenly spaced pixels are read.
- A border that fades is stripped up to 12 levels from its edge, once a layer; after 4 layers the rest stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifiers.signals import Pixels, check_pixels

ORIENTED: Final = "oriented"
STORED: Final = "stored"
STRIPPED: Final = "stripped"
STRIPPED_ONCE: Final = "stripped-once"
VIEW_NAMES: Final = (ORIENTED, STORED, STRIPPED, STRIPPED_ONCE)

TOLERANCE_LEVELS: Final = 12
STRAYS_ONE_IN: Final = 50
MAX_LAYERS: Final = 4
MIN_SIDE_PX: Final = 16
# A picture of 1:20 padded to a square still counts; one line of text on a page does not.
MIN_AREA_ONE_IN: Final = 20

# JPEG rings within its 8 x 8 blocks: the last lines of a border carry up to a fifth of what the picture's first
# lines do. Chosen on crops of photographs at JPEG 60, 75 and 90.
_RINGING_PX: Final = 8
_RINGING_ONE_IN: Final = 5

_LINE_SAMPLES: Final = 512
_LINES_AT_ONCE: Final = 64
_RED, _GREEN, _BLUE = np.uint16(77), np.uint16(150), np.uint16(29)  # BT.601 luma in 256ths


@dataclass(frozen=True, slots=True)
class Bounds:
    """The part of a picture inside its border: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, pixels: Pixels) -> Pixels:
        """Return that part of the picture: a slice, not a copy."""
        return pixels[self.top : self.bottom, self.left : self.right]


def picture_views(
    pixels: Pixels, orientation: int, wanted: Collection[str] = VIEW_NAMES
) -> Iterator[tuple[str, Pixels]]:
    """Yield the wanted views that the picture has, by name, in the order of `VIEW_NAMES`.

    Args:
        pixels: H x W x 3 uint8, RGB, upright.
        orientation: EXIF value (1 to 8) that was applied to make it upright.
        wanted: names out of `VIEW_NAMES`.

    Raises:
        ValueError: a name or the orientation is unknown, or the pixels have another shape or dtype.
    """
    if unknown := sorted(set(wanted).difference(VIEW_NAMES)):
        raise ValueError(f"views {unknown} are unknown: choose from {list(VIEW_NAMES)}")
    if ORIENTED in wanted:
        yield ORIENTED, pixels
    if STORED in wanted:
        stored = stored_view(pixels, orientation)
        if stored is not None:
            yield STORED, stored
    if STRIPPED in wanted or STRIPPED_ONCE in wanted:
        layers = border_layers(pixels)
        if STRIPPED in wanted and layers:
            yield STRIPPED, layers[-1].of(pixels)
        if STRIPPED_ONCE in wanted and layers[:-1]:
            yield STRIPPED_ONCE, layers[0].of(pixels)


def stored_view(pixels: Pixels, orientation: int) -> Pixels | None:
    """Turn an upright picture back to how its file stores it (EXIF 2.32, tag 274); None where nothing differs.

    Tools that ignore EXIF hash what is stored.

    Args:
        pixels: H x W x 3 uint8, RGB, upright.
        orientation: 1 to 8.

    Raises:
        ValueError: the orientation is unknown, or the pixels have another shape or dtype.
    """
    check_pixels(pixels)
    if orientation not in range(1, 9):
        raise ValueError(f"orientation {orientation} found: EXIF knows 1 to 8")
    if orientation == 1:
        return None
    whole = np.ascontiguousarray(pixels).view("V3")[..., 0]  # whole pixels move 3 times as fast as bytes
    if orientation in (2, 3, 6, 7):
        whole = whole[:, ::-1]
    if orientation in (3, 4, 7, 8):
        whole = whole[::-1]
    if orientation >= 5:
        whole = whole.T
    stored: Pixels = np.ascontiguousarray(whole).view(np.uint8).reshape(*whole.shape, 3)
    return stored


def stripped_view(pixels: Pixels) -> Pixels | None:
    """Return the picture without its border: a slice; None where it has none.

    Args:
        pixels: H x W x 3 uint8, RGB.

    Raises:
        ValueError: the array has another shape or dtype.
    """
    bounds = strip_border(pixels)
    return None if bounds is None else bounds.of(pixels)


def strip_border(pixels: Pixels) -> Bounds | None:
    """Find what is inside all borders of a picture; None where it has none. See `border_layers`."""
    layers = border_layers(pixels)
    return layers[-1] if layers else None


def border_layers(pixels: Pixels) -> tuple[Bounds, ...]:
    """Find what is inside each border of a picture, outermost first.

    One layer takes off every side whose outermost line is uniform, each side in its own colour; the next begins at
    what is left: a padded letterbox has two layers, a plain frame one. A layer that would leave less than 16 px of
    a side or 1/20 of the picture is none: a plain picture has no border.

    Args:
        pixels: H x W x 3 uint8, RGB.

    Returns:
        At most `MAX_LAYERS` bounds, each inside the one before; empty where the picture has no border.

    Raises:
        ValueError: the array has another shape or dtype.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    found: list[Bounds] = []
    inside = Bounds(0, height, 0, width)
    while len(found) < MAX_LAYERS and min(inside.of(pixels).shape[:2]) >= MIN_SIDE_PX:
        top, bottom, left, right = _layer(inside.of(pixels))
        if not top + bottom + left + right:
            break
        inside = Bounds(inside.top + top, inside.bottom - bottom, inside.left + left, inside.right - right)
        rows, columns = inside.bottom - inside.top, inside.right - inside.left
        if min(rows, columns) < MIN_SIDE_PX or rows * columns * MIN_AREA_ONE_IN < height * width:
            break
        found.append(inside)
    return tuple(found)


def _layer(pixels: Pixels) -> tuple[int, int, int, int]:
    """Return how many lines of the outermost border lie at the top, bottom, left and right; all of a plain one."""
    height, width = pixels.shape[:2]
    top, bottom = _depths(pixels)
    if top + bottom >= height:
        return top, bottom, 0, 0
    left, right = _depths(pixels.swapaxes(0, 1))
    if top + bottom and left + right and left + right < width:
        # Measured across the bars of the other axis, a line that only just reaches the picture looks like border.
        top, bottom = _depths(pixels[:, left : width - right], at_top=top > 0, at_bottom=bottom > 0)
        if top + bottom < height:
            rows = pixels[top : height - bottom]
            left, right = _depths(rows.swapaxes(0, 1), at_top=left > 0, at_bottom=right > 0)
    return top, bottom, left, right


def _depths(lines: Pixels, *, at_top: bool = True, at_bottom: bool = True) -> tuple[int, int]:
    """Return how many lines belong to the border at the top and at the bottom; together they may be too many."""
    top = _depth(lines) if at_top else 0
    return top, _depth(lines[::-1]) if at_bottom and top < len(lines) else 0


def _depth(lines: Pixels) -> int:
    """Return how many of the first lines (N x length x 3) belong to one border."""
    sampled = lines[:, :: max(1, lines.shape[1] // _LINE_SAMPLES)]
    colour = int(np.sort(_luma(sampled[0]))[sampled.shape[1] // 2])
    start, count = 0, 1  # nearly every picture ends at its first line
    while start < len(sampled):
        outside = _deviations(sampled[start : start + count], colour) > TOLERANCE_LEVELS
        if outside.any():
            first = start + int(outside.argmax())
            return _end_of_ringing(sampled, first, colour) if first else 0
        start, count = start + count, min(2 * count, _LINES_AT_ONCE)
    return len(lines)


def _end_of_ringing(lines: Pixels, first: int, colour: int) -> int:
    """Return where the picture begins, given the first line that is not plain border."""
    deviations = _deviations(lines[first : first + _RINGING_PX], colour)
    bar = max(TOLERANCE_LEVELS + 1, int(deviations.max()) // _RINGING_ONE_IN)
    return first + int((deviations >= bar).argmax())


def _deviations(lines: Pixels, colour: int) -> NDArray[np.int16]:
    """Return how far each line strays from the colour: its largest deviation, but for 1 pixel in 50."""
    off = np.abs(_luma(lines).astype(np.int16) - np.int16(colour))
    place = off.shape[1] - 1 - off.shape[1] // STRAYS_ONE_IN
    deviations: NDArray[np.int16] = np.partition(off, place, axis=1)[:, place]
    return deviations


def _luma(pixels: Pixels) -> NDArray[np.uint16]:
    weighted: NDArray[np.uint16] = pixels[..., 0] * _RED + pixels[..., 1] * _GREEN + pixels[..., 2] * _BLUE
    return weighted >> np.uint16(8)
