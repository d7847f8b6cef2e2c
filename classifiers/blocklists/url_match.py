"""Matching URLs with lists of URLs, of domains and of digests of URLs, however the URL is spelled.

Owns the spellings that are tried. Leaves the canonical form to `url_forms`, the lookup to `match`.

- A URL is tried in its canonical form, with its dot segments resolved, as http and as https, with and without
  `www.`; against digests of URLs as their owners wrote them also just as it is written.
- A domain is listed if it, or a domain above it, is; what its owner wrote with `www.` lists it without, too.
- Most URLs stand in canonical form already. One expression knows them, and the slow form is spared: it would
  return them as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import URL_WIDTHS, Rows
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import match_digests
from classifiers.blocklists.url_forms import canonical_url
from classifiers.blocklists.url_kernels import find_hosts, list_parents, sha256_of_parts

# A host without port that ends in a letter, at most 253 long by the check below; a path without escapes but of
# what may not stand there plainly; a query of anything printable.
_LABEL = "[a-z0-9_-]{1,63}"
_CANONICAL = (
    rf"^https?://(?:{_LABEL}\.)*[a-z0-9_-]{{0,62}}[a-z_-]/"
    r"(?:[A-Za-z0-9._~/:@!$&'()*+,;=-]|%(?:[0189A-F][0-9A-F]|2[0-9ABCF]|3[A-F]|40|5[BCDE]|60|7[BCDF]))*"
    r"(?:\?[!-\"$-~]+)?$"
)
_MAX_HOST = 253  # characters, RFC 1035
# What a URL without its scheme and `www.` is hashed behind; the first is for texts that are whole.
_HEADS = (b"", b"http://", b"https://", b"http://www.", b"https://www.")
_WWW = np.frombuffer(b"www.", np.uint8)
URL_ALGORITHMS = tuple(URL_WIDTHS)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class UrlForms:
    """N URLs in canonical form.

    data: uint8, all forms. starts, ends: int64 N; alike where there is no URL, or none that http or https knows.
    written: by row, what was written where it differs from the form. dotted: rows that may have dot segments.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    written: dict[int, bytes]
    dotted: NDArray[np.int64]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Say which rows have a canonical form."""
        return self.ends > self.starts

    def digests(self) -> Rows:
        """Return the SHA-256 of each form: uint8 N x 32; without one, that of nothing."""
        return sha256_of_parts(self.data, self.starts, self.ends, _HEADS, np.zeros(len(self.starts), np.int64))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class UrlHits:
    """Rows that hit entries, ascending by row, place, algorithm and number, each once.

    row: int64 H. place: int16 H, of the list in the sequence that was asked. algorithm: int8 H, place in
    `URL_ALGORITHMS`. number: int32 H, of the entry in the stored list.
    """

    row: NDArray[np.int64]
    place: NDArray[np.int16]
    algorithm: NDArray[np.int8]
    number: NDArray[np.int32]


def read_urls(urls: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> UrlForms:
    """Bring URLs into canonical form, the most of them all at once."""
    array = urls if isinstance(urls, pa.Array | pa.ChunkedArray) else pa.array(urls, pa.string())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    plain = pc.fill_null(pc.match_substring_regex(array, _CANONICAL), fill_value=False)
    is_dotted = pc.fill_null(pc.match_substring(array, "/."), fill_value=False).to_numpy(zero_copy_only=False)
    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1] or bytes(8), np.int64)[array.offset :][: len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
    starts, ends = offsets[:-1].copy(), offsets[1:].copy()
    first, last = find_hosts(data, starts, ends)
    odd = np.flatnonzero(~plain.to_numpy(zero_copy_only=False) | (last - first > _MAX_HOST))
    starts[odd] = ends[odd] = 0
    forms, written, size = [], {}, len(data)
    for row, raw in zip(odd.tolist(), array.take(pa.array(odd)).to_pylist(), strict=True):
        form = None if raw is None else canonical_url(raw.decode(errors="surrogateescape"))
        if form is not None:
            forms.append(form.encode())
            starts[row], ends[row] = size, size + len(forms[-1])
            size = ends[row]
            if forms[-1] != raw:
                written[row] = raw
                is_dotted[row] = b"/." in forms[-1]
    data = np.append(data, np.frombuffer(b"".join(forms), np.uint8))
    return UrlForms(data, starts, ends, written, np.flatnonzero(is_dotted & (ends > starts)))


def match_urls(urls: pa.Array | Sequence[str | None], lists: Sequence[HashList]) -> UrlHits:
    """Find the entries that list URLs. A row that is no URL, or null, hits nothing."""
    return match_forms(read_urls(urls), lists)


def match_forms(forms: UrlForms, lists: Sequence[HashList]) -> UrlHits:
    """Find the entries that list URLs whose canonical form is known.

    Lists must have been made with these algorithms (`make_feeds(..., algorithms=...)`); others have no hits.
    """
    asked = {name for item in lists for name in item.columns}
    first, last = find_hosts(forms.data, forms.starts, forms.ends)
    begins = np.append(forms.data, _WWW)[first[:, None] + np.arange(4)]
    bare = first + 4 * ((begins == _WWW).all(axis=1) & (last - first > len(_WWW)))
    queries = _url_queries(forms, bare, [name for name in URL_ALGORITHMS if name in asked and name != "domain"])
    if "domain" in asked:
        queries["domain"] = _domain_queries(forms, first, bare, last)
    parts = []
    for place, item in enumerate(lists):
        for name, (rows, digests) in queries.items():
            found = match_digests(item, name, digests)
            hit = np.empty((len(found.row), 4), np.int64)
            hit[:, 0], hit[:, 1] = rows[found.row], place
            hit[:, 2], hit[:, 3] = URL_ALGORITHMS.index(name), found.number
            parts.append(hit)
    hits = np.unique(np.concatenate([np.zeros((0, 4), np.int64), *parts]), axis=0)
    return UrlHits(hits[:, 0], *(hits[:, n].astype(kind) for n, kind in ((1, "i2"), (2, "i1"), (3, "i4"))))


def _url_queries(
    forms: UrlForms, bare: NDArray[np.int64], algorithms: Sequence[str]
) -> dict[str, tuple[NDArray[np.int64], Rows]]:
    """Return by algorithm the digests of all spellings, and the row of each; `bare`: hosts without www."""
    if not algorithms:
        return {}
    resolved = [_resolve(forms.data[bare[row] : forms.ends[row]].tobytes()) for row in forms.dotted.tolist()]
    more = [*resolved, *forms.written.values()]
    ends = len(forms.data) + np.cumsum([len(text) for text in more], dtype=np.int64)
    starts = ends - np.array([len(text) for text in more], np.int64)
    data = np.append(forms.data, np.frombuffer(b"".join(more), np.uint8))
    usable, heads, whole = np.flatnonzero(forms.usable), len(_HEADS) - 1, len(resolved)
    rows = np.append(np.repeat(np.append(usable, forms.dotted), heads), np.array([*forms.written], np.int64))
    starts = np.append(np.repeat(np.append(bare[usable], starts[:whole]), heads), starts[whole:])
    ends = np.append(np.repeat(np.append(forms.ends[usable], ends[:whole]), heads), ends[whole:])
    spelled = len(rows) - len(forms.written)
    which = np.append(np.tile(np.arange(1, heads + 1), spelled // heads), np.zeros(len(forms.written), np.int64))
    found = {}
    if {*algorithms} != {"url_md5"}:
        taken = sha256_of_parts(data, starts, ends, _HEADS, which)
        found = {"url": (rows[:spelled], taken[:spelled]), "url_sha256": (rows, taken)}
    if "url_md5" in algorithms:
        jobs = zip(which.tolist(), starts.tolist(), ends.tolist(), strict=True)
        md5 = [hashlib.md5(_HEADS[head] + data[a:b].tobytes()).digest() for head, a, b in jobs]  # noqa: S324 - theirs
        found["url_md5"] = rows, np.frombuffer(b"".join(md5), np.uint8).reshape(-1, 16)
    return found


def _domain_queries(
    forms: UrlForms, first: NDArray[np.int64], bare: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Rows]:
    """Return the digests of all that could list a host: itself, with and without `www.`, domains above it."""
    usable = np.flatnonzero(forms.usable)
    above, starts = list_parents(forms.data, first, last)
    rows = np.concatenate([usable, usable, above])
    starts = np.concatenate([bare[usable], bare[usable], starts])
    which = np.repeat([0, 1, 0], [len(usable), len(usable), len(above)])
    return rows, sha256_of_parts(forms.data, starts, last[rows], (b"", b"www."), which)


def _resolve(place: bytes) -> bytes:
    """Resolve the dot segments of host and path (RFC 3986, 5.2.4)."""
    path, mark, query = place.partition(b"?")
    host, *segments = path.split(b"/")
    kept: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/".join([host, *kept]) + mark + query
