"""Retrieval against independent ways of doing the same, and the groups that come of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrank.data import candidates as module
from distilrank.data.bm25 import Bm25Retriever
from distilrank.data.candidates import candidates, make_retrievers, search
from distilrank.data.corpus import Corpus, Document, Query
from distilrank.data.dense import DenseRetriever
from distilrank.data.hits import Hits, fused
from distilrank.data.words import words
from distilrank.engines.embedder import Embedder
from distilrank.errors import UserError

TEXT = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon"]), min_size=1, max_size=6).map(" ".join)
RANKING = st.lists(st.integers(0, 20), max_size=8, unique=True)


class Bag:
    """Stands in for an embedder: a text is the direction of its letters' counts."""

    device = "cpu"
    name = "bag"

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        counts = np.array([[text.count(letter) + 0.01 for letter in "abcdegilmnopst"] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def dense(passages: Sequence[str], index: str = "exact") -> DenseRetriever:
    return DenseRetriever(passages.__getitem__, len(passages), Bag(), index)  # type: ignore[arg-type]


def found(hits: Hits, row: int = 0) -> list[int]:
    return [number for number in hits.numbers[row].tolist() if number >= 0]


# ---- retrievers


@settings(max_examples=30)
@given(passages=st.lists(TEXT, min_size=1, max_size=12), query=TEXT, depth=st.integers(1, 15))
def test_bm25_finds_what_bm25s_itself_finds(passages: list[str], query: str, depth: int) -> None:
    own = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    own.index([passage.split() for passage in passages], show_progress=False)
    wanted = own.retrieve([query.split()], k=min(depth, len(passages)), show_progress=False)
    hits = Bm25Retriever(iter(passages)).search([query], depth)
    np.testing.assert_array_equal(hits.scores, wanted.scores)
    number = found(hits)
    assert len(number) == (wanted.scores > 0).sum()
    # Which of equally good passages comes first is numpy's choice: their scores are what must agree.
    np.testing.assert_array_equal(own.get_scores(query.split())[number], hits.scores[0][: len(number)])


def test_bm25_finds_the_positives_that_bm25s_finds_on_real_questions(real_data: Path) -> None:
    rows = [json.loads(line) for line in (real_data / "askubuntu_dup/test.jsonl").read_text().splitlines()]
    passages = list(dict.fromkeys(text for row in rows for text in row["positive"] + row["negative"]))
    own = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    own.index([words(passage) for passage in passages], show_progress=False)
    ours = Bm25Retriever(passages).search([row["query"] for row in rows], 30)
    theirs = own.retrieve([words(row["query"]) for row in rows], k=30, show_progress=False).documents

    def recall(numbers: list[list[int]]) -> float:
        texts = [{passages[number] for number in some if number >= 0} for some in numbers]
        shares = [len(text & set(row["positive"])) / len(row["positive"]) for text, row in zip(texts, rows, strict=True)]
        return float(np.mean(shares))

    assert recall(ours.numbers.tolist()) == recall(theirs.tolist())
    assert recall(theirs.tolist()) > 0.4


@settings(max_examples=20)
@given(
    passages=st.lists(TEXT, min_size=1, max_size=30), queries=st.lists(TEXT, min_size=1, max_size=3), depth=st.integers(1, 9)
)
def test_dense_finds_the_nearest_whatever_the_blocks(passages: list[str], queries: list[str], depth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distilrank.data.vectors.PASSAGES_A_BLOCK", 7)
        patch.setattr("distilrank.data.dense.QUERIES_A_BLOCK", 2)
        hits = dense(passages).search(queries, depth)
    cosines = Bag().embed(queries, "query") @ Bag().embed(passages, "document").T
    best = -np.sort(-cosines, axis=1)[:, : min(depth, len(passages))]
    # The passages' vectors are float16.
    np.testing.assert_allclose(hits.scores, best, atol=2e-3)
    np.testing.assert_allclose(np.take_along_axis(cosines, hits.numbers, 1), best, atol=2e-3)
    assert all(len(set(row)) == len(row) for row in hits.numbers.tolist())


def test_a_usearch_index_finds_nearly_all_of_the_nearest() -> None:
    pytest.importorskip("usearch")
    rng = np.random.default_rng(0)
    passages = ["".join(rng.choice(list("abcdegilmnopst"), 12)) for _ in range(400)]
    exact, near = (dense(passages, index).search(passages[:20], 10) for index in ("exact", "usearch"))
    shared = [len(set(one) & set(other)) for one, other in zip(exact.numbers.tolist(), near.numbers.tolist(), strict=True)]
    assert np.mean(shared) > 8
    np.testing.assert_allclose(near.scores[:, 0], 1, atol=1e-2)


def test_an_embedder_of_sentence_transformers_finds_a_text_itself(embedder: Path) -> None:
    passages = ["river stone", "silver paper candle", "winter forest", "castle"]
    retriever = DenseRetriever(passages.__getitem__, 4, Embedder(embedder, dtype="float32", device="cpu"))
    hits = retriever.search(passages, 2)
    assert hits.numbers[:, 0].tolist() == [0, 1, 2, 3]


@given(rankings=st.lists(RANKING, min_size=1, max_size=3), depth=st.integers(1, 12))
def test_fusion_is_the_sum_of_reciprocal_ranks(rankings: list[list[int]], depth: int) -> None:
    rows = [np.array([ranking + [-1] * (8 - len(ranking))]) for ranking in rankings]
    hits = fused([Hits(row, np.zeros_like(row, dtype=np.float32)) for row in rows], depth)
    everything = {number for ranking in rankings for number in ranking}

    def score(number: int) -> float:
        return sum(1 / (61 + ranking.index(number)) for ranking in rankings if number in ranking)

    best = sorted((score(number) for number in everything), reverse=True)[:depth]
    np.testing.assert_allclose([score(number) for number in found(hits)], best)
    np.testing.assert_allclose(hits.scores[0][: len(best)], best, rtol=1e-6)


# ---- groups

TEXTS = ["alpha beta", "beta gamma", "gamma delta", "delta epsilon", "alpha alpha", "epsilon"]


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(Document(f"d{number}", text) for number, text in enumerate(TEXTS))


def retrievers(corpus: Corpus, name: str) -> list[Any]:
    return make_retrievers(corpus, name, embedder=Bag)  # type: ignore[arg-type]


def test_each_candidate_says_who_found_it_and_where(corpus: Corpus) -> None:
    (group,) = candidates(corpus, [Query("q", "alpha")], retrievers(corpus, "bm25"), 3)
    assert (group.query_id, group.query) == ("q", "alpha")
    assert [(p.id, p.text, p.source, p.rank, p.label) for p in group.passages] == [
        ("d4", "alpha alpha", "bm25", 1, None),
        ("d0", "alpha beta", "bm25", 2, None),
    ]
    (group,) = candidates(corpus, [Query("q", "alpha", "d0")], retrievers(corpus, "hybrid"), 4)
    assert [p.rank for p in group.passages] == [1, 2, 3, 4]
    assert {p.id: p.source for p in group.passages} == {"d4": "bm25+dense", "d0": "bm25+dense"} | {
        p.id: "dense" for p in group.passages[2:]
    }
    assert {p.id: p.label for p in group.passages} == {p.id: int(p.id == "d0") for p in group.passages}


@given(most=st.integers(0, 8), seed=st.integers(0, 5))
def test_random_negatives_were_not_found(most: int, seed: int) -> None:
    with Corpus(Document(f"d{number}", text) for number, text in enumerate(TEXTS)) as corpus:
        (group,) = candidates(corpus, [Query("q", "alpha", "d2")], retrievers(corpus, "bm25"), 5, most, seed)
        drawn = [passage for passage in group.passages if passage.source == "random"]
        assert {passage.id for passage in drawn} <= {"d1", "d3", "d5"}
        assert len({passage.id for passage in drawn}) == len(drawn) == min(most, 3)
        assert all((passage.rank, passage.label) == (None, 0) for passage in drawn)


def test_the_query_itself_is_no_candidate(corpus: Corpus) -> None:
    (group,) = candidates(corpus, [Query("q", "alpha beta")], retrievers(corpus, "bm25"), 2)
    assert [(p.id, p.rank) for p in group.passages] == [("d4", 1), ("d1", 2)]


def test_windows_change_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [Query(str(number), text) for number, text in enumerate(["alpha", "beta x", "gamma", "epsilon delta", "beta"])]
    whole = list(candidates(corpus, queries, retrievers(corpus, "hybrid"), 3, 1))
    monkeypatch.setattr(module, "QUERIES_A_WINDOW", 2)
    assert list(candidates(corpus, queries, retrievers(corpus, "hybrid"), 3, 1)) == whole
    assert [group.query for group in whole] == [query.text for query in queries]


def test_a_query_without_hits_is_left_out_and_told(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [Query("1", "alpha"), Query("2", "unknown"), Query("3", "?!")]
    assert [group.query_id for group in candidates(corpus, asked, retrievers(corpus, "bm25"))] == ["1"]
    assert "2 queries are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="nothing was found for any query"):
        list(candidates(corpus, asked[1:], retrievers(corpus, "bm25")))


class Ranked:
    """Finds the same passages for every query."""

    def __init__(self, name: str, *ranking: int) -> None:
        self.name, self.ranking = name, ranking

    def search(self, queries: Sequence[str], depth: int, advance: Any = None) -> Hits:
        numbers = np.array([self.ranking[:depth]] * len(queries))
        return Hits(numbers, np.zeros_like(numbers, dtype=np.float32))


def test_what_one_finds_at_the_top_is_not_pushed_out_by_what_both_find_far_down() -> None:
    far = tuple(range(50, 90))
    one, other = Ranked("one", *range(20), *far), Ranked("other", *range(20, 40), *far)
    hits, sources = search([one, other], ["q"], 10)
    assert set(found(hits)) == {0, 1, 2, 3, 4, 20, 21, 22, 23, 24}
    assert sources[0] == dict.fromkeys(range(10), "one") | dict.fromkeys(range(20, 30), "other")


def test_what_makes_no_sense_is_refused(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'dense'"):
        retrievers(corpus, "dens")
    with pytest.raises(UserError, match="no index 'faiss': exact, usearch"):
        dense(TEXTS, "faiss")
    with pytest.raises(UserError, match="depth must be at least 1"):
        list(candidates(corpus, [Query("q", "alpha")], retrievers(corpus, "bm25"), 0))
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(UserError, match=r"pip install 'distilrank\[usearch\]'"):
        dense(TEXTS, "usearch")
