"""The pages of a report: the release version and the restricted one from one template, and the latter's JSON twin.

Owns looks; the words are in `templates/`. What stands between the marks `restricted` leaves the template of the
release version before that is filled in, from `ReleaseFacts` alone: a fact in the wrong place is an error, no leak.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from manifests import durable
from manifests.charts import Html, histogram, join, share_bar, tag
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.commits import FileDigest
from manifests.records import SCHEMA_VERSION, readable_json
from manifests.report import MAX_NAMED, Facts, ReleaseFacts, gather
from manifests.report_scores import Distribution

_RESTRICTED = re.compile(r"<!--restricted-->.*?<!--/restricted-->\n", re.DOTALL)
_MARK = re.compile(r"<!--/?restricted-->\n")
_SHORT = 20  # letters that a column does not break


def write_reports(
    collection: Collection, number: int, *, to: Path | None = None, imported: Mapping[str, str] | None = None
) -> tuple[FileDigest, ...]:
    """Write the reports of a closed settle; returns the files, named from the collection's root or from `to`.

    A settle that released nothing has no release version. Without `to` they lie in the folders of the settle and of
    the release, and the caller has to name them in a record. imported: see `gather`.

    Raises:
        FilesError: the records are damaged or do not agree.
        DurableError: `to` holds other reports.
    """
    facts = gather(collection, number, imported=imported)
    texts = {name: [html.unescape(line) for line in _text(name, facts)] for name in ("eu", "california")}
    twin = readable_json({"schema": SCHEMA_VERSION, "kind": "report", **asdict(facts), "texts": texts})
    settled, released = f"settled/{number:04d}", f"releases/{number:04d}"
    written = [(f"{settled}/report.html", restricted_page(facts).encode()), (f"{settled}/report.json", twin)]
    if facts.public.released:
        written.append((f"{released}/report.html", release_page(facts.public).encode()))
    for name, data in written:
        path = collection.path_of(name) if to is None else to / name
        public = name.startswith(released)
        durable.make_folder(path.parent, mode=0o755 if public else RESTRICTED_FOLDER_MODE)
        durable.write(path, data, replace=to is None, mode=0o644 if public else RESTRICTED_FILE_MODE)
    return tuple(FileDigest.of(name, data) for name, data in written)


def release_page(facts: ReleaseFacts) -> str:
    """Return the page that goes with a release."""
    steps = [("In", facts.samples, 0, ""), ("Kept", facts.kept, facts.not_kept, "not kept")]
    about = {"version": "release", "audience": "for those who train"}
    return _fill(_RESTRICTED.sub("", _read("report.html")), facts, funnel=_funnel(steps, facts), **about)


def restricted_page(facts: Facts) -> str:
    """Return the page of the restricted tier."""
    f, counts, decide = facts.public, facts.close.counts, facts.decide
    clear = counts.samples - counts.withheld
    steps = [
        ("In", counts.samples, 0, ""),
        ("Not withheld", clear, counts.withheld, "withheld"),
        ("Not removed", clear - counts.remove, counts.remove, "removed"),
        ("Kept" if f.released else "Would be kept", counts.keep, counts.quarantine, "quarantined"),
    ]
    rules = [
        (" ".join(shards), name, action, tag("code", when), counts.reasons.get(f"rule:{name}", 0))
        for shards, parts in decide["rules"]
        for name, action, when in parts
    ]
    keys = ("purpose", "entries", "radius", "canaries")
    named = ((f"{one['id']}@{one['version']}", one) for one in decide["lists"])
    lists = [
        (name, facts.imported.get(name, "not recorded"), *map(one.get, keys), tag("code", one["set_digest"]))
        for name, one in named
    ]
    bars = [
        (one.signal, f"{bar.op} {bar.bar:g}", bar.rule, bar.action, bar.reached, bar.kept)
        for one in facts.distributions
        for bar in one.bars
    ]
    signals = [(one.signal, one.known, one.unknown, one.none_near) for one in facts.distributions]
    actions = [*facts.actions, ("WITHHELD", "sealed", counts.withheld)]
    flooded = [tuple(asdict(one).values()) for one in facts.close.flooded]
    refused = [(line,) for line in facts.close.refused[:MAX_NAMED]]
    return _fill(
        _MARK.sub("", _read("report.html")),
        f,
        r=facts,
        version="restricted",
        audience="for the compliance team",
        clear=clear,
        funnel=_funnel(steps, f),
        actions=_table(f"All {f.samples:,} samples", "action reason samples", actions),
        rules=_table("Rules; samples are those in clear, by name", "shards rule action when samples", rules),
        charts=join(*(_figure(one) for one in facts.distributions if sum(map(bool, one.bins)) > 2)),
        signals=_table(f"What was known of {clear:,} samples", "signal known unknown none_near", signals),
        bars=_table(f"How many of {clear:,} samples reach a bar", "signal bar rule action reach_it kept", bars),
        lists=_table("Lists", "list imported purpose entries radius canaries set_digest", lists),
        flooded=_table("Entries beyond the hit cap", "list version algorithm entry samples", flooded),
        damaged=_table("Damaged shards", "shard damage", facts.inputs.damaged),
        refused=_table("Reasons against a release", "reason", refused),
        eu=join(*(tag("p", Html(line)) for line in _text("eu", facts))),
        california=tag("ul", *(tag("li", Html(line)) for line in _text("california", facts))),
    )


def _text(name: str, facts: Facts) -> list[str]:
    """Return the lines of a text for disclosure, escaped."""
    lists = facts.decide["lists"]
    csam = [one for one in lists if one["purpose"] == "csam"]
    values = {"f": facts.public, "r": facts, "csam": csam, "other": [one for one in lists if one not in csam]}
    return _Filler(facts.public.samples).vformat(_read(f"{name}.txt"), (), values).splitlines()


def _fill(text: str, facts: ReleaseFacts, **values: object) -> str:
    every = f"{facts.samples:,} samples"
    warnings = [f"Made with {one}, an option that weakens what holds for all {every}." for one in facts.stamps]
    warnings += [f"This settle released nothing of {every}."] * (not facts.released)
    files = [(one.name, one.size, tag("code", one.sha256)) for one in facts.files]
    values |= {
        "f": facts,
        "style": Html(_read("report.css")),
        "warnings": join(*(tag("p", one, class_="warn") for one in warnings)),
        "files": _table(f"The {len(files)} files", "file bytes sha256", files) if files else "",
    }
    return _Filler(facts.samples).vformat(text, (), values)


def _read(name: str) -> str:
    return resources.files("manifests").joinpath("templates", name).read_text(encoding="utf-8")


class _Filler(string.Formatter):
    """Fills a template in, escaped. Formats: `share` and `percent` of the samples, `size`, `04d`, or a noun."""

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def format_field(self, value: Any, spec: str) -> str:  # noqa: ANN401 - a template puts anything here
        if spec == "share":
            return f"{value:,} of {self._samples:,} samples ({self.format_field(value, 'percent')})"
        if spec == "percent":
            share = value / max(1, self._samples)
            return f"{share:.{2 if share in (0, 1) or 1e-4 <= share <= 0.9999 else 7}%}"
        if spec == "size":
            unit = min(4, (len(str(value)) - 1) // 3)
            return f"{value / 1000**unit:.4g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
        if spec == "04d":
            return f"{value:04d}"
        if spec:
            count = value if isinstance(value, int) else len(value)
            return f"{count:,} {spec}{'s' * (count != 1)}"
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        return join(
            f"{value:,}" if isinstance(value, int) else value if isinstance(value, Html) else value or "none"
        )


def _funnel(steps: Sequence[tuple[str, int, int, str]], facts: ReleaseFacts) -> Html:
    """Return the steps (name, how many are left, how many it took, what it did) as bars."""
    rows = []
    for name, left, taken, what in steps:
        told = join(tag("b", f"{left:,}"), f" ({taken:,} {what})" * bool(what))
        rows.append(tag("li", tag("span", name), share_bar(left, taken, facts.samples), tag("span", told)))
    return tag("ol", *rows, class_="funnel")


def _figure(one: Distribution) -> Html:
    bars = sorted({(bar.bar + (bar.op == "<="), f"{bar.op} {bar.bar:g}") for bar in one.bars})
    drawn = histogram(one.signal, one.bins, one.kept, bars, is_score=not one.signal.startswith("list."))
    told = f"n = {one.known:,}; unknown: {one.unknown:,}; none near: {one.none_near:,}"
    return tag("figure", tag("figcaption", tag("b", one.signal), told), drawn)


def _table(caption: str, head: str, rows: Sequence[Sequence[object]]) -> Html:
    """Return a table under the words of `head`, or a sentence where there is no row; numbers stand to the right."""
    if not rows:
        return tag("p", f"{caption}: none.")
    names = [one.replace("_", " ") for one in head.split()]
    styles = ["n" if isinstance(one, int) else "k" if len(str(one)) < _SHORT else "" for one in rows[0]]
    lines = [tag("tr", *(tag("th", name, class_=style) for name, style in zip(names, styles, strict=True)))]
    for row in rows:
        cells = zip(row, names, styles, strict=True)
        shown = ((f"{one:,}" if isinstance(one, int) else one, name, style) for one, name, style in cells)
        lines.append(tag("tr", *(tag("td", one, class_=style, data_name=name) for one, name, style in shown)))
    wide = len(names) > 3 or any(isinstance(one, Html) for one in rows[0])  # a phone shows its rows as blocks
    parts = (tag("caption", caption), tag("thead", lines[0]), tag("tbody", *lines[1:]))
    return tag("div", tag("table", *parts, class_="wide" if wide else "narrow"), class_="scroll")
