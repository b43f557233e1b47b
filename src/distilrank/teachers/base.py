"""What every teacher is: an identity, and scores for groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np

from distilrank.errors import UserError
from distilrank.records import Group

Advance = Callable[[int], None]


@dataclass(frozen=True)
class TeacherIdentity:
    """What a score means: a change in any field makes it another score."""

    kind: str
    """causal, likelihood, cross-encoder or embedder"""
    score: str
    """logit difference, log-likelihood, logit or cosine"""
    weights: str
    """digest of the weights, the configuration and the tokenizer"""
    dtype: str
    max_length: int
    template: str = ""
    """name and digest of the prompt template and of how its pieces are joined"""
    instruction: str = ""

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name this identity in a score store."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def bounded(self) -> bool:
        """Whether scores or their differences may all lie in [0, 1] by nature, so that this is no sign of a probability."""
        return self.score in ("cosine", "log-likelihood")


class Teacher(Protocol):
    """Scores pairs one by one: a score never depends on the other candidates."""

    @property
    def identity(self) -> TeacherIdentity:
        """What a score of this teacher means; known without loading the weights into memory."""

    shares: Literal["query", "passage"]
    """Which of the two is read once for many pairs, so that pairs which share it are best asked for together."""

    def score(self, groups: Sequence[Group], advance: Advance = ...) -> list[np.ndarray]:
        """Float32 [passages] for each group, in order; `advance` is called with the number of pairs just scored."""


def release(teacher: Teacher) -> None:
    """Drop the teacher's weights from memory; its identity stays, and they are loaded again if it is asked again."""
    import gc

    import torch

    for name in ("model", "_answer"):
        vars(teacher).pop(name, None)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def split_by_group(groups: Sequence[Group], flat: np.ndarray) -> list[np.ndarray]:
    """Scores of all pairs in order, as one array a group."""
    return np.split(flat, np.cumsum([len(group.passages) for group in groups])[:-1]) if groups else []


def too_long(query: str, tokens: int, most: int) -> UserError:
    """The error of a query that leaves no room for a passage: a query is never cut."""
    return UserError(
        f"the query {query[:60]!r} takes {tokens} tokens with its prompt, more than max_length {most}: "
        "raise max_length, or leave the query out"
    )
