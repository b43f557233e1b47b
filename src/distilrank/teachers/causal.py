"""A language model that answers yes or no: the exact difference of the two logits, in fp32.

Qwen3-Reranker's model card turns the two logits into a probability; the difference is that probability's logit, without
the saturation. Only the two rows of the head are multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from distilrank.engines.batches import split_like
from distilrank.engines.decoder import Computed, Decoder
from distilrank.engines.head import finished
from distilrank.engines.load import weights_digest
from distilrank.errors import UserError
from distilrank.progress import Advance
from distilrank.records import Group
from distilrank.teachers.base import Answer, TeacherIdentity, bare, free_memory, portion_of
from distilrank.teachers.prompts import NOTHING, Prompts, instruction_text, load_template, prompts

_OURS = {"dtype", "max_length", "max_model_len", "model", "positive", "negative", "runner", "trust_remote_code"}
_RESOURCES = ("tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "enable_prefix_caching", "method")
"""Settings of vLLM that change how a score is computed, not what it is; so do those that begin with max_num."""


class CausalTeacher:
    """logit(yes) - logit(no) of any causal language model under a template with answers; one logit where it names one."""

    shares: Literal["query", "passage"] = "query"

    def __init__(
        self,
        folder: str | Path,
        *,
        template: str = "qwen3-reranker",
        instruction: str = "web-search",
        max_length: int = 8192,
        vllm: Mapping[str, Any] | None = None,
        **computed: Unpack[Computed],
    ) -> None:
        engine = computed.get("engine", "packed")
        if engine == "vllm" and computed.get("dtype") == "float8":
            raise UserError("dtype float8 is the packed engine's; vLLM has its own: say quantization among its settings")
        if vllm and engine != "vllm":
            raise UserError(f"settings of vLLM ({sorted(vllm)[0]}) are for engine vllm, not {engine}")
        if taken := _OURS & set(vllm or {}):
            raise UserError(f"vllm: {sorted(taken)[0]} is said elsewhere in the teacher's settings, not among vLLM's")
        self.engine, self.vllm_settings = engine, dict(vllm or {})
        self.template = load_template(template, answers=True)
        self.instruction = instruction_text(instruction) if self.template.takes_instruction else ""
        if engine == "vllm":
            computed |= {"engine": "plain"}  # only its tokenizer is used
        self.decoder = Decoder(folder, max_length=max_length, **computed)

    @cached_property
    def identity(self) -> TeacherIdentity:
        return TeacherIdentity(
            kind="causal",
            score="logit difference" if self.template.negative else "logit",
            weights=weights_digest(self.decoder.folder),
            dtype=", ".join([self.decoder.dtype_name, *self._quantised]),
            max_length=self.decoder.max_length,
            template=self.template.digest,
            instruction=self.instruction,
        )

    @property
    def _quantised(self) -> list[str]:
        known = (name for name in sorted(self.vllm_settings) if name not in _RESOURCES)
        changing = (name for name in known if not name.startswith(("max_num", "kv_cache_mem", "enforce_eager")))
        return [f"vLLM {name} {self.vllm_settings[name]}" for name in changing]

    @property
    def portion(self) -> int:
        return 16_384 if self.engine == "vllm" else portion_of(self.decoder.device)

    @cached_property
    def answers(self) -> list[int]:
        """The tokens of the positive answer and, where there is one, the negative."""
        return [self._token(word) for word in (self.template.positive, self.template.negative) if word]

    def _token(self, word: str) -> int:
        (ids,) = self.decoder.tokenise([word])
        if len(ids) != 1:
            folder, name = self.decoder.folder, self.template.name
            raise UserError(f"{folder}: {word!r} is {len(ids)} tokens here; template {name} needs 1")
        return int(ids[0])

    @cached_property
    def _answer_rows(self) -> Any:
        """The head's rows of the answers, fp32 [hidden, 1 or 2]."""
        head = self.decoder.model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise UserError(f"{self.decoder.folder}: a head with a bias is not a plain product of two rows")
        return head.weight[self.answers].float().T

    @cached_property
    def _vllm(self) -> Any:
        from distilrank.teachers.vllm import VllmEngine

        decoder, (positive, *negative) = self.decoder, self.answers
        return VllmEngine(
            decoder.folder,
            positive=positive,
            negative=negative[0] if negative else None,
            max_length=decoder.max_length,
            dtype=decoder.dtype,
            trust_remote_code=decoder.trust_remote_code,
            **self.vllm_settings,
        )

    def prompts(self, groups: Sequence[Group]) -> Prompts:
        """The prompt of each pair. Raises `UserError` when a query leaves no room for a passage."""
        decoder, start = self.decoder, self.decoder.start if self.template.start else NOTHING
        return prompts(self.template, groups, decoder.tokenise, start, decoder.max_length, self.instruction)

    def refuse_long_queries(self, groups: Sequence[Group]) -> None:
        """Raise `UserError` for a query that leaves no room for a passage."""
        self.prompts(bare(groups))

    def prepare(self, groups: Sequence[Group]) -> Answer:
        """The prompts, tokenised and laid out; what is left is the model's part."""
        asked = self.prompts(groups)
        passages = [group.passages for group in groups]
        if self.engine == "vllm":
            return lambda advance: split_like(self._vllm.score(asked.sequences, advance), passages)
        laid = self.decoder.lay_out(asked.sequences, asked.tails)
        return lambda advance: split_like(self.decoder.read(laid, self._logits, advance), passages)

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Exact logit differences, float32 [passages] a group."""
        return self.prepare(groups)(advance)

    def _logits(self, hidden: Any, numbers: Sequence[int]) -> Any:
        logits = finished(self.decoder.model, hidden.float() @ self._answer_rows)
        return logits[:, 0] - logits[:, 1] if self.template.negative else logits[:, 0]

    def release(self) -> None:
        """Drop the weights from memory."""
        self.decoder.release()
        if "_vllm" in vars(self):
            self._vllm.release()
        vars(self).pop("_answer_rows", None)
        free_memory()
