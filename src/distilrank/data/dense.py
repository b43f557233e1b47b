"""Dense retrieval: a corpus embedded once into a temporary file, searched exactly or through a usearch index."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data.hits import Hits
from distilrank.engines.embedder import Embedder
from distilrank.errors import UserError
from distilrank.progress import Advance, bar

PASSAGES_A_BLOCK = 8_192
QUERIES_A_BLOCK = 1_024
INDEXES = ("exact", "usearch")


class DenseRetriever:
    """The passages of a corpus with the highest cosine.

    `exact` compares a query with every passage, block by block, so that memory does not grow with the corpus. `usearch`
    builds an HNSW index (float16) in memory, which answers faster and may miss a passage.
    """

    name = "dense"

    def __init__(self, passages: Iterable[str], count: int, embedder: Embedder, index: str = "exact") -> None:
        if index not in INDEXES:
            raise UserError(f"no index {index!r}: {', '.join(INDEXES)}")
        self.embedder, self.count = embedder, count
        self._folder = tempfile.TemporaryDirectory(prefix="distilrank-vectors-")
        texts = iter(passages)
        self._vectors: Any = None
        with bar("embed", count, "passages") as advance:
            for start in range(0, count, PASSAGES_A_BLOCK):
                block = embedder.embed(list(islice(texts, PASSAGES_A_BLOCK)), "document")
                if self._vectors is None:
                    file, shape = Path(self._folder.name) / "vectors", (count, block.shape[1])
                    self._vectors = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
                self._vectors[start : start + len(block)] = block
                advance(len(block))
        self._index = _usearch(self._vectors) if index == "usearch" else None

    def search(self, queries: Sequence[str], depth: int, advance: Advance = lambda done: None) -> Hits:
        """The best `depth` passages of each query by cosine."""
        depth = min(depth, self.count)
        numbers = np.full((len(queries), depth), -1, dtype=np.int64)
        scores = np.zeros((len(queries), depth), dtype=np.float32)
        for start in range(0, len(queries), QUERIES_A_BLOCK):
            some = slice(start, min(start + QUERIES_A_BLOCK, len(queries)))
            asked = self.embedder.embed(queries[some], "query")
            numbers[some], scores[some] = self._approximate(asked, depth) if self._index else self._exact(asked, depth)
            advance(len(asked))
        return Hits(numbers, scores)

    def _exact(self, asked: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        device = self.embedder.device
        wanted = torch.from_numpy(asked).to(device)
        best = torch.empty((len(asked), 0), device=device)
        places = torch.empty((len(asked), 0), dtype=torch.long, device=device)
        for start in range(0, self.count, PASSAGES_A_BLOCK):
            block = torch.from_numpy(np.array(self._vectors[start : start + PASSAGES_A_BLOCK])).to(device)
            of_block = torch.arange(start, start + len(block), device=device).expand(len(asked), -1)
            scores, numbers = torch.cat([best, wanted @ block.T], 1), torch.cat([places, of_block], 1)
            best, kept = scores.topk(min(depth, scores.shape[1]))
            places = numbers.gather(1, kept)
        return places.cpu().numpy(), best.cpu().numpy()

    def _approximate(self, asked: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        assert self._index is not None
        found = self._index.search(asked, depth)
        keys, distances = (np.atleast_2d(part) for part in (found.keys, found.distances))
        return keys.astype(np.int64), 1.0 - distances.astype(np.float32)


def _usearch(vectors: np.ndarray) -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise UserError("the index usearch needs its library: pip install 'distilrank[usearch]', or index exact") from None
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
    with bar("index", len(vectors), "passages") as advance:
        for start in range(0, len(vectors), PASSAGES_A_BLOCK):
            block = np.array(vectors[start : start + PASSAGES_A_BLOCK])
            index.add(np.arange(start, start + len(block)), block)
            advance(len(block))
    return index
