"""An embedding model as teacher: the cosine of query and passage, through sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrank.engines.embedder import Embedder
from distilrank.engines.load import weights_digest
from distilrank.progress import Advance
from distilrank.records import Group
from distilrank.teachers.base import Answer, TeacherIdentity, free_memory
from distilrank.teachers.prompts import too_long


class EmbedderTeacher:
    """Cosine similarity; every distinct text is embedded once a call."""

    shares: Literal["query", "passage"] = "query"
    engine = "plain"

    def __init__(self, folder: str | Path, **settings: Any) -> None:
        self.embedder = Embedder(folder, **settings)

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="embedder",
            score="cosine",
            weights=weights_digest(self.embedder.folder),
            dtype=self.embedder.dtype,
            max_length=self.embedder.max_length,
        )

    @property
    def device(self) -> str:
        """Where it computes."""
        return self.embedder.device

    @property
    def portion(self) -> int:
        return 256 if self.device == "cpu" else 16_384

    def prepare(self, groups: Sequence[Group]) -> Answer:
        return partial(self.score, groups)

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Cosines, float32 [passages] a group."""
        self.refuse_long_queries(groups)
        passages = dict.fromkeys(passage.text for group in groups for passage in group.passages)
        queries = dict.fromkeys(group.query for group in groups)
        of_passage = dict(zip(passages, self.embedder.embed(list(passages), "document"), strict=True))
        of_query = dict(zip(queries, self.embedder.embed(list(queries), "query"), strict=True))
        result = []
        for group in groups:
            rows = np.stack([of_passage[passage.text] for passage in group.passages])
            result.append((rows @ of_query[group.query]).astype(np.float32))
            advance(len(rows))
        return result

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """Raise `UserError` for a query that would be cut, the model's own prompt included."""
        model = self.embedder.model
        prompt = (model.prompts or {}).get("query") or ""
        for group in groups:
            asked = len(model.tokenizer(prompt + group.query)["input_ids"])
            if asked > model.max_seq_length:
                raise too_long(group.query, asked, model.max_seq_length)

    def release(self) -> None:
        """Drop the weights from memory."""
        self.embedder.release()
        free_memory()
