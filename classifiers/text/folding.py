"""Foldings: what a text is reduced to before terms are looked for in it.

Owns case, accents, widths, characters nobody sees, gaps, spelled-out words, leet, and where a word ends. Leaves
terms to `terms`. Unicode Standard Annex 15 (NFKD, NFC) and section 3.13 (full case folding).

- What is no letter, mark, digit, '@' or '$' is a gap: a space. A folded text begins and ends with one.
- A batch folds as each of its texts alone would: no step looks across a line break.
- Accents go from Latin, Greek, Cyrillic and Arabic; the marks of other scripts are part of their letters and stay.
- Terms and texts are folded alike. `VERSION`, and Unicode's, belong to a signal's full name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # of the foldings: one up with any change to what is found
_LEET = {"0": "o", "1": "il", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
# Accents of Latin, Greek, Cyrillic and Arabic; Arabic stretching, Hangul fillers, variation selectors, half marks.
_DROPPED = re.compile(
    r"[\u0300-\u036f\u0640\u064b-\u065f\u0670\u115f\u1160\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff"
    r"\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)
_STROKES = {"ı": "i", "ł": "l", "ø": "o", "đ": "d", "ħ": "h"}  # letters that Unicode does not take apart
_SIGNS = "™℠"  # would fold to letters of the word before
_UNSPACED = ("CJK", "HIRAGANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts that put no space between words
_SPELLED = re.compile(r" \S(?: \S(?= ))+")


class _Folds(dict[int, str]):
    """Code point to folded text, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold_char(chr(code))
        return folded


class _Scripts(dict[str, str]):
    """Letter or mark to the first word of its name, its script; any digit to "DIGIT"; "" for anything else."""

    def __missing__(self, char: str) -> str:
        kind = unicodedata.category(char)[0]
        name = unicodedata.name(char, "?") if kind in "LM" else "DIGIT" if kind == "N" else ""
        script = self[char] = re.split("[ -]", name)[0]
        return script


def _fold_char(char: str) -> str:
    if char == "\n":
        return char
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    kept = [_STROKES.get(part, part) for part in _DROPPED.sub("", parts) if unicodedata.category(part) != "Cf"]
    words = [part if part in "@$" or unicodedata.category(part)[0] in "LMN" else " " for part in kept]
    is_gap = char in _SIGNS or (kept and set(words) == {" "})
    return " " if is_gap else unicodedata.normalize("NFC", "".join(words))


_FOLDS, _SCRIPTS = _Folds(), _Scripts()


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _close_gaps(text: str) -> str:
    # In bulk: replacing double spaces until none is left takes four times as long.
    codes = _codes(text)
    gaps = codes == ord(" ")
    kept: bytes = codes[~np.append(gaps[:-1] & gaps[1:], False)].tobytes()
    return kept.decode("utf-32-le")


def _find_spelled(text: str) -> list[int]:
    """Return the lines of a folded text that `_SPELLED` would change."""
    codes = _codes(text)
    gaps = codes == ord(" ")
    single = gaps[:-2] & (codes[1:-1] > ord(" ")) & gaps[2:]
    starts = np.flatnonzero(single[:-2] & single[2:])
    places: list[int] = np.unique(np.searchsorted(np.flatnonzero(codes == ord("\n")), starts)).tolist()
    return places


def fold_texts(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Fold a batch; fastest where all texts, or none, are ASCII.

    Returns:
        Lines to look for terms in, and for each the place of its text in the batch. First a line for each text;
        then, where it differs, one with its spelled-out words closed: `n u d e` and `n.u.d.e`, single characters
        one gap character apart, become `nude`, as far as the run goes (so `a n u d e` becomes `anude`).
    """
    if not texts:
        return [], []
    joined = "\n".join(texts)
    if joined.count("\n") >= len(texts):
        joined = "\n".join(text.replace("\n", " ") for text in texts)
    folded = unicodedata.normalize("NFC", joined.translate(_FOLDS)).replace("\n", " \n ")
    folded = f" {folded} "
    lines = folded.split("\n")
    owners = _find_spelled(folded)
    lines += [_SPELLED.sub(lambda run: " " + run[0].replace(" ", ""), lines[owner]) for owner in owners]
    return _close_gaps("\n".join(lines)).split("\n"), [*range(len(texts)), *owners]


def fold_term(term: str) -> str:
    """Fold one term: as a text, without the space on either side."""
    return fold_texts([term])[0][0].strip(" ")


def skeleton(text: str) -> str:
    """Return the folded text, at its length, with one letter for all that leet may write in its place."""
    for sign, letters in _LEET.items():
        text = text.replace(sign, letters[0])
    return text.replace("l", "i")


def stands(term: str, text: str, start: int) -> bool:
    """Say whether a term stands in folded lines at `start`, as a word of its own, plainly or in leet.

    A word ends where no letter of the same script follows. Scripts without spaces end anywhere, and Korean, which
    puts particles behind a word, ends anywhere to the right. In leet each word keeps at least one letter, so that
    numbers are not read as words.
    """
    end = start + len(term)
    first, last = _SCRIPTS[term[0]], _SCRIPTS[term[-1]]
    if first and first not in _UNSPACED and _SCRIPTS[text[start - 1]] == first:
        return False
    if last and last not in (*_UNSPACED, "HANGUL") and _SCRIPTS[text[end]] == last:
        return False
    found = text[start:end]
    pairs = zip(found, term, strict=True)
    words = zip(found.split(" "), term.split(" "), strict=True)
    return found == term or (
        all(sign == letter or letter in _LEET.get(sign, "") for sign, letter in pairs)
        and all(word == own or any(map(str.isalpha, word)) for word, own in words)
    )
