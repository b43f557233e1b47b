"""A language model as teacher by query likelihood: mean log p(query tokens | prompt around the passage).

Any causal language model can do it, without yes/no training (Sachan et al. 2022, arXiv 2204.07496). All the queries of
one passage share its prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from distilrank.engines.batches import split_like
from distilrank.engines.decoder import Computed, Decoder
from distilrank.engines.head import finished
from distilrank.engines.load import weights_digest
from distilrank.progress import Advance
from distilrank.records import Group
from distilrank.teachers.base import Answer, TeacherIdentity, bare, free_memory, portion_of
from distilrank.teachers.prompts import NOTHING, Prompts, load_template, prompts

HEAD_ROWS = 1_024
"""Positions whose logits over the vocabulary are held at a time."""


class LikelihoodTeacher:
    """Mean log-likelihood of the query's tokens after the passage; scores are negative, larger is more relevant."""

    shares: Literal["query", "passage"] = "passage"

    def __init__(
        self,
        folder: str | Path,
        *,
        template: str = "chatml-question",
        max_length: int = 512,
        **computed: Unpack[Computed],
    ) -> None:
        self.template = load_template(template, answers=False)
        self.decoder = Decoder(folder, max_length=max_length, **computed)

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="likelihood",
            score="log-likelihood",
            weights=weights_digest(self.decoder.folder),
            dtype=self.decoder.dtype_name,
            max_length=self.decoder.max_length,
            template=self.template.digest,
        )

    @property
    def engine(self) -> str:
        return self.decoder.engine

    @property
    def portion(self) -> int:
        return portion_of(self.decoder.device)

    def prompts(self, groups: Sequence[Group]) -> Prompts:
        """The prompt of each pair, the query at its end. Raises `UserError` when a query leaves no room for a passage."""
        decoder, start = self.decoder, self.decoder.start if self.template.start else NOTHING
        return prompts(self.template, groups, decoder.tokenise, start, decoder.max_length, "")

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """Raise `UserError` for a query that leaves no room for a passage."""
        self.prompts(bare(groups))

    def prepare(self, groups: Sequence[Group]) -> Answer:
        """The prompts, tokenised and laid out; what is left is the model's part."""
        asked = self.prompts(groups)
        laid = self.decoder.lay_out(asked.sequences, asked.tails)
        passages = [group.passages for group in groups]

        def answer(advance: Advance) -> list[np.ndarray]:
            return split_like(self.decoder.read(laid, lambda *read: self._means(asked, *read), advance), passages)

        return answer

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Mean log-likelihoods, float32 [passages] a group."""
        return self.prepare(groups)(advance)

    def _means(self, asked: Prompts, hidden: Any, numbers: Sequence[int]) -> Any:
        """Mean log p of each query's tokens; the state at a token says what comes next, so the last one is not needed."""
        import torch

        tails = [asked.tails[number] for number in numbers]
        read = np.concatenate([asked.sequences[number][-tail:] for number, tail in zip(numbers, tails, strict=True)])
        starts = np.cumsum([0, *tails[:-1]])
        wanted = torch.from_numpy(np.delete(read, starts)).long().to(hidden.device)
        keep = torch.from_numpy(np.delete(np.arange(len(read)), starts + np.array(tails) - 1)).to(hidden.device)
        hidden, head = hidden[keep], self.decoder.model.get_output_embeddings()
        log_p = [
            -torch.nn.functional.cross_entropy(finished(self.decoder.model, head(some)), tokens, reduction="none")
            for some, tokens in zip(hidden.split(HEAD_ROWS), wanted.split(HEAD_ROWS), strict=True)
        ]
        return torch.stack([part.mean() for part in torch.cat(log_p).split([tail - 1 for tail in tails])])

    def release(self) -> None:
        """Drop the weights from memory."""
        self.decoder.release()
        free_memory()
