import tomllib
from pathlib import Path

import numpy as np
import pytest

from classifiers.text.terms import SHIPPED, TermList, TermMatcher, TermsError, read_terms, shipped_terms

PANEL = Path(__file__).with_name("benign_captions.toml")
LANGUAGES = {"en", "de", "fr", "es", "pt", "it", "nl", "pl", "ru", "uk", "tr", "ar", "hi", "zh", "ja", "ko"}
MATCHER = TermMatcher([shipped_terms("minor"), shipped_terms("sexual")])


def found(text: str) -> set[str]:
    return {concept for concept, column in MATCHER.score_texts([text]).items() if column[0]}


@pytest.mark.parametrize("concept", ["minor", "sexual"])
def test_every_language_has_words_and_each_is_found_in_a_sentence_and_in_a_batch(concept):
    words = tomllib.loads((SHIPPED / f"{concept}.toml").read_text("utf-8"))
    assert words.keys() == LANGUAGES
    every = [word for language in words.values() for word in language]
    assert all(len(set(language)) == len(language) >= 10 for language in words.values())
    assert MATCHER.score_texts([f"1 {word}, 2" for word in every])[concept].all()


@pytest.mark.parametrize(
    "text",
    ["Desnúda", "ＮＵＤＥ photo", "nu\u200dde", "nu\u00adde", "n.u.d.e", "photo n u d e here", "nud3",
     "NUD3_01.jpg",
     "𝓃𝓊𝒹ℯ", "p0rn", "ＰØＲＮ", "обнажённая", "ОБНАЖЕ\u0308ННАЯ", "ﾇｰﾄﾞ写真", "ヌート\u3099", "裸体写真", "누드사진",
     "누드", "s3x-t4pe", "sex\n tape", "$ex", "nude写真", "#nude", "@nude", "nude™",
     "ⓝⓤⓓⓔ", "إِبَاحِيّ", "ÇIPLAK", "n u d 3", "nude2019"],
)  # fmt: skip
def test_a_word_is_found_however_it_is_written(text):
    assert "sexual" in found(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "Essex and Sussex", "denuded hills", "ユニセックス Tシャツ", "S U S S E X", "5 3 7", "533", "nuder",
     "xnude", "n u d es", "nu de", "537x", "секстант", "nud\ne", "ne\u0301e", "\ud800", "sextant 3d"],
)  # fmt: skip
def test_what_only_resembles_a_word_is_not_found(text):
    assert found(text) == set()


def test_numbers_are_no_words_and_one_and_l_are_not_swapped():
    matcher = TermMatcher([TermList("drawn", ("gill", "toss"))])
    texts = ["g1ll", "gi11", "giil", "glll", "7055", "t055", "to55er"]
    assert matcher.score_texts(texts)["drawn"].tolist() == [1, 1, 0, 0, 0, 1, 0]


def test_a_phrase_is_found_across_any_gap_but_not_across_texts():
    matcher = TermMatcher([TermList("drawn", ("red kite",))])
    texts = ["a Red_Kite!", "red - \u2013 kite", "redkite", "red", "kite", "red\nkite", "r3d k1te", "red big kite"]
    assert matcher.score_texts(texts)["drawn"].tolist() == [1, 1, 0, 0, 0, 1, 1, 0]


def test_an_absent_text_has_no_term():
    scores = MATCHER.score_texts([None, "naked child", None])
    assert {name: column.tolist() for name, column in scores.items()} == {"minor": [0, 1, 0], "sexual": [0, 1, 0]}
    assert all(column.dtype == np.float32 for column in scores.values())
    assert [column.shape for column in MATCHER.score_texts([]).values()] == [(0,), (0,)]


def test_texts_far_apart_in_a_long_column_keep_their_places():
    texts = [f"plain text {number}" for number in range(5000)]
    hits = [0, 1, 2047, 2048, 4095, 4096, 4999]
    for number in hits:
        texts[number] += " nude" if number % 2 else " обнажённая"
    assert np.flatnonzero(MATCHER.score_texts(texts)["sexual"]).tolist() == hits


def test_urls_are_read_as_words():
    urls = ["https://example.org/a/nude_art-01.jpg", "https://sex.example.org/", "https://example.org/%6Eude%20x",
            "https://essex.example.org/child.jpg", "https://example.org/%E8%A3%B8%E4%BD%93.png", None,
            "https://example.org/?q=nude+art"]  # fmt: skip
    scores = MATCHER.score_urls(urls)
    assert scores["sexual"].tolist() == [1, 1, 1, 0, 1, 0, 1]
    assert scores["minor"].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_a_partners_list_is_read_from_either_form_and_changes_the_full_name(tmp_path):
    plain, toml = tmp_path / "list.txt", tmp_path / "list.toml"
    plain.write_text("# a remark\n\n  Zyx\u00e9r \nwvut s\n", "utf-8-sig")
    toml.write_text('any = ["zyxer", "WVUT-S", "zyxer"]')
    listed = read_terms(plain, "sexual")
    assert listed == read_terms(toml, "sexual")
    assert listed.terms == ("wvut s", "zyxer")
    general = shipped_terms("sexual")
    joined = general.joined_with(listed)
    assert TermMatcher([joined]).score_texts(["ZYX3R"])["sexual"].tolist() == [1]
    assert joined.name == general.name == "sexual@1"
    assert joined.full_name != general.full_name == shipped_terms("sexual").full_name
    with pytest.raises(TermsError, match="'sexual', found one of 'minor'"):
        general.joined_with(shipped_terms("minor"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [("list.txt", b"secretterm\n\xff\n", "expected UTF-8"), ("list.toml", b"secretterm = [", "expected UTF-8"),
     ("list.toml", b'en = ["secretterm", 3]', "array 1, term 2"),
     ("list.txt", b"secretterm\n.x.\n", "array 1, term 2"),
     ("list.toml", b'secretterm = 1', "array 1, term 1"), ("list.txt", b"\n# secretterm\n", "found none"),
     ("list.txt", b"secretterm\n\xe2\x80\x8d\n", "array 1, term 2")],
)  # fmt: skip
def test_an_unreadable_list_is_refused_without_showing_a_term(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(TermsError, match=message) as caught:
        read_terms(path, "sexual")
    assert "secretterm" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_missing_list_is_refused_and_no_repr_shows_a_term(tmp_path):
    with pytest.raises(TermsError, match="cannot be read"):
        read_terms(tmp_path / "none.txt", "sexual")
    entry = TermList("drawn", ("secretterm",))
    assert "secretterm" not in repr(entry) + repr(TermMatcher([entry]))


def test_the_panel_is_large_enough_to_give_a_rate_and_its_children_are_found():
    panel = tomllib.loads(PANEL.read_text("utf-8"))
    assert panel.keys() == {"medical", "art", "school", "everyday"}
    without = [text for group in panel.values() for text in group["without_children"]]
    with_children = [text for group in panel.values() for text in group["with_children"]]
    assert len(without) + len(with_children) >= 60
    assert MATCHER.score_texts(with_children)["minor"].all()
    assert not MATCHER.score_texts(with_children)["sexual"].any()
