"""Candidates where there are none: queries and a corpus become groups, by BM25, an embedder, or both fused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distilrank.data.bm25 import Bm25Retriever
from distilrank.data.corpus import Corpus, Document, Query
from distilrank.data.dense import DenseRetriever
from distilrank.data.hits import Hits, Retriever, fused
from distilrank.data.words import words_of
from distilrank.engines.embedder import Embedder
from distilrank.errors import UserError, did_you_mean
from distilrank.progress import bar, say
from distilrank.records import Group, Passage

RETRIEVERS = ("bm25", "dense", "hybrid")
QUERIES_A_WINDOW = 1_000


def make_retrievers(
    corpus: Corpus,
    name: str,
    *,
    language: str = "any",
    embedder: Callable[[], Embedder],
    index: str = "exact",
    vectors: Path | None = None,
) -> list[Retriever]:
    """The retrievers behind a name, their indexes built: `bm25`, `dense`, or `hybrid`, which is both.

    The passages' vectors are kept in the folder `vectors`, where one is given.
    """
    if name not in RETRIEVERS:
        raise UserError(f"no retriever {name!r}: {did_you_mean(name, RETRIEVERS)}")
    found: list[Retriever] = []
    if name != "dense":
        found.append(Bm25Retriever((document.passage for document in corpus), words_of(language)))
    if name != "bm25":
        found.append(DenseRetriever(lambda number: corpus[number].passage, len(corpus), embedder(), index, vectors))
    return found


def candidates(
    corpus: Corpus,
    queries: Sequence[Query],
    retrievers: Sequence[Retriever],
    depth: int = 30,
    random_negatives: int = 0,
    seed: int = 0,
) -> Iterator[Group]:
    """A group a query: its best `depth` passages, best first, each with who found it (`bm25`, `dense`, `bm25+dense`) and its
    rank from 1; then `random_negatives` passages that were not found, with the source `random` and no rank.

    A passage that is the query itself is left out, and so is a query for which nothing is found, which is told. Where a
    query was made from a passage, that one's label is 1 and the others' is 0. Raises `UserError` when no query is left.
    """
    if depth < 1 or random_negatives < 0:
        raise UserError(f"depth must be at least 1 and random negatives at least 0: {depth} and {random_negatives}")
    rng = random.Random(f"random negatives {seed}")
    without = 0
    with bar("candidates", len(queries), "queries") as advance:
        for start in range(0, len(queries), QUERIES_A_WINDOW):
            window = queries[start : start + QUERIES_A_WINDOW]
            best, sources = search(retrievers, [query.text for query in window], depth + 1)
            for query, numbers, found_by in zip(window, best.numbers.tolist(), sources, strict=True):
                passages = _passages(corpus, query, numbers, found_by)[:depth]
                if passages:
                    passages += _random(corpus, query, set(numbers), random_negatives, rng)
                    yield Group(query.id, query.text, tuple(passages))
                without += not passages
            advance(len(window))
    if without and without == len(queries):
        raise UserError("nothing was found for any query: are corpus and queries of one language?")
    if without:
        say(f"  {without:,} queries are left out: nothing was found for them")


def search(retrievers: Sequence[Retriever], queries: Sequence[str], depth: int) -> tuple[Hits, list[dict[int, str]]]:
    """The best `depth` passages of each query, fused where there are several retrievers, and who found each passage.

    Of each retriever the best `depth` are fused, no more: the sum of two ranks far down is larger than one rank at the top,
    so longer lists let passages in that both find and neither finds good (docs/log.md).
    """
    found = [retriever.search(queries, depth) for retriever in retrievers]
    sources: list[dict[int, str]] = [{} for _ in queries]
    for retriever, hits in zip(retrievers, found, strict=True):
        for source, numbers in zip(sources, hits.numbers.tolist(), strict=True):
            source |= {n: f"{source[n]}+{retriever.name}" if n in source else retriever.name for n in numbers}
    return found[0] if len(found) == 1 else fused(found, depth), sources


def _passages(corpus: Corpus, query: Query, numbers: Sequence[int], sources: dict[int, str]) -> list[Passage]:
    found = [(corpus[number], sources[number]) for number in numbers if number >= 0]
    others = [(document, source) for document, source in found if document.passage != query.text]
    return [_passage(document, query, source, rank) for rank, (document, source) in enumerate(others, start=1)]


def _random(corpus: Corpus, query: Query, found: set[int], most: int, rng: random.Random) -> list[Passage]:
    if not most:
        return []
    drawn = [number for number in rng.sample(range(len(corpus)), min(most + len(found), len(corpus))) if number not in found]
    documents = (corpus[number] for number in drawn)
    others = [document for document in documents if document.passage != query.text and document.id != query.passage]
    return [_passage(document, query, "random", None) for document in others[:most]]


def _passage(document: Document, query: Query, source: str, rank: int | None) -> Passage:
    label = None if query.passage is None else int(document.id == query.passage)
    return Passage(document.passage, id=document.id, label=label, source=source, rank=rank)
