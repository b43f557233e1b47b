"""What a retriever finds, and several retrievers' finds fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distilrank.progress import Advance

RRF_K = 60


@dataclass(frozen=True)
class Hits:
    """Passages found for each query, best first: numbers int64 and scores float32, both [queries, depth].

    Where fewer were found the number is -1; the retriever's own scores are comparable within a query only.
    """

    numbers: np.ndarray
    scores: np.ndarray


class Retriever(Protocol):
    """Finds the passages of one corpus."""

    name: str

    def search(self, queries: Sequence[str], depth: int, advance: Advance = ...) -> Hits:
        """The best `depth` passages of each query (fewer where the corpus is smaller)."""


def fused(found: Sequence[Hits], depth: int) -> Hits:
    """Reciprocal rank fusion: the sum of 1 / (60 + rank) over the retrievers that found a passage (Cormack et al. 2009).

    Equal sums are ordered by the first retriever in which a passage stands, and its rank there.
    """
    rows = len(found[0].numbers)
    numbers = np.full((rows, depth), -1, dtype=np.int64)
    scores = np.zeros((rows, depth), dtype=np.float32)
    for row in range(rows):
        sums: dict[int, float] = {}
        for hits in found:
            for rank, number in enumerate(hits.numbers[row].tolist(), start=1):
                if number >= 0:
                    sums[number] = sums.get(number, 0.0) + 1 / (RRF_K + rank)
        best = sorted(sums, key=lambda number: -sums[number])[:depth]
        numbers[row, : len(best)], scores[row, : len(best)] = best, [sums[number] for number in best]
    return Hits(numbers, scores)
