"""Long passages in overlapping windows: each window is a pair of its own with the whole query, and the largest logit counts.

The rule is MaxP of Dai and Callan, "Deeper Text Understanding for IR with Contextual Neural Language Modeling", SIGIR 2019.
A passage that fits has one window, so its score is what it would be without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded
from distilrank.errors import UserError


class NoRoom(UserError):
    """A query that leaves a window no room; `reason` says so without quoting it."""

    def __init__(self, query: str, reason: str) -> None:
        super().__init__(f"the query {query[:60]!r} {reason}")
        self.reason = reason


def encode_windows(
    tokenizer: Any, queries: Sequence[str], passages: Sequence[str], max_length: int, overlap: int
) -> tuple[Encoded, np.ndarray]:
    """Tokenised windows and, int [windows], the number of the pair that each belongs to, ascending.

    A window holds as much of its passage as `max_length` leaves after the query, and repeats the last `overlap` tokens of
    the one before it. Raises `NoRoom` for a query that leaves no room for more than the overlap.
    """
    max_length = min(max_length, tokenizer.model_max_length)
    _room(tokenizer, queries, max_length, overlap)
    encoded = tokenizer(
        list(queries),
        list(passages),
        truncation="only_second",
        max_length=max_length,
        stride=overlap,
        return_overflowing_tokens=True,
    )
    kept = {key: encoded[key] for key in ("input_ids", "token_type_ids") if key in encoded}
    return kept, np.asarray(encoded["overflow_to_sample_mapping"], dtype=np.int64)


def count_windows(
    tokenizer: Any, queries: Sequence[str], passages: Sequence[str], max_length: int, overlap: int
) -> np.ndarray:
    """How many windows `encode_windows` would make of each pair, int [pairs], without making them: next to a long query
    there may be one for each token. Raises `NoRoom` like it.
    """
    room = _room(tokenizer, queries, min(max_length, tokenizer.model_max_length), overlap)
    tokens = np.array(list(map(len, tokenizer(list(passages), add_special_tokens=False, verbose=False)["input_ids"])))
    windows: np.ndarray = 1 + np.maximum(0, -(-(tokens - room) // (room - overlap)))
    return windows


def _room(tokenizer: Any, queries: Sequence[str], max_length: int, overlap: int) -> np.ndarray:
    """The tokens of a passage that a window holds next to each query, int [pairs]."""
    asked = {query: len(tokenizer(query, add_special_tokens=False)["input_ids"]) for query in dict.fromkeys(queries)}
    free = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    for query, tokens in asked.items():
        if free - tokens <= overlap:
            windows = f"windows of {max_length} that overlap by {overlap}"
            raise NoRoom(query, f"has {tokens} tokens: {windows} leave it {max(0, free - overlap - 1)}")
    return np.array([free - asked[query] for query in queries], dtype=np.int64)


def largest(scores: np.ndarray, pair_of: np.ndarray, pairs: int) -> np.ndarray:
    """The largest logit of each pair's windows, float32 [pairs]."""
    result = np.full(pairs, -np.inf, dtype=np.float32)
    np.maximum.at(result, pair_of, scores)
    return result
