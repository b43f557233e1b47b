"""Any sequence-classification reranker as teacher: its raw logit, Identity activation, an fp32 head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Literal

import numpy as np

from distilrank.engines.classifier import Reranker
from distilrank.engines.load import weights_digest
from distilrank.progress import Advance
from distilrank.records import Group
from distilrank.teachers.base import Answer, TeacherIdentity, free_memory, portion_of
from distilrank.teachers.prompts import too_long


class CrossEncoderTeacher(Reranker):
    """The logit of a reranker with one output; a query that fills `max_length` is refused, never cut."""

    shares: Literal["query", "passage"] = "query"
    engine = "plain"

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="cross-encoder",
            score="logit",
            weights=weights_digest(self.folder),
            dtype=self.dtype,
            max_length=self.max_length,
            template="" if self.windows is None else f"the largest of windows that overlap by {self.windows} tokens",
        )

    @property
    def portion(self) -> int:
        return portion_of(self.device)

    def prepare(self, groups: Sequence[Group]) -> Answer:
        return partial(self.score, groups)

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Raw logits, float32 [passages] a group."""
        self.refuse_long_queries(groups)
        return super().score(groups, advance)

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """Raise `UserError` for a query that would be cut with its passage."""
        for group in groups:
            # Half of the room: beyond it, cutting the longer of the two would cut the query.
            asked = len(self.tokenizer(group.query)["input_ids"])
            most = min(self.max_length, self.tokenizer.model_max_length) - (self.windows or 0)
            if asked * 2 > most:
                raise too_long(group.query, asked, most // 2, "half of max_length, which is")

    def release(self) -> None:
        """Drop the weights from memory."""
        vars(self).pop("model", None)
        free_memory()
