"""Lists of URLs and domains, or of digests of them, one a line or in the columns of a CSV.

- A URL is held as the SHA-256 of its canonical form, a domain (also as `*.domain`) as that of its ASCII form; see
  `url_forms`. `url_md5` and `url_sha256` are digests of a URL as its owner wrote it.
- A domain of one label is refused: it would match too much.
- A record is a line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from classifiers.blocklists.algorithms import URL_WIDTHS
from classifiers.blocklists.entries import Batch
from classifiers.blocklists.importers.plain import HASH_COLUMNS, Table, check_algorithm, read_head, read_tables
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.spellings import Cells, cells_of, make_entries, read_labels
from classifiers.blocklists.url_forms import ascii_domain, canonical_url

_EITHER = "url or domain"
_EXPECTED = ", ".join(URL_WIDTHS)
_WRONG = b"?"  # in place of a digest: makes the cell one that holds no value, and so a note


class UrlsImporter:
    """URLs and domains."""

    name = "urls"

    def recognises(self, head: bytes) -> bool:
        """See `protocol.Importer`."""
        names = read_head(head).names
        others = {*HASH_COLUMNS, "algorithm"} & set(names)
        return bool(names) and (names[0].startswith(("http://", "https://")) or (_is_header(names) and not others))

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[Batch]:
        """See `protocol.Importer`."""
        check_algorithm(options, tuple(URL_WIDTHS))
        for path in paths:
            tables = read_tables(path, _is_header, lambda _: options.algorithm or _EITHER, expected=_EXPECTED)
            for names, table in tables:
                yield _read_table(path.name, table, names)


def _is_header(names: Sequence[str]) -> bool:
    return any(name in URL_WIDTHS for name in names)


def _read_table(file: str, table: Table, names: Sequence[str]) -> Batch:
    columns: list[tuple[str, Cells]] = []
    categories = None
    for name, cells in zip(names, table.columns, strict=True):
        if name in ("url", "domain", _EITHER):
            columns += _digest(name, cells)
        elif name in URL_WIDTHS:
            columns.append((name, cells))
        elif name == "category":
            categories = read_labels(cells)
    entries, notes = make_entries(table.lines, columns, categories)
    return Batch(file, table.records, tuple(entries), (*table.notes, *notes))


def _digest(kind: str, cells: Cells) -> list[tuple[str, Cells]]:
    """Return hex digests of the URLs and of the domains in a column of `kind`."""
    urls: list[bytes] = []
    domains: list[bytes] = []
    for text in cells.texts():
        is_url = kind == "url" or (kind == _EITHER and "://" in text)
        urls.append(_hex(text, canonical_url(text)) if is_url else b"")
        domains.append(b"" if is_url else _hex(text, _domain(text)))
    return [("url", cells_of(urls)), ("domain", cells_of(domains))]


def _domain(text: str) -> str | None:
    domain = ascii_domain(text.removeprefix("*").removeprefix("."))
    return domain if domain and ("." in domain or ":" in domain) else None


def _hex(text: str, form: str | None) -> bytes:
    if form is None:
        return _WRONG if text else b""
    return hashlib.sha256(form.encode()).hexdigest().encode()
