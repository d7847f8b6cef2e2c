"""The words of a model card: a record of tables and figures as Markdown, its limits, and lines for the console.

Owns no figure: the Markdown says what the JSON beside it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LIMITS = (
    "Scores are not content: a high score is no finding about a picture, and a low one clears none.",
    "Measured on these labels only. Other sources, times, languages and styles may do worse. Pictures that were "
    "withheld, or could not be decoded, were neither learnt from nor measured.",
    "No rate is stated of fewer than 59 rows: 59 without a miss are what a one-sided 95 % bound of 0.95 needs.",
    "Intervals are two-sided, 95 %, exact (Clopper-Pearson), for independent pictures. Those of one source are "
    "alike, so the true intervals are wider.",
    "Calibrated at the share of positives in these labels. Where they are rarer, as in a scrape, scores overstate.",
    "The removal rate is that of the test rows, at their share of positives; a scrape has another.",
    "Choosing a threshold, a seed or a kind by these figures uses the test rows up: confirm on other labels.",
)


def card_text(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown: a dictionary becomes a section, a list of records a table."""
    return "\n".join([f"# {card['head']['name']}", *_section(card, 2), ""])


def console_lines(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the console says of a head that was made."""
    data, calibration = card["data"], card["calibration"]
    yield f"{data['pictures']} pictures; {data['without_embedding']} of {data['labels']} labels had no embedding"
    yield from (f"{row['part']}: {row['label_0']} of label 0, {row['label_1']} of label 1" for row in data["rows"])
    for row in card["test"]["rates"]:
        if row["threshold"] == 0.5:
            yield from (f"{name} at 0.5: {_cell(row[name])}" for name in ("recall", "false_positive_rate"))
    yield f"ECE: {calibration['before']['ece']:.4f} before calibration, {calibration['after']['ece']:.4f} after"


def _section(values: Mapping[str, Any], depth: int) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, (str, int, float)):
            yield f"- {name}: {_cell(value)}"
        else:
            lines = _section(value, depth + 1) if isinstance(value, Mapping) else _list(value)
            yield from ("", f"{'#' * depth} {name}", "", *lines)


def _list(items: Sequence[Any]) -> Iterator[str]:
    if not items or isinstance(items[0], str):
        yield from (f"- {item}" for item in items or ["none"])
        return
    for cells in (items[0], ["---"] * len(items[0]), *(map(_cell, item.values()) for item in items)):
        yield f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if not isinstance(value, Mapping):
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    if "no_claim" in value:
        return f"no claim: {value['no_claim']}"
    return f"{value['rate']:.4f} [{value['low']:.4f}, {value['high']:.4f}], n = {value['n']}"
