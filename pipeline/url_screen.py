"""One URL against all lists of a configuration: what a fetcher asks before it contacts a host, at every hop.

Owns that question. Leaves spellings to `url_match`, and whole tables to `screen.py`; the answers are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from classifiers.blocklists.lists import HashList
from classifiers.blocklists.url_forms import canonical_url
from classifiers.blocklists.url_match import UrlForms, match_forms, read_urls, url_spellings
from manifests.collection import Collection
from pipeline.withheld import Withheld


class UrlScreen:
    """Lists of URLs, domains and digests of URLs, and what a collection has withheld. Nothing in it changes."""

    def __init__(self, lists: Sequence[HashList], withheld: Withheld | None = None) -> None:
        self._lists, self._withheld = tuple(lists), withheld

    def and_withheld(self, collection: Collection) -> UrlScreen:
        """Return a screen that also knows what a collection has withheld so far, if that was begun.

        Raises:
            KeyedError: the collection's secret, or the keys of a shard, are missing or damaged.
        """
        return UrlScreen(self._lists, Withheld.read(collection))

    def find(self, forms: UrlForms) -> NDArray[np.bool_]:
        """Say which URLs, or their domains, or ones above, are listed in any spelling, or were withheld."""
        listed = np.zeros(len(forms.starts), np.bool_)
        listed[match_forms(forms, self._lists).row] = True
        if self._withheld is not None:
            rows, digests = url_spellings(forms)
            listed[rows[self._withheld.knows_urls(digests)]] = True
        return listed

    def is_listed(self, url: str) -> bool:
        """Say so of one URL. What is no http or https URL cannot be compared, and must not be requested: True."""
        return canonical_url(url) is None or bool(self.find(read_urls([url]))[0])
