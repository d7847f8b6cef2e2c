"""Lists of URLs and domains, or of digests of them, and of uids, one a line or in the columns of a CSV.

- A URL is held as the SHA-256 of its canonical form, a domain (also as `*.domain`) as that of its ASCII form; see
  `url_forms`. `url_md5` and `url_sha256` are digests of a URL as its owner wrote it. A `uid` names a content.
- A domain of one label is refused: it would match too much.
- A record is a line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from classifiers.blocklists.algorithms import UID, URL_WIDTHS
from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers.plain import HASH_COLUMNS, Names, check_algorithm, first_names, read_tables
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Column, Table, make_batch
from classifiers.blocklists.url_forms import ascii_domain, canonical_url

_NAMES = (*URL_WIDTHS, UID)
_EITHER = "url or domain"
_WRONG = "?"  # in place of a digest: makes the cell one that holds no value, and so a note


class UrlsImporter:
    """URLs and domains."""

    name = "urls"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        names = first_names(head)
        others = {*HASH_COLUMNS, "algorithm"} & set(names)
        return bool(names) and (names[0].startswith(("http://", "https://")) or (_is_header(names) and not others))

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        check_algorithm(options, _NAMES)
        bare = (options.algorithm or _EITHER,)
        for path in paths:
            for table in read_tables(path, _is_header, lambda _: bare, ", ".join(_NAMES)):
                yield _make_batch(path.name, table)


def _is_header(names: Names) -> bool:
    return any(name in _NAMES for name in names)


def _make_batch(file: str, table: Table) -> Batch:
    columns: list[Column] = []
    for name, cells in table.columns.items():
        if name in ("url", "domain", _EITHER):
            columns += _digest(name, cells.to_pylist())
        elif name in _NAMES:
            columns.append((name, cells))
    return make_batch(file, table, columns, table.columns.get("category"))


def _digest(kind: str, texts: Sequence[str]) -> list[Column]:
    """Return hex digests of the URLs and of the domains in a column of `kind`."""
    urls, domains = [], []
    for text in texts:
        is_url = kind == "url" or (kind == _EITHER and "://" in text)
        urls.append(_hex(text, canonical_url(text)) if is_url else "")
        domains.append("" if is_url else _hex(text, _domain(text)))
    return [("url", pa.array(urls, pa.string())), ("domain", pa.array(domains, pa.string()))]


def _domain(text: str) -> str | None:
    domain = ascii_domain(text.removeprefix("*").removeprefix("."))
    return domain if domain and ("." in domain or ":" in domain) else None


def _hex(text: str, form: str | None) -> str:
    if form is None:
        return _WRONG if text else ""
    return hashlib.sha256(form.encode()).hexdigest()
