"""A language model that answers yes or no: the exact difference of the two logits, in fp32.

Qwen3-Reranker's model card turns the two logits into a probability; the difference is that probability's logit, without
the saturation. Only the two rows of the head are multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrank.engines.batches import length_sorted, padded
from distilrank.engines.head import finished
from distilrank.engines.load import device_of, dtype_of, load_model, load_tokenizer, weights_digest
from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.teachers.base import Advance, TeacherIdentity, split_by_group, too_long
from distilrank.teachers.prompts import DEFAULT_INSTRUCTION, template_digest, yes_no_template

TOKENS_A_BATCH = {"cpu": 4_096, "cuda": 65_536}


class CausalTeacher:
    """logit(yes) - logit(no) of any causal language model under a yes/no template."""

    shares: Literal["query", "passage"] = "query"

    def __init__(
        self,
        folder: str | Path,
        *,
        template: str = "qwen3-reranker",
        instruction: str = DEFAULT_INSTRUCTION,
        max_length: int = 8192,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.folder, self.instruction, self.max_length = Path(folder), instruction, max_length
        self.template = yes_no_template(template)
        self.device = device_of(device)
        self.dtype = dtype_of(dtype, self.device)
        self.trust_remote_code = trust_remote_code

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="causal",
            score="logit difference",
            weights=weights_digest(self.folder),
            dtype=self.dtype,
            max_length=self.max_length,
            template=template_digest(self.template),
            instruction=self.instruction,
        )

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def model(self) -> Any:
        return load_model(
            "AutoModelForCausalLM", self.folder, self.dtype, self.device, trust_remote_code=self.trust_remote_code
        )

    @cached_property
    def _answer(self) -> Any:
        """The head's rows of the positive and the negative answer, fp32 [hidden, 2]."""
        head = self.model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise UserError(f"{self.folder}: a head with a bias is not a plain product of two rows")
        return head.weight[[self._token(self.template.positive), self._token(self.template.negative)]].float().T

    def _token(self, word: str) -> int:
        ids = self._ids(word)
        if len(ids) != 1:
            raise UserError(f"{self.folder}: {word!r} is {len(ids)} tokens here; template {self.template.name} needs 1")
        return ids[0]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompts(self, group: Group) -> list[list[int]]:
        """Token ids of the prompt of each passage. Raises `UserError` when the query leaves no room for a passage."""
        # In one pass, so that braces in a query or a passage stay what they are.
        body = partial(self.template.body.format, instruction=self.instruction, query=group.query)
        prefix, suffix = self._ids(self.template.prefix), self._ids(self.template.suffix)
        room = self.max_length - len(prefix) - len(suffix)
        asked = len(self._ids(body(passage="")))
        if asked >= room:
            raise too_long(group.query, asked + len(prefix) + len(suffix), self.max_length)
        texts = [body(passage=passage.text) for passage in group.passages]
        bodies = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [[*prefix, *ids[:room], *suffix] for ids in bodies]

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Exact logit differences, float32 [passages] a group."""
        import torch

        rows = [row for group in groups for row in self.prompts(group)]
        flat = np.empty(len(rows), dtype=np.float32)
        with torch.inference_mode():
            for batch in length_sorted([len(row) for row in rows], TOKENS_A_BATCH[self.model.device.type]):
                chosen = [rows[i] for i in batch.tolist()]
                hidden = self.model.base_model(
                    input_ids=padded(chosen, 0).to(self.model.device),
                    attention_mask=padded([[1] * len(row) for row in chosen], 0).to(self.model.device),
                    use_cache=False,
                ).last_hidden_state
                last = torch.tensor([len(row) - 1 for row in chosen], device=hidden.device)
                final = hidden[torch.arange(len(chosen), device=hidden.device), last].float()
                yes, no = finished(self.model, final @ self._answer).unbind(1)
                flat[batch] = (yes - no).cpu().numpy()
                advance(len(chosen))
        return split_by_group(groups, flat)
