"""From texts to tokens: cut, refused or read in windows, as the server and the request say."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded
from distilrank.engines.classifier import encode_pairs
from distilrank.engines.windows import NoRoom, count_windows, encode_windows, largest
from distilrank.serving.refusal import Refused


@dataclass(frozen=True)
class Asked:
    """Pairs to score: as many queries as passages."""

    queries: Sequence[str]
    passages: Sequence[str]
    cut: bool = True
    """Cut what is too long, or refuse it."""
    left: bool = False
    """Cut from the left."""
    most: int | None = None
    """Tokens of a passage that are read at most."""


@dataclass(frozen=True)
class Read:
    """Tokenised pairs, or their windows; `pair_of` says whose each window is, and is none without windows."""

    encoded: Encoded
    pairs: int
    pair_of: np.ndarray | None = None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.encoded["input_ids"]))

    def scores(self, of_rows: np.ndarray) -> np.ndarray:
        """Raw logits of the pairs, float32 [pairs], from those of the rows."""
        return of_rows if self.pair_of is None else largest(of_rows, self.pair_of, self.pairs)


@dataclass
class Reader:
    """A tokenizer with the server's limits. Not for two threads at once: a tokenizer's truncation is its own state."""

    tokenizer: Any
    max_length: int
    windows: int | None = None
    """The tokens by which the windows of a long passage overlap, or none, where it is cut."""
    most_windows: int = 8_192
    """Of a request."""

    def __post_init__(self) -> None:
        self.max_length = min(self.max_length, self.tokenizer.model_max_length)

    @cached_property
    def _from_left(self) -> Any:
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.truncation_side = "left"
        return tokenizer

    def read(self, asked: Asked) -> Read:
        """Raises `Refused` for what does not fit and must not be cut."""
        passages = asked.passages if asked.most is None else [self._beginning(text, asked.most) for text in asked.passages]
        pairs = len(passages)
        if self.windows is not None:
            try:
                return self._in_windows(asked.queries, passages, self.windows)
            except NoRoom as error:
                raise Refused(413, f"the query {error.reason}") from None
        if asked.cut:
            tokenizer = self._from_left if asked.left else self.tokenizer
            return Read(encode_pairs(tokenizer, asked.queries, passages, self.max_length), pairs)
        found = self.tokenizer(list(asked.queries), list(passages), verbose=False)
        encoded = {key: found[key] for key in ("input_ids", "token_type_ids") if key in found}
        longest = max(map(len, encoded["input_ids"]))
        if longest > self.max_length:
            message = f"`inputs` must have less than {self.max_length + 1} tokens. Given: {longest}"
            raise Refused(413, f"Input validation error: {message}")
        return Read(encoded, pairs)

    def _in_windows(self, queries: Sequence[str], passages: Sequence[str], overlap: int) -> Read:
        windows = int(count_windows(self.tokenizer, queries, passages, self.max_length, overlap).sum())
        if windows > self.most_windows:
            message = f"the texts make {windows:,} windows of {self.max_length} tokens next to such a query"
            raise Refused(413, f"{message}; at most {self.most_windows:,} a request")
        encoded, pair_of = encode_windows(self.tokenizer, queries, passages, self.max_length, overlap)
        return Read(encoded, len(passages), pair_of)

    def _beginning(self, text: str, tokens: int) -> str:
        most = max(1, min(tokens, len(text)))  # a token is a character or more, and a number may be of any size
        found = self.tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=most, return_offsets_mapping=True
        )["offset_mapping"]
        return text[: found[-1][1]] if found else text
