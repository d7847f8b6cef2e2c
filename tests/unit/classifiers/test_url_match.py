"""URLs however they are spelled: a listed one is found; the short way to the canonical form is the long one."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_lists import stored_list

from classifiers.blocklists.algorithms import URL_WIDTHS
from classifiers.blocklists.lists import HashList, make_feeds
from classifiers.blocklists.match import match_digests
from classifiers.blocklists.sha256_kernel import sha256_of_parts
from classifiers.blocklists.stored import set_digest
from classifiers.blocklists.url_forms import canonical_url
from classifiers.blocklists.url_match import URL_ALGORITHMS, match_urls, read_urls


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def url_list(*entries: tuple[str, bytes], list_id: str = "a") -> HashList:
    stored = stored_list([(*entry, "all") for entry in entries], {"all": "remove"})
    about = {"list_id": list_id, "version": 1, "purpose": "ncii", "source": list_id, "radius": 31, "radius64": 4}
    (made,) = make_feeds(stored, **about, set_digest=set_digest(stored.rows), algorithms=tuple(URL_WIDTHS))
    return made


def rows_of(urls, *lists) -> list[int]:
    return match_urls(urls, lists).row.tolist()


SPELLINGS = [
    "http://example.org/a%20b?q=1",
    "https://example.org/a%20b?q=1",
    "http://www.example.org/a%20b?q=1",
    "HTTPS://WWW.Example.ORG:443/a%20b?q=1#part",
    "https://user:word@example.org./a b?q=1",
    "https://example.org/%61%20b?q=1",
    "https://example.org/x/../a%20b?q=1",
    "https://www.example.org/./a%20b?q=1",
]


@pytest.mark.parametrize("listed", [form for url in SPELLINGS if (form := canonical_url(url)) and "/." not in url])
def test_every_spelling_of_a_listed_url_is_found(listed):
    assert rows_of(SPELLINGS, url_list(("url", sha256(listed)))) == list(range(len(SPELLINGS)))


def test_other_places_are_not_found():
    others = ["https://example.org/a%20b", "https://a.example.org/a%20b?q=1", "https://example.org/A%20b?q=1", "x",
              None, "", "ftp://example.org/a%20b?q=1", "https://example.org:8080/a%20b?q=1"]  # fmt: skip
    assert rows_of(others, url_list(("url", sha256("https://example.org/a%20b?q=1")))) == []


@pytest.mark.parametrize("algorithm", ["url_md5", "url_sha256"])
def test_a_digest_of_a_url_is_of_what_its_owner_wrote(algorithm):
    take = {"url_md5": hashlib.md5, "url_sha256": hashlib.sha256}[algorithm]
    written = "HTTP://Example.org/Some Page#top"
    listed = url_list((algorithm, take(written.encode()).digest()))
    assert rows_of([written, canonical_url(written)], listed) == [0]
    listed = url_list((algorithm, take(b"http://www.example.org/a").digest()))
    assert rows_of(["https://EXAMPLE.org/a", "https://example.org/b"], listed) == [0]


def test_a_domain_lists_what_lies_below_it():
    listed = url_list(
        ("domain", sha256("example.org")), ("domain", sha256("www.b.test")), ("domain", sha256("10.1.2.3"))
    )
    urls = ["http://example.org/", "https://www.a.example.org:99/x", "http://notexample.org/", "http://org/",
            "https://b.test/", "https://a.b.test/", "http://10.1.2.3/x", "http://9.10.1.2.3.test/"]  # fmt: skip
    assert rows_of(urls, listed) == [0, 1, 4, 6]


def test_hits_name_list_algorithm_and_entry_once_each_in_order():
    url = "https://a.example.org/x"
    one = url_list(("domain", sha256("example.org")), ("domain", sha256("a.example.org")), ("url", sha256(url)))
    hits = match_urls(pa.array([None, url, url]), [url_list(("url", sha256("http://b.test/"))), one])
    named = zip(hits.row, hits.place, [URL_ALGORITHMS[a] for a in hits.algorithm], hits.number, strict=True)
    expected = [(row, 1, "url", 0) for row in (1, 2)] + [(row, 1, "domain", n) for row in (1, 2) for n in (0, 1)]
    assert sorted(named) == sorted(expected)
    assert (np.diff(hits.row) >= 0).all()


PIECES = (
    "http https HTTP :// : / // www. a Z 9 example.org ex-a_m.co . .. 1.2.3.4 %20 %2e %2E %7E %zz % ? ?? # @"
    " ; &= [ ] [::1] \\ é ß 日本 \" { | :80 :443 ' ~ \x7f xn--p1ai"
)
pieces = st.sampled_from([*PIECES.split(" "), " ", "\t", "\n", "\x00", "a" * 64, "b." * 127])
texts = st.lists(pieces, max_size=8).map("".join)
urls = st.one_of(
    texts, texts.map("http://example.org/".__add__), texts.map("https://a.b/?".__add__), st.text(max_size=30)
)


@settings(max_examples=600, deadline=None)
@given(st.lists(urls, max_size=20))
def test_the_short_way_to_the_canonical_form_is_the_long_one(some):
    forms = read_urls([text.encode(errors="replace").decode() for text in some])
    for row, (text, digest) in enumerate(zip(some, forms.digests(), strict=True)):
        slow = canonical_url(text.encode(errors="replace").decode())
        assert forms.data[forms.starts[row] : forms.ends[row]].tobytes() == (slow or "").encode()
        assert forms.usable[row] == (slow is not None)
        assert digest.tobytes() == sha256(slow or "")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2)), max_size=40), st.binary(max_size=5000))
def test_sha_256_of_many_texts_side_by_side_is_that_of_each(texts, long):
    texts = [*texts, (long, 1)]
    heads = (b"", b"http://", b"https://www.")
    ends = np.cumsum([len(text) for text, _ in texts])
    starts, which = ends - [len(text) for text, _ in texts], np.array([head for _, head in texts])
    data = np.frombuffer(b"".join(text for text, _ in texts), np.uint8)
    taken = sha256_of_parts(data, starts, ends, heads, which)
    assert [row.tobytes() for row in taken] == [hashlib.sha256(heads[head] + text).digest() for text, head in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, unique=True), st.lists(st.integers(0, 60)), st.integers(0, 2))
def test_a_sieve_changes_no_hit(listed, asked, shape):
    spread = [
        lambda n: n.to_bytes(16),
        lambda n: (n << 122).to_bytes(16),
        lambda n: hashlib.md5(bytes([n])).digest(),
    ]
    values = [spread[shape](n) for n in asked]
    column = url_list(*(("url_md5", spread[shape](n)) for n in listed))
    queries = np.frombuffer(b"".join(values), np.uint8).reshape(-1, 16)
    plain, sieved = (match_digests(one, "url_md5", queries) for one in (column, column.sieved()))
    assert plain.row.tolist() == sieved.row.tolist() == [row for row, n in enumerate(asked) if n in listed]
    assert plain.number.tolist() == sieved.number.tolist()
