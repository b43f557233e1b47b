"""Training data: groups tokenised once into an Arrow data set, a row a query, and the collator that makes steps of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distilrank.engines.classifier import Encoded, batches_of, encode_pairs
from distilrank.records import TrainingGroup, Triplet

TOKENS_A_FORWARD = {"cpu": 4_096, "cuda": 16_384}
"""A step with more tokens is forwarded in chunks."""
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


def tokenised_groups(groups: Iterable[TrainingGroup], tokenizer: Any, max_length: int) -> Iterator[dict[str, Any]]:
    """A row a group: the token ids of each pair, the scores, and the pairs that count (empty: all)."""
    for group in groups:
        encoded = encode_pairs(tokenizer, [group.query] * len(group.passages), group.passages, max_length)
        yield encoded | {"scores": list(group.scores), "pairs": [list(pair) for pair in group.pairs or ()]}


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


class GroupCollator:
    """Rows of the data set -> one step: forwards under a token budget, flat where the model is, and what the loss needs.

    `chunks` are the forwards; `order` puts their logits back into the order of `teacher` and `group`.
    """

    valid_label_columns: Sequence[str] = ()

    def __init__(self, config: Any, pad: int, device: str) -> None:
        self.config, self.pad, self.budget = config, pad, TOKENS_A_FORWARD[device.split(":")[0]]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        keys = [key for key in ("input_ids", "token_type_ids") if key in rows[0]]
        encoded: Encoded = {key: [ids for row in rows for ids in row[key]] for key in keys}
        sizes = [len(row["scores"]) for row in rows]
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        batches = list(batches_of(self.config, encoded, self.pad, self.budget))
        step = {
            "chunks": [inputs for _, inputs in batches],
            "order": torch.from_numpy(np.argsort(np.concatenate([numbers for numbers, _ in batches]))),
            "teacher": torch.tensor([score for row in rows for score in row["scores"]], dtype=torch.float32),
            "group": torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(sizes)),
        }
        if any(row["pairs"] for row in rows):
            step["pairs"] = torch.tensor(
                [
                    [start + i, start + j]
                    for row, start, size in zip(rows, starts, sizes, strict=True)
                    for i, j in row["pairs"] or _all_pairs(size)
                ]
            )
        return {"step": step}


def _all_pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]
