"""Words for BM25: one way for every language, or a language's own stop words, stemming and Chinese segmentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from distilrank.errors import UserError, did_you_mean

LANGUAGES = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish", "zh": "chinese",
}  # fmt: skip
"""What Snowball stems, and Chinese, which jieba cuts into words."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_CHINESE = re.compile(r"([\u3400-\u9fff]+)")

Words = Callable[[str], list[str]]


def words(text: str) -> list[str]:
    """Lower-case words; camelCase and snake_case are split, each Chinese, Japanese or Korean character is a word."""
    spaced = re.sub(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])", r" \1 ", text)
    return _WORD.findall(_CAMEL.sub(" ", spaced).lower())


def words_of(language: str) -> Words:
    """The words of a language by its two letters: stop words (bm25s') left out, the others stemmed (Snowball).

    `any` is `words`. Raises `UserError` for a language that is not known or whose library is missing.
    """
    if language == "any":
        return words
    if language not in LANGUAGES:
        raise UserError(f"no language {language!r}: {did_you_mean(language, [*LANGUAGES, 'any'])}")
    stop = _stop_words(LANGUAGES[language])
    if language == "zh":
        jieba = _jieba()

        def chinese(text: str) -> list[str]:
            pieces = _CHINESE.split(text)  # every second piece is Chinese
            found = [
                word for number, piece in enumerate(pieces) for word in (jieba.lcut(piece) if number % 2 else words(piece))
            ]
            return [word for word in found if word not in stop]

        return chinese
    stemmer = _stemmer(LANGUAGES[language])

    def stemmed(text: str) -> list[str]:
        found: list[str] = stemmer.stemWords([word for word in words(text) if word not in stop])
        return found

    return stemmed


@cache
def _stop_words(name: str) -> frozenset[str]:
    from bm25s import stopwords

    found = stopwords.STOPWORDS_EN if name == "english" else getattr(stopwords, f"STOPWORDS_{name.upper()}", ())
    return frozenset(found)


def _stemmer(name: str) -> Any:
    try:
        import Stemmer
    except ImportError:
        raise UserError("a language's stems need PyStemmer: pip install 'distilrank[languages]', or language any") from None
    return Stemmer.Stemmer(name)


@cache
def _jieba() -> Any:
    try:
        import jieba
    except ImportError:
        raise UserError("Chinese words need jieba: pip install 'distilrank[languages]', or language any") from None
    jieba.setLogLevel("ERROR")
    jieba.initialize()
    return jieba
