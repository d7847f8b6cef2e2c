"""The matcher finds exactly what a term-by-term search with regular expressions finds."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.text.folding import fold_term, fold_texts
from classifiers.text.terms import TermList, TermMatcher

LEET = {"o": "0", "i": "1", "l": "1", "e": "3", "a": "4@", "s": "5$", "t": "7"}
DROPPED = re.compile(
    "[\u0300-\u036f\u064b-\u065f\u0670\u0640\u115f\u1160\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    "\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)
RUNS_ON = ("CJK", "HIRAGANA", "THAI", "LAO", "KHMER", "MYANMAR")


def plainly_folded(text: str) -> str:
    """Every folding but the last, over one whole text at a time."""
    text = unicodedata.normalize("NFKD", re.sub("[™℠]", " ", text))
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(char for char in DROPPED.sub("", text) if unicodedata.category(char) != "Cf")
    for stroke, letter in zip("ıłøđħ", "ilodh", strict=True):
        text = text.replace(stroke, letter)
    text = "".join(char if char in "@$" or unicodedata.category(char)[0] in "LMN" else " " for char in text)
    return unicodedata.normalize("NFC", text)


def with_words_closed(folded: str) -> str:
    """Join neighbouring words of one character."""
    closed, run = [], ""
    for word in [*folded.split(" "), ""]:
        if len(word) == 1:
            run += word
            continue
        closed += [run, word] if run else [word]
        run = ""
    return " ".join(closed)


def script(char: str) -> str:
    if unicodedata.category(char)[0] == "N":
        return "DIGIT"
    if unicodedata.category(char)[0] not in "LM":
        return ""
    return re.split("[ -]", unicodedata.name(char, "?"))[0]


def stands_somewhere(term: str, reading: str) -> bool:
    reading = " " + re.sub(" +", " ", reading) + " "
    letters = "".join("[" + re.escape(letter + LEET.get(letter, "")) + "]" for letter in term)
    for match in re.finditer(f"(?=({letters}))", reading):
        start, end = match.span(1)
        left, right = script(term[0]), script(term[-1])
        runs_on_left = left and left not in RUNS_ON and script(reading[start - 1]) == left
        runs_on_right = right and right not in (*RUNS_ON, "HANGUL") and script(reading[end]) == right
        words = zip(match[1].split(" "), term.split(" "), strict=True)
        if not runs_on_left and not runs_on_right and all(w == t or any(map(str.isalpha, w)) for w, t in words):
            return True
    return False


def slow_score(text: str | None, terms: tuple[str, ...]) -> float:
    if text is None:
        return 0.0
    folded = plainly_folded(text)
    return float(any(stands_somewhere(t, r) for t in terms for r in (folded, with_words_closed(folded))))


# Letters that leet reads in two ways, that fold from many, that run on, that compose; signs and gaps of all kinds.
PIECES = [
    *"ilsoaeLSt1053@$7 . -_\n'é",
    "ß",
    "ﬁ",
    "Ａ",
    "ｓ",
    "\u200d",
    "\u00ad",
    "\u0301",
    "с",
    "й",
    "女",
    "の",
    "ヌ",
    "ﾊ",
]
PIECES += [
    "\u3099",
    "ﾞ",
    "ー",
    "소",
    "녀",
    "\u1109",
    "\u1161",
    "ा",
    "ब",
    "\u0640",
    "ع",
    "™",
    "½",
    "١",
    "İ",
    "ł",
    "\u2028",
]
WORDS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
TERMS = st.lists(WORDS.map(fold_term).filter(lambda term: len(term) > 1), min_size=1, max_size=12, unique=True)
NOISE = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=14).map("".join)


def spaced(term: str) -> str:
    return ".".join(term.replace(" ", ""))


def leet(term: str) -> str:
    return "".join(LEET.get(letter, letter)[-1] for letter in term)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[str, ...], list[str | None]]:
    terms = draw(TERMS)
    near = st.sampled_from(terms).flatmap(lambda t: st.sampled_from([t, t.upper(), spaced(t), leet(t), t[::-1]]))
    texts = st.lists(NOISE | near | st.sampled_from([" ", "-", "s", "1"]), max_size=5).map("".join)
    return tuple(sorted(terms)), draw(st.lists(st.none() | texts, max_size=6))


@given(cases())
@settings(max_examples=600, deadline=None)
def test_a_batch_scores_as_each_text_alone_by_the_slow_search(case):
    terms, texts = case
    found = TermMatcher([TermList("drawn", terms)]).score_texts(texts)["drawn"]
    assert found.dtype == np.float32
    assert found.tolist() == [slow_score(text, terms) for text in texts]


@given(st.lists(st.text(), max_size=5))
@settings(deadline=None)
def test_folding_a_folded_text_changes_nothing(texts):
    lines, owners = fold_texts(texts)
    again = fold_texts(lines[: len(texts)])[0]
    assert [line.strip(" ") for line in again[: len(texts)]] == [line.strip(" ") for line in lines[: len(texts)]]
    assert owners[: len(texts)] == list(range(len(texts)))


def fullwidth(term: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in term)


DISTORTIONS = {
    "case": str.upper,
    "accents": lambda term: "".join(char + "\u0301" for char in term),
    "full width": fullwidth,
    "joiners": "\u200d".join,
    "soft hyphens": "\u00ad".join,
}
SPELLINGS = {"plain": str, "leet": lambda term: term[0] + leet(term[1:]), "spaced": " ".join, "dotted": ".".join}


@given(
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=9),
    st.lists(st.sampled_from(sorted(DISTORTIONS)), max_size=4),
    st.sampled_from(sorted(SPELLINGS)),
)
@settings(max_examples=300, deadline=None)
def test_a_planted_word_is_found_however_it_is_written(word, distortions, spelling):
    written = SPELLINGS[spelling](word)
    for name in distortions:
        written = DISTORTIONS[name](written)
    if spelling == "leet" and not any(map(str.isalpha, plainly_folded(written))):
        return  # numbers alone are no word
    matcher = TermMatcher([TermList("planted", (word,))])
    assert matcher.score_texts([f"photo of {written}, 1920s"])["planted"].tolist() == [1.0]
