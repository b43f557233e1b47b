"""Words by language: stop words out, stems, Chinese words; a missing library is named."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.data.words import LANGUAGES, words, words_of
from distilrank.errors import UserError


@pytest.mark.parametrize(
    ("language", "text", "wanted"),
    [
        ("en", "The bridges were not connected to getPassages", ["bridg", "were", "connect", "get", "passag"]),
        ("de", "Die Häuser und das Haus", ["haus", "haus"]),
        ("fr", "les maisons de la ville", ["maison", "vill"]),
        ("ru", "в большом городе", ["больш", "город"]),
        ("fi", "taloissa", ["talo"]),
        ("zh", "我来到北京清华大学 Python3", ["来到", "北京", "清华大学", "python3"]),
    ],
)
def test_words_of_a_language(language: str, text: str, wanted: list[str]) -> None:
    assert words_of(language)(text) == wanted


@given(st.text())
def test_any_is_words_as_they_are(text: str) -> None:
    assert words_of("any")(text) == words(text)


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "zh"])
def test_every_language_has_its_stemmer(language: str) -> None:
    assert words_of(language)("xylophone") != []


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserError, match="no language 'english': known: any, ar, "):
        words_of("english")


@pytest.mark.parametrize(("library", "language"), [("Stemmer", "en"), ("jieba", "zh")])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str, language: str) -> None:
    from distilrank.data.words import _jieba

    _jieba.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"pip install 'distilrank\[languages\]'"):
        words_of(language)
