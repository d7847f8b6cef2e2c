"""Markup and inline SVG for reports: what escapes every text, a bar, a histogram.

Owns escaping: a text that is not `Html` is escaped wherever it is put in. Colours are classes of the page's style,
so that dark, light and print are one drawing; nothing here needs a script or a file.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

_WIDTH, _LEFT, _TOP, _BASE = 360, 40, 34, 150  # of a histogram's drawing, in its own units
_PLOT = _WIDTH - _LEFT - 10
_THOUSANDS = ("", "k", "M", "G", "T")


class Html(str):
    """Markup, made here from escaped parts."""

    __slots__ = ()


def join(*parts: object) -> Html:
    """Return the parts in a row, each escaped unless it is markup."""
    return Html("".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts))


def tag(name: str, *parts: object, **attributes: object) -> Html:
    """Return an element; `class_` stands for `class`, and any other underscore for a hyphen."""
    said = (f' {key.rstrip("_").replace("_", "-")}="{join(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{''.join(said)}>{join(*parts)}</{name}>")


def share_bar(kept: int, lost: int, whole: int) -> Html:
    """Return a bar of what is left of `whole` and, paler, of what this step took."""
    left, right = (100 * count / max(1, whole) for count in (kept, lost))
    parts = (
        tag("rect", x=0, width=100, height=8, class_="track"),
        tag("rect", x=0, width=f"{left:.3f}", height=8, class_="kept"),
        tag("rect", x=f"{left:.3f}", width=f"{right:.3f}", height=8, class_="lost"),
    )
    box = {"viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria-hidden": "true"}
    return tag("svg", *parts, class_="bar", **box)


def histogram(
    name: str, every: Sequence[int], kept: Sequence[int], bars: Sequence[tuple[float, str]], *, is_score: bool
) -> Html:
    """Return the counts of equal bins, the kept ones before all, on a logarithmic scale; bars are (place, label).

    Scores lie between 0 and 1; else a bin is a whole number and what lies beyond the last is in it.
    """
    end = 1.0 if is_score else float(len(every))
    top = max(1, *every)
    step = _PLOT / len(every)

    def height(count: int) -> float:
        return (_BASE - _TOP) * math.log10(1 + count) / math.log10(1 + top)

    parts = []
    for power in range(len(str(top))):
        y = _BASE - height(10**power)
        parts.append(tag("line", x1=_LEFT, x2=_LEFT + _PLOT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        label = f"{10 ** (power % 3)}{_THOUSANDS[power // 3]}"
        parts.append(tag("text", label, x=_LEFT - 4, y=f"{y + 3:.1f}", text_anchor="end"))
    for place, (count, of_kept) in enumerate(zip(every, kept, strict=True)):
        told = tag("title", f"from {place * end / len(every):g}: {count:,} samples, {of_kept:,} of them kept")
        for number, style in ((count, "lost"), (of_kept, "kept")):
            if number:
                box = {"x": f"{_LEFT + place * step + 0.4:.2f}", "y": f"{_BASE - height(number):.2f}"}
                size = {"width": f"{step - 0.8:.2f}", "height": f"{height(number):.2f}"}
                parts.append(tag("rect", told, class_=style, **box, **size))
    for place in range(5):
        x, value = _LEFT + place * _PLOT / 4, place * end / 4
        parts.append(tag("text", f"{value:g}", x=f"{x:.1f}", y=_BASE + 14, text_anchor="middle"))
    for row, (bar, label) in enumerate(bars):
        x = _LEFT + _PLOT * min(bar / end, 1)
        side, anchor = (-3, "end") if bar > 0.85 * end else (3, "start")
        y = 10 + 11 * (row % 2)
        parts.append(tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=y - 8, y2=_BASE, class_="threshold"))
        parts.append(tag("text", label, x=f"{x + side:.1f}", y=y, text_anchor=anchor, class_="threshold"))
    parts.append(tag("line", x1=_LEFT, x2=_LEFT + _PLOT, y1=_BASE, y2=_BASE, class_="axis"))
    box = {"viewBox": f"0 0 {_WIDTH} {_BASE + 20}", "role": "img", "aria-label": f"Histogram of {name}"}
    return tag("svg", *parts, class_="chart", **box)
