"""Training data: groups tokenised once into an Arrow data set, a row a query, and the collator that makes steps of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded
from distilrank.engines.classifier import batches_of, encode_pairs
from distilrank.engines.flat import Size, flat_batch
from distilrank.records import TrainingGroup, Triplet

TOKENS_A_FORWARD = {"cpu": 4_096, "cuda": 16_384}
"""A step with more tokens is forwarded in chunks."""
TOKENS_STEP = 128
MOST_SLACK = 1.5
"""A fixed size of more than so many times the mean step is padding for the most part."""
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


@dataclass(frozen=True)
class RowSize:
    """How large a row of the data set is."""

    tokens: int
    pairs: int
    longest: int
    margins: int


def measured(rows: Iterable[dict[str, Any]], sizes: list[RowSize]) -> Iterator[dict[str, Any]]:
    """The same rows; their sizes are appended to a list as they pass."""
    for row in rows:
        lengths = [len(ids) for ids in row["input_ids"]]
        sizes.append(RowSize(sum(lengths), len(lengths), max(lengths), len(row["pairs"] or _all_pairs(len(lengths)))))
        yield row


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


@dataclass(frozen=True)
class StepSize:
    """A fixed size of steps: of the flat batch, and of the list of margins (0: every margin of a group counts)."""

    batch: Size
    margins: int


def step_size(rows: Sequence[RowSize], queries: int, longest: int) -> StepSize | None:
    """The size that holds nearly every step of so many queries drawn from rows; none when steps differ too much.

    Mean plus three deviations of a sum of that many rows, and at most the largest possible.
    """
    counts = np.array([(row.tokens, row.pairs, row.margins) for row in rows], dtype=np.float64)
    likely = counts.mean(0) * queries + 3 * counts.std(0) * math.sqrt(queries)
    tokens, pairs, margins = np.minimum(likely, counts.max(0) * queries)
    if tokens > MOST_SLACK * counts[:, 0].mean() * queries:
        return None
    tokens = -(-tokens // TOKENS_STEP) * TOKENS_STEP
    return StepSize(Size(int(tokens), math.ceil(pairs), longest), math.ceil(margins))


class GroupCollator:
    """Rows of the data set -> one step: forwards under a token budget, flat where the model is, and what the loss needs.

    `chunks` are the forwards; `order` puts their logits back into the order of `teacher` and `group`. With a fixed size a
    step that fits it is one forward of that size (`fixed`): missing passages are groups of their own, missing margins are of
    a passage with itself, and neither changes a loss of margins.
    """

    valid_label_columns: Sequence[str] = ()

    def __init__(self, config: Any, pad: int, device: str, size: StepSize | None = None) -> None:
        self.config, self.pad, self.budget, self.size = config, pad, TOKENS_A_FORWARD[device.split(":")[0]], size

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        keys = [key for key in ("input_ids", "token_type_ids") if key in rows[0]]
        encoded: Encoded = {key: [ids for row in rows for ids in row[key]] for key in keys}
        scores = np.array([score for row in rows for score in row["scores"]], dtype=np.float32)
        group = np.repeat(np.arange(len(rows)), [len(row["scores"]) for row in rows])
        margins = _margins(rows) if any(row["pairs"] for row in rows) else None
        fixed = self._fits(encoded, margins)
        if self.size and fixed:
            missing = self.size.batch.pairs - len(scores)
            types = encoded.get("token_type_ids")
            chunks = [flat_batch(encoded["input_ids"], types, self.config, size=self.size.batch)]
            order = np.arange(self.size.batch.pairs)
            scores = np.concatenate([scores, np.zeros(missing, np.float32)])
            group = np.concatenate([group, np.arange(missing) + len(rows)])
            if margins is not None:
                margins = np.concatenate([margins, np.zeros((self.size.margins - len(margins), 2), np.int64)])
        else:
            batches = list(batches_of(self.config, encoded, self.pad, self.budget))
            chunks, order = [inputs for _, inputs in batches], np.argsort(np.concatenate([rows for rows, _ in batches]))
        step = {"chunks": chunks, "order": torch.from_numpy(order), "fixed": fixed}
        step |= {"teacher": torch.from_numpy(scores), "group": torch.from_numpy(group)}
        if margins is not None:
            step["pairs"] = torch.from_numpy(margins)
        return {"step": step}

    def _fits(self, encoded: Encoded, margins: np.ndarray | None) -> bool:
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        return bool(
            self.size and self.size.batch.holds(lengths) and len(() if margins is None else margins) <= self.size.margins
        )


def _margins(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """The margins of all rows as indices of the step's passages, [margins, 2]."""
    starts = np.cumsum([0, *(len(row["scores"]) for row in rows)])
    found = [
        np.array(row["pairs"] or _all_pairs(len(row["scores"])), dtype=np.int64).reshape(-1, 2) + start
        for row, start in zip(rows, starts[:-1], strict=True)
    ]
    return np.concatenate(found)


def _all_pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]
