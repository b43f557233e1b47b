"""How well a student orders the passages of held-out queries, as sentence-transformers' trainer asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from distilrank.engines.batches import Encoded, split_like
from distilrank.engines.classifier import TOKENS_A_BATCH, encode_pairs, score_encoded
from distilrank.errors import UserError
from distilrank.metrics import agreement
from distilrank.records import TrainingGroup
from distilrank.students.ranks import ALONE, Ranks


class Agreement(BaseEvaluator):  # type: ignore[misc]
    """nDCG@10 of the student's order against the teacher's scores on the validation queries."""

    def __init__(
        self, groups: Sequence[TrainingGroup], tokenizer: Any, max_length: int, dtype: str, ranks: Ranks = ALONE
    ) -> None:
        """`ranks` share the scoring and all know its result: then all must ask."""
        super().__init__()
        self.ranks = ranks
        self.primary_metric = "agreement"
        queries = [group.query for group in groups for _ in group.passages]
        passages = [passage for group in groups for passage in group.passages]
        self.encoded = encode_pairs(tokenizer, queries, passages, max_length)
        self.pad, self.dtype = tokenizer.pad_token_id or 0, dtype
        self.teacher = [np.asarray(group.scores) for group in groups]
        self.budget: int | None = None
        """Tokens of a batch, where memory has been short."""

    def tokens(self) -> np.ndarray:
        """The numbers of the tokens that occur in the validation pairs, ascending."""
        return np.unique(np.concatenate([np.asarray(ids) for ids in self.encoded["input_ids"]]))

    def scores(self, model: Any) -> list[np.ndarray]:
        """The student's raw logits, float32 [passages] a group."""
        body = getattr(model, "module", model)[0].model
        was_training = body.training
        body.eval()
        share = slice(self.ranks.rank, None, self.ranks.count)
        own = {key: values[share] for key, values in self.encoded.items()}
        flat = np.empty(len(self.encoded["input_ids"]), dtype=np.float32)
        # Layers compiled for one size of batch would be compiled anew for each of these sizes.
        with torch.compiler.set_stance("force_eager"):
            found = self._fitting(body, own) if own["input_ids"] else flat[:0]
        for rank, scores in enumerate(self.ranks.gathered(found)):
            flat[rank :: self.ranks.count] = scores
        body.train(was_training)
        return split_like(flat, self.teacher)

    def _fitting(self, body: Any, encoded: Encoded) -> np.ndarray:
        """Scores in batches that fit beside what a training holds: all of a graph's memory stays taken."""
        while True:
            # The error is held no longer: with it goes the memory of the frames that it came through.
            with suppress(torch.OutOfMemoryError):
                return score_encoded(body, encoded, self.pad, self.dtype, budget=self.budget)
            torch.cuda.empty_cache()
            self.budget = (self.budget or TOKENS_A_BATCH[next(body.parameters()).device.type]) // 2
            if 2 * self.budget < max(map(len, encoded["input_ids"])):
                raise UserError("out of memory with a single validation pair: lower queries_per_step or max_length")

    def __call__(self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> dict[str, float]:
        return {self.primary_metric: float(np.nanmean(agreement(self.teacher, self.scores(model))))}
