"""BM25 through bm25s: a baseline on given candidates, and lexical neighbours in a corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from distilrank.records import Group

K1, B = 1.2, 0.75
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case words; camelCase and snake_case are split, each Chinese, Japanese or Korean character is a word."""
    spaced = re.sub(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])", r" \1 ", text)
    return _WORD.findall(_CAMEL.sub(" ", spaced).lower())


def bm25_index(passages: Sequence[str]) -> object:
    """A bm25s index of passages (k1 1.2, b 0.75, Lucene's idf)."""
    import bm25s

    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index([words(text) or ["\0"] for text in passages], show_progress=False)
    return index


def bm25_scores(groups: Sequence[Group]) -> list[np.ndarray]:
    """BM25 of each query on its own candidates, float32 [passages] a group; idf is that of all the groups' passages."""
    texts = list(dict.fromkeys(passage.text for group in groups for passage in group.passages))
    place = {text: number for number, text in enumerate(texts)}
    index = bm25_index(texts)
    result = []
    for group in groups:
        scores = index.get_scores(words(group.query) or ["\1"])  # type: ignore[attr-defined]
        result.append(np.asarray([scores[place[passage.text]] for passage in group.passages], dtype=np.float32))
    return result
