"""BM25 against its formula, written out."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.data import bm25_scores, words
from distilrank.records import Group, Passage

WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "如", "何"])
texts = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
groups_of_texts = st.lists(
    st.builds(
        lambda query, passages: Group("", query, tuple(map(Passage, passages))),
        texts,
        st.lists(texts, min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=4,
)


def formula(groups: list[Group], k1: float = 1.2, b: float = 0.75) -> list[list[float]]:
    corpus = {p.text: p.text.split() for group in groups for p in group.passages}
    mean = sum(map(len, corpus.values())) / len(corpus)

    def score(query: str, passage: str) -> float:
        total, document = 0.0, corpus[passage]
        for word in query.split():
            holding = sum(word in other for other in corpus.values())
            weight = log(1 + (len(corpus) - holding + 0.5) / (holding + 0.5))
            count = document.count(word)
            total += weight * count / (count + k1 * (1 - b + b * len(document) / mean))
        return total

    return [[score(group.query, passage.text) for passage in group.passages] for group in groups]


@settings(max_examples=50)
@given(groups=groups_of_texts)
def test_scores_are_the_formulas(groups: list[Group]) -> None:
    for found, wanted in zip(bm25_scores(groups), formula(groups), strict=True):
        assert found.dtype == np.float32
        assert found.tolist() == pytest.approx(wanted, abs=1e-4)


def test_a_query_without_a_known_word_scores_nothing() -> None:
    (found,) = bm25_scores([Group("", "?!", (Passage("alpha"), Passage("...")))])
    assert found.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("getHTTPResponse2 my_file.txt", ["get", "httpresponse2", "my", "file", "txt"]),
        ("如何安装 Python3?", ["如", "何", "安", "装", "python3"]),
        ("カタ한글", ["カ", "タ", "한", "글"]),
        ("Über naïve", ["über", "naïve"]),
        ("-- !?", []),
    ],
)
def test_words(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted
