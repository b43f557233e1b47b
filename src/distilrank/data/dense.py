"""Dense retrieval: a corpus embedded once, its vectors on disk, searched exactly or through a usearch index."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.data.hits import Hits
from distilrank.data.vectors import embedded, read_block
from distilrank.engines.embedder import Embedder
from distilrank.errors import UserError
from distilrank.progress import Advance, bar

QUERIES_A_BLOCK = 1_024
INDEXES = ("exact", "usearch")


class DenseRetriever:
    """The passages of a corpus with the highest cosine, the passages' vectors rounded to float16.

    `exact` compares a query with every passage, block by block, so that memory does not grow with the corpus. `usearch`
    builds an HNSW index (float16) in memory, which answers faster and may miss a passage. The vectors are kept in the folder
    `kept`; without one they are gone with the retriever.
    """

    name = "dense"

    def __init__(
        self,
        passage: Callable[[int], str],
        count: int,
        embedder: Embedder,
        index: str = "exact",
        kept: Path | None = None,
    ) -> None:
        if index not in INDEXES:
            raise UserError(f"no index {index!r}: {', '.join(INDEXES)}")
        if index == "usearch":
            _usearch_library()  # said before hours of embedding
        self.embedder, self.count = embedder, count
        self._temporary = None if kept else tempfile.TemporaryDirectory(prefix="distilrank-vectors-")
        self._files = embedded(passage, count, embedder, kept or Path(self._temporary.name if self._temporary else ""))
        self._index = _usearch(self._files, count) if index == "usearch" else None

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
        start = 0
        for file in self._files:
            block = torch.from_numpy(read_block(file)).to(device)
            of_block = torch.arange(start, start + len(block), device=device).expand(len(asked), -1)
            scores, numbers = torch.cat([best, wanted @ block.T], 1), torch.cat([places, of_block], 1)
            best, kept = scores.topk(min(depth, scores.shape[1]))
            places = numbers.gather(1, kept)
            start += len(block)
        return places.cpu().numpy(), best.cpu().numpy()

    def _approximate(self, asked: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        assert self._index is not None
        found = self._index.search(asked, depth)
        keys, distances = (np.atleast_2d(part) for part in (found.keys, found.distances))
        return keys.astype(np.int64), 1.0 - distances.astype(np.float32)


def _usearch_library() -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise UserError("the index usearch needs its library: pip install 'distilrank[usearch]', or index exact") from None
    return Index


def _usearch(files: Sequence[Path], count: int) -> Any:
    index, start = None, 0
    with bar("index", count, "passages") as advance:
        for file in files:
            block = read_block(file)
            index = index or _usearch_library()(ndim=block.shape[1], metric="ip", dtype="f16")
            index.add(np.arange(start, start + len(block)), block)
            start += len(block)
            advance(len(block))
    return index
