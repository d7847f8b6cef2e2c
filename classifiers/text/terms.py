"""Term lists, and the signals caption.<concept> and url.<concept>: does a term of the concept stand in the text?

Owns reading lists and finding their terms, all at once (Aho and Corasick 1975, by ahocorasick_rs). Leaves foldings
to `folding`. The lists beside this file hold general dictionary words alone; coded words and those of a partner are
read from a file outside the repository.

- A score is 1.0 or 0.0, never NaN: a text that is not there has no term, which is known and no fault.
- A full name carries the version of the foldings, and a digest of the folded terms and Unicode's version.
- No message and no repr shows a term.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from unicodedata import unidata_version
from urllib.parse import unquote

import numpy as np
from ahocorasick_rs import AhoCorasick, Implementation

from classifiers.signals import Scores
from classifiers.text.folding import VERSION, fold_term, fold_texts, skeleton, stands

SHIPPED = Path(__file__).with_name("words")
_BATCH = 2048  # texts folded together: enough to hide the cost of a call, few enough to stay in the cache


class TermsError(ValueError):
    """A term list cannot be read, or holds what is no term. Its message shows no term."""


@dataclass(frozen=True, slots=True, repr=False)
class TermList:
    """The folded terms of one concept, sorted, each once."""

    concept: str
    terms: tuple[str, ...]

    @property
    def name(self) -> str:
        """`concept@version of the foldings`; a signal puts `caption.` or `url.` before it."""
        return f"{self.concept}@{VERSION}"

    @property
    def full_name(self) -> str:
        """The name with the first 8 hex digits of the digest of the terms and Unicode's version."""
        digest = hashlib.sha256(json.dumps([unidata_version, *self.terms]).encode()).hexdigest()
        return f"{self.name}#{digest[:8]}"

    def joined_with(self, other: TermList) -> TermList:
        """Return the terms of both lists, which are of one concept: the shipped words and a partner's."""
        if other.concept != self.concept:
            raise TermsError(f"expected a list of the concept '{self.concept}', found one of '{other.concept}'")
        return TermList(self.concept, tuple(sorted({*self.terms, *other.terms})))


def read_terms(path: Path, concept: str) -> TermList:
    """Read a term list: a TOML file with arrays of terms by language, or a text file of one term a line.

    Both are UTF-8. A text file counts as one array; its blank lines and those that begin with '#' are left out.

    Raises:
        TermsError: not readable, empty, or a term without two letters, digits or marks once folded.
    """
    try:
        text = path.read_text("utf-8-sig")
        found = tomllib.loads(text) if path.suffix == ".toml" else {"": text.splitlines()}
    except OSError as error:
        raise TermsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:  # its message may quote the line
        raise TermsError(f"{path}: expected UTF-8, and TOML in a .toml file; mend the file") from None
    terms = set()
    for group, items in enumerate(found.values(), 1):  # a key may be a term: it is not shown
        for number, item in enumerate(items if isinstance(items, list) else [None], 1):
            if path.suffix != ".toml" and (not item or item.isspace() or item.startswith("#")):
                continue
            term = fold_term(item) if isinstance(item, str) else ""
            if len(term) < 2:
                raise TermsError(f"{path}: array {group}, term {number}: expected two letters or more; mend it")
            terms.add(term)
    if not terms:
        raise TermsError(f"{path}: expected terms, found none; a list that finds nothing is no list")
    return TermList(concept, tuple(sorted(terms)))


def shipped_terms(concept: str) -> TermList:
    """Return the general words that come with the distribution: 'minor' or 'sexual'."""
    return read_terms(SHIPPED / f"{concept}.toml", concept)


class TermMatcher:
    """Finds the terms of some concepts in one walk over the texts. Built once; nothing in it changes."""

    __slots__ = ("_automaton", "_terms", "lists")

    def __init__(self, lists: Sequence[TermList]) -> None:
        self.lists = tuple(lists)
        by_skeleton: dict[str, list[tuple[str, str]]] = {}
        for entry in self.lists:
            for term in entry.terms:
                by_skeleton.setdefault(skeleton(term), []).append((term, entry.concept))
        self._terms = tuple(by_skeleton.values())
        self._automaton = AhoCorasick(by_skeleton, implementation=Implementation.DFA)

    def score_texts(self, texts: Sequence[str | None]) -> dict[str, Scores]:
        """Score texts: N in; by concept float32, N: 1.0 where a term of it stands, else, and for None, 0.0."""
        scores = {entry.concept: np.zeros(len(texts), np.float32) for entry in self.lists}
        for first in range(0, len(texts), _BATCH):
            batch = [(number, text) for number, text in enumerate(texts[first : first + _BATCH], first) if text]
            for is_ascii in (True, False):
                chosen = [(number, text) for number, text in batch if text.isascii() is is_ascii]
                for at, concept in self._find([text for _, text in chosen]):
                    scores[concept][chosen[at][0]] = 1.0
        return scores

    def score_urls(self, urls: Sequence[str | None]) -> dict[str, Scores]:
        """Score URLs, percent-decoded, as the words between their signs."""
        return self.score_texts([None if url is None else unquote(url) for url in urls])

    def _find(self, texts: Sequence[str]) -> Iterator[tuple[int, str]]:
        lines, owners = fold_texts(texts)
        joined = "\n".join(lines)
        ends = list(accumulate(len(line) + 1 for line in lines))
        for number, start, _ in self._automaton.find_matches_as_indexes(skeleton(joined), overlapping=True):
            for term, concept in self._terms[number]:
                if stands(term, joined, start):
                    yield owners[bisect_right(ends, start)], concept
