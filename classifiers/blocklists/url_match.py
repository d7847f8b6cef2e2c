"""Matching URLs with lists of URLs, of domains and of digests of URLs, however the URL is spelled.

Owns the spellings that are tried. Leaves the canonical form to `url_forms`, the lookup to `match`.

- A URL is tried in its canonical form, with its dot segments resolved, as http and as https, with and without
  `www.`; against digests of URLs as their owners wrote them also just as it is written.
- A domain is listed if it, or a domain above it, is; what its owner wrote with `www.` lists it without, too.
- A compiled kernel writes the canonical form of most URLs; what it leaves is read by the slow form, as it says.
- Many URLs are of few hosts: domains are looked up once for each host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import URL_WIDTHS, Rows
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import match_digests
from classifiers.blocklists.sha256_kernel import sha256_of_parts
from classifiers.blocklists.url_forms import canonical_url
from classifiers.blocklists.url_kernels import (
    CHANGED,
    SLOW,
    find_hosts,
    list_parents,
    same_hosts,
    write_forms,
)

# What a URL without its scheme and `www.` is hashed behind; the first is for texts that are whole.
_HEADS = (b"", b"http://", b"https://", b"http://www.", b"https://www.")
_WWW = np.frombuffer(b"www.", np.uint8)
URL_ALGORITHMS = tuple(URL_WIDTHS)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class UrlForms:
    """N URLs in canonical form.

    data: uint8, all forms. starts, ends: int64 N; alike where there is no URL, or none that http or https knows.
    first, last: int64 N, of the host. written: by row, what was written where it differs from the form.
    dotted: rows that may have dot segments.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
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
    is_utf8, array = _is_utf8(array), array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1] or bytes(8), np.int64)[array.offset :][: len(array) + 1]
    data, begins = np.frombuffer(array.buffers()[2] or b"", np.uint8), offsets[:-1]
    stops = np.where(array.is_null().to_numpy(zero_copy_only=False), begins, offsets[1:])
    out = np.empty(3 * int((stops - begins).sum()) + 2 * len(begins), np.uint8)
    (starts, ends, first, last, kind, is_dotted), size = write_forms(data, begins, stops, out, is_utf8)
    forms, (odd, changed) = [], (np.flatnonzero(kind == one) for one in (SLOW, CHANGED))
    written = dict(zip(changed.tolist(), array.take(pa.array(changed)).to_pylist(), strict=True))
    for row, raw in zip(odd.tolist(), array.take(pa.array(odd)).to_pylist(), strict=True):
        form = None if raw is None else canonical_url(raw.decode(errors="surrogateescape"))
        if form is not None:
            forms.append(form.encode())
            starts[row], ends[row] = size, size + len(forms[-1])
            size = ends[row]
            is_dotted[row] = b"/." in forms[-1]
            if forms[-1] != raw:
                written[row] = raw
    data = np.append(out[: size - sum(map(len, forms))], np.frombuffer(b"".join(forms), np.uint8))
    first[odd], last[odd] = find_hosts(data, starts[odd], ends[odd])
    return UrlForms(data, starts, ends, first, last, written, np.flatnonzero(is_dotted))


def _is_utf8(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def match_urls(urls: pa.Array | Sequence[str | None], lists: Sequence[HashList]) -> UrlHits:
    """Find the entries that list URLs. A row that is no URL, or null, hits nothing."""
    return match_forms(read_urls(urls), lists)


def match_forms(forms: UrlForms, lists: Sequence[HashList]) -> UrlHits:
    """Find the entries that list URLs whose canonical form is known.

    Lists must have been made with these algorithms (`make_feeds(..., algorithms=...)`); others have no hits.
    """
    asked = {name for item in lists for name in item.columns}
    bare, same = _without_www(forms), np.zeros(0, np.int64)
    queries = _url_queries(forms, bare, [name for name in URL_ALGORITHMS if name in asked and name != "domain"])
    if "domain" in asked:
        same = same_hosts(forms.data, forms.first, forms.last)
        queries["domain"] = _domain_queries(
            forms, bare, np.flatnonzero(forms.usable & (same == np.arange(len(same))))
        )
    parts = []
    for place, item in enumerate(lists):
        for name, (rows, digests) in queries.items():
            found = match_digests(item, name, digests)
            where, numbers = rows[found.row], found.number.astype(np.int64)
            if name == "domain" and len(where):
                where, numbers = _of_each(same, where, numbers)
            hit = np.empty((len(where), 4), np.int64)
            hit[:, 0], hit[:, 1], hit[:, 2], hit[:, 3] = where, place, URL_ALGORITHMS.index(name), numbers
            parts.append(hit)
    hits = np.unique(np.concatenate([np.zeros((0, 4), np.int64), *parts]), axis=0)
    return UrlHits(hits[:, 0], *(hits[:, n].astype(kind) for n, kind in ((1, "i2"), (2, "i1"), (3, "i4"))))


def url_spellings(forms: UrlForms) -> tuple[NDArray[np.int64], Rows]:
    """Return the SHA-256 of every spelling in which a list of URLs is asked (uint8 S x 32), and the row of each."""
    return _url_queries(forms, _without_www(forms), ["url"])["url"]


def _without_www(forms: UrlForms) -> NDArray[np.int64]:
    """Return where each host begins without its `www.`."""
    begins = np.append(forms.data, _WWW)[forms.first[:, None] + np.arange(4)]
    has_www = (begins == _WWW).all(axis=1) & (forms.last - forms.first > len(_WWW))
    return np.where(has_www, forms.first + len(_WWW), forms.first)


def _of_each(
    same: NDArray[np.int64], rows: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return hits of rows as hits of all rows of the same host."""
    order = np.argsort(rows, kind="stable")
    rows, mine = rows[order], np.flatnonzero(np.isin(same, rows))
    low = np.searchsorted(rows, same[mine])
    counts = np.searchsorted(rows, same[mine], side="right") - low
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(mine, counts), numbers[order[np.repeat(low, counts) + within]]


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
    forms: UrlForms, bare: NDArray[np.int64], hosts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Rows]:
    """Return the digests of all that could list the hosts of rows: with and without `www.`, domains above."""
    above, parents = list_parents(forms.data, forms.first[hosts], forms.last[hosts])
    rows = np.concatenate([hosts, hosts, hosts[above]])
    starts = np.concatenate([bare[hosts], bare[hosts], parents])
    which = np.repeat([0, 1, 0], [len(hosts), len(hosts), len(above)])
    return rows, sha256_of_parts(forms.data, starts, forms.last[rows], (b"", b"www."), which)


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
