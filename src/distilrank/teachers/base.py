"""What every teacher is: an identity, and scores for groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np

from distilrank.progress import Advance
from distilrank.records import Group

Answer = Callable[[Advance], list[np.ndarray]]
"""What is left to do of a scoring once the host's part is done: called with `advance`, it returns the scores."""


@dataclass(frozen=True)
class TeacherIdentity:
    """What a score means: a change in any field makes it another score."""

    kind: str
    """causal, likelihood, cross-encoder, embedder or http"""
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

    @property
    def engine(self) -> str:
        """How the scores are computed, which does not change what they mean: part of a score's provenance."""

    @property
    def portion(self) -> int:
        """So many pairs are worth asking for at a time."""

    shares: Literal["query", "passage"]
    """Which of the two is read once for many pairs, so that pairs which share it are best asked for together."""

    def prepare(self, groups: Sequence[Group]) -> Answer:
        """Do the host's part (tokenising, laying out), which may run in another thread while the device is busy."""

    def score(self, groups: Sequence[Group], advance: Advance = ...) -> list[np.ndarray]:
        """Float32 [passages] for each group, in order; `advance` is called with the number of pairs just scored."""

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """Raise `UserError` for a query that would be cut, now and not hours into the scoring."""

    def release(self) -> None:
        """Drop the weights from memory; they are loaded again if the teacher is asked again."""


def portion_of(device: str) -> int:
    """So many pairs are worth asking a transformer for at a time."""
    return 64 if device == "cpu" else 4_096


def bare(groups: Sequence[Group]) -> list[Group]:
    """The groups without their passages."""
    return [Group(group.query_id, group.query, ()) for group in groups]


def free_memory() -> None:
    """Give back what dropped weights held."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
