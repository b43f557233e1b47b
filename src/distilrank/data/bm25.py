"""BM25 through bm25s: a baseline on given candidates, and the best passages of a corpus."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distilrank.data.hits import Hits
from distilrank.data.words import Words, words
from distilrank.progress import Advance
from distilrank.records import Group

K1, B = 1.2, 0.75


def bm25_index(passages: Iterable[str], tokenise: Words = words) -> Any:
    """A bm25s index of passages (k1 1.2, b 0.75, Lucene's idf), the passages' words held as numbers of 4 bytes."""
    # bm25s imports JAX where it finds it, and JAX takes three quarters of a GPU's memory: the teacher's.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import bm25s

    index = bm25s.BM25(k1=K1, b=B, method="lucene", csc_backend="scipy")
    index.index(_Tokenised(passages, tokenise), show_progress=False)
    return index


def bm25_scores(groups: Sequence[Group]) -> list[np.ndarray]:
    """BM25 of each query on its own candidates, float32 [passages] a group; idf is that of all the groups' passages."""
    texts = list(dict.fromkeys(passage.text for group in groups for passage in group.passages))
    place = {text: number for number, text in enumerate(texts)}
    index = bm25_index(texts)
    result = []
    for group in groups:
        scores = index.get_scores(words(group.query) or ["\1"])
        result.append(np.asarray([scores[place[passage.text]] for passage in group.passages], dtype=np.float32))
    return result


class Bm25Retriever:
    """The passages of a corpus with the highest BM25; one that shares no word with the query is never found."""

    name = "bm25"

    def __init__(self, passages: Iterable[str], tokenise: Words = words) -> None:
        self.index, self.tokenise = bm25_index(passages, tokenise), tokenise

    def search(self, queries: Sequence[str], depth: int, advance: Advance = lambda done: None) -> Hits:
        """The best `depth` passages of each query."""
        depth = min(depth, self.index.scores["num_docs"])
        numbers = np.full((len(queries), depth), -1, dtype=np.int64)
        scores = np.zeros((len(queries), depth), dtype=np.float32)
        for row, query in enumerate(queries):
            found = self.index.retrieve([self.tokenise(query)], k=depth, show_progress=False)
            shared = found.scores[0] > 0
            numbers[row, : shared.sum()], scores[row] = found.documents[0][shared], found.scores[0]
            advance(1)
        return Hits(numbers, scores)


class _Tokenised:
    """What bm25s takes for a tokenised corpus (`ids`, `vocab`), with all tokens in one array of 4 bytes each."""

    def __init__(self, passages: Iterable[str], tokenise: Words) -> None:
        self.vocab: dict[str, int] = {}
        self.ids = self
        self._tokens, self._ends = array("i"), array("q", [0])
        for passage in passages:
            self._tokens.extend(self.vocab.setdefault(word, len(self.vocab)) for word in tokenise(passage) or ["\0"])
            self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            yield self._tokens[start:end].tolist()
