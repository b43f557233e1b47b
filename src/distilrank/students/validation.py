"""Which queries are held out of the training, and triplets as groups, whose order can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from distilrank.records import TrainingGroup, Triplet

MOST_VALIDATION_QUERIES = 512
FEWEST_VALIDATION_QUERIES = 8


def query_hash(query: str, seed: int) -> int:
    """A number that places a query in the training or the validation part, the same for every row of the query."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{query}".encode(), digest_size=8).digest(), "big")


def validation_threshold(queries: Iterable[str], share: float, seed: int) -> int:
    """Queries whose hash is below this are for validation: `share` of the distinct ones, at least 8 and at most 512.

    Zero (no validation) when `share` is zero or when there are too few queries to keep eight apart.
    """
    hashes = np.unique(np.fromiter((query_hash(query, seed) for query in queries), dtype=np.uint64))
    count = min(max(round(share * len(hashes)), FEWEST_VALIDATION_QUERIES), MOST_VALIDATION_QUERIES)
    return int(hashes[count]) if share > 0 and len(hashes) >= 2 * count else 0


def groups_of_triplets(triplets: Iterable[Triplet]) -> list[TrainingGroup]:
    """Groups whose scores have the triplets' margins; the score of each connected set of passages is known up to a shift.

    Only the largest connected set of a query is kept, since the others cannot be compared with it.
    """
    margins: dict[str, list[tuple[str, str, float]]] = {}
    for triplet in triplets:
        margins.setdefault(triplet.query, []).append((triplet.positive, triplet.negative, triplet.score))
    groups = []
    for query, of_query in margins.items():
        near: dict[str, list[tuple[str, float]]] = {}
        for positive, negative, margin in of_query:
            near.setdefault(positive, []).append((negative, -margin))
            near.setdefault(negative, []).append((positive, margin))
        left = set(near)
        best: dict[str, float] = {}
        while left:
            start = next(iter(passage for passage in near if passage in left))
            scores, waiting = {start: 0.0}, [start]
            while waiting:
                passage = waiting.pop()
                for other, step in near[passage]:
                    if other not in scores:
                        scores[other] = scores[passage] + step
                        waiting.append(other)
            left -= set(scores)
            best = max(best, scores, key=len)
        groups.append(TrainingGroup(query, tuple(best), tuple(best.values())))
    return groups
