"""A sentence-transformers embedder in a folder: texts to unit vectors, queries and passages by the model's own prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrank.engines.load import device_of, dtype_of, weights_digest
from distilrank.errors import UserError, first_line

ROWS_A_BATCH = 64


class Embedder:
    """Embeds texts; weights are loaded when the first text comes."""

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
    def name(self) -> str:
        """What decides the vectors: weights and prompts (32 hexadecimal digits), length and type."""
        return f"{weights_digest(self.folder)}-{self.max_length}-{self.dtype}"

    @cached_property
    def model(self) -> Any:
        """The model itself. Raises `UserError` when the folder holds none."""
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
            raise UserError(
                f"{self.folder}: not an embedder that sentence-transformers opens: {first_line(error)}"
            ) from error
        model.max_seq_length = min(self.max_length, model.max_seq_length or self.max_length)
        return model

    def embed(self, texts: Sequence[str], role: Literal["query", "document"]) -> np.ndarray:
        """Unit vectors, float32 [texts, width]."""
        import torch

        encode = self.model.encode_query if role == "query" else self.model.encode_document
        mixed = torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")
        with mixed:
            vectors = encode(list(texts), batch_size=ROWS_A_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def release(self) -> None:
        """Drop the weights from memory."""
        vars(self).pop("model", None)
