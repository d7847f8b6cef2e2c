from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_fixtures_plain import check_mutations, collect_fixture, make_values, write_urls

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.entries import Collected, collect
from classifiers.blocklists.importers.protocol import ReadOptions
from classifiers.blocklists.importers.urls import UrlsImporter
from classifiers.blocklists.url_forms import ascii_domain, canonical_url

MD5 = [value.hex() for value in make_values("url_md5", 7, 3)]


def read(tmp_path, text: str, algorithm: str = "") -> Collected:
    path = tmp_path / "made.txt"
    path.write_text(text)
    return collect(UrlsImporter().read([path], ReadOptions(algorithm)))


def digests(*forms: str) -> list[bytes]:
    return sorted(hashlib.sha256(form.encode()).digest() for form in forms)


@pytest.mark.parametrize("records", [1, 40, 600])
def test_every_line_has_its_fate(tmp_path, records):
    collect_fixture(UrlsImporter(), write_urls(tmp_path, records, records))


def test_urls_and_domains_are_held_as_digests_of_one_form(tmp_path):
    text = (
        'HTTP://Example.COM:80/a,b?q="x"#top\n# note\n*.Bücher.Example.\nsub.example.com\nftp://example.com\ncom\n'
    )
    found = read(tmp_path, text)
    assert [row.tobytes() for row in found.rows["url"]] == digests('http://example.com/a,b?q="x"')
    assert [row.tobytes() for row in found.rows["domain"]] == digests("xn--bcher-kva.example", "sub.example.com")
    assert found.places == {
        "rejected: not a value of url": ("made.txt:5",),
        "rejected: not a value of domain": ("made.txt:6",),
    }


def test_columns_say_what_they_hold(tmp_path):
    text = f"domain,url,url_md5,category\nexample.com,,,A\n,https://example.com/,{MD5[0]},B\n,,,B\n"
    found = read(tmp_path, text)
    assert {name: len(rows) for name, rows in found.rows.items()} == {"domain": 1, "url": 1, "url_md5": 1}
    assert (found.taken, found.fates, found.categories) == (2, {"rejected": 1}, ("A", "B"))


def test_bare_lines_may_be_digests_of_urls(tmp_path):
    assert (read(tmp_path, "\n".join(MD5), "url_md5").taken, read(tmp_path, MD5[0], "url").taken) == (3, 0)
    with pytest.raises(ListError, match="--algorithm"):
        read(tmp_path, MD5[0], "md5")


@pytest.mark.parametrize(
    ("head", "sure"),
    [
        ("# note\nHTTPS://example.com/x,y\n", True),
        ("url_md5,category\n", True),
        ("url,md5\n", False),
        ("example.com\n", False),
        ("", False),
    ],
)
def test_a_list_of_urls_is_recognised_only_when_sure(head, sure):
    assert UrlsImporter().recognises(head.encode()) is sure


def test_no_damage_breaks_the_sum_or_tells_a_value(tmp_path):
    assert check_mutations(UrlsImporter(), write_urls(tmp_path, 1, 30), 1) < 100


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("http://example.com", "http://example.com/"),
        (" HTTPS://user:word@EXAMPLE.com.:443/%7Ea/%2f%e4?Q=%7e&&x#y ", "https://example.com/~a/%2F%E4?Q=%7e&&x"),
        ("http://example.com:8080/a b/ü?", "http://example.com:8080/a%20b/%C3%BC"),
        ("http://example.com/100%/%%34%31", "http://example.com/100%25/%2541"),
        ("http://straße.example/", "http://xn--strae-oqa.example/"),
        ("http://under_score.ü.example/", "http://under_score.xn--tda.example/"),
        ("http://[2001:DB8:0::1]:80/", "http://[2001:db8::1]/"),
        ("http://192.0.2.1/", "http://192.0.2.1/"),
    ],
)
def test_the_canonical_form_of_a_url(text, form):
    assert canonical_url(text) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "http://",
        "http://a..b/",
        "http://[::1/",
        "http://a:x/",
        "http://\ud800/",
    ],
)
def test_what_is_no_url_has_no_form(text):
    assert canonical_url(text) is None


@given(st.text(max_size=30), st.sampled_from(["", ":80", ":443", ":8"]))
def test_a_canonical_form_is_its_own_form(text, port):
    form = canonical_url(f"http://example.com{port}/{text}")
    assert form is None or canonical_url(form) == form


@given(st.text(max_size=30))
def test_an_ascii_domain_is_its_own_form(text):
    domain = ascii_domain(text)
    assert domain is None or (ascii_domain(domain) == domain and domain.isascii())
