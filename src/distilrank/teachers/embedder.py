"""An embedding model as teacher: the cosine of query and passage, through sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrank.engines.load import device_of, dtype_of, weights_digest
from distilrank.errors import UserError
from distilrank.progress import Advance
from distilrank.records import Group
from distilrank.teachers.base import Answer, TeacherIdentity, free_memory
from distilrank.teachers.prompts import too_long


class EmbedderTeacher:
    """Cosine similarity; every distinct text is embedded once a call."""

    shares: Literal["query", "passage"] = "query"
    engine = "plain"

    def __init__(
        self,
        folder: str | Path,
        *,
        max_length: int = 512,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.folder, self.max_length = Path(folder), max_length
        self.device = device_of(device)
        self.dtype = dtype_of(dtype, self.device)
        self.trust_remote_code = trust_remote_code

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="embedder",
            score="cosine",
            weights=weights_digest(self.folder),
            dtype=self.dtype,
            max_length=self.max_length,
        )

    @cached_property
    def model(self) -> Any:
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer

        from distilrank.engines.quiet import quiet_transformers

        try:
            with quiet_transformers():
                model = SentenceTransformer(
                    str(self.folder),
                    device=self.device,
                    local_files_only=True,
                    trust_remote_code=self.trust_remote_code,
                    model_kwargs={"use_safetensors": True},
                )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{self.folder}: not an embedder that sentence-transformers opens: {reason}") from error
        model.max_seq_length = min(self.max_length, model.max_seq_length or self.max_length)
        return model

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
        of_passage = dict(zip(passages, self._embed(list(passages), "document"), strict=True))
        of_query = dict(zip(queries, self._embed(list(queries), "query"), strict=True))
        result = []
        for group in groups:
            rows = np.stack([of_passage[passage.text] for passage in group.passages])
            result.append((rows @ of_query[group.query]).astype(np.float32))
            advance(len(rows))
        return result

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """Raise `UserError` for a query that would be cut, the model's own prompt included."""
        prompt = (self.model.prompts or {}).get("query") or ""
        for group in groups:
            asked = len(self.model.tokenizer(prompt + group.query)["input_ids"])
            if asked > self.model.max_seq_length:
                raise too_long(group.query, asked, self.model.max_seq_length)

    def release(self) -> None:
        """Drop the weights from memory."""
        vars(self).pop("model", None)
        free_memory()

    def _embed(self, texts: list[str], role: str) -> np.ndarray:
        import torch

        encode = self.model.encode_query if role == "query" else self.model.encode_document
        mixed = torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")
        with mixed:
            return np.asarray(encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False))
