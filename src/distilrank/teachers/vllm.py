"""A language model that answers yes or no, run by vLLM: tokenised prompts in, exact logit differences out.

Both methods compute the head in fp32 and clip nothing: no top-k that an answer can fall out of, no log-softmax, no stand-in
for a missing answer. They differ by the rounding of an fp32 sum. Below the head the model runs in `dtype`, in batches of
vLLM's own making, so that two runs in bfloat16 agree to bfloat16.

- pooling: vLLM makes a classifier out of the head, whose one row is the difference of the answers' rows, and never computes
  the other logits (`docs/models/pooling_models/scoring.md` and `model_executor/models/adapters.py` in vLLM's repository).
- generate: one token is asked for, and the answers' logits are read by number (`logprob_token_ids`, `raw_logits`) before
  anything is masked or normalised: for any language model that vLLM runs, with caps and scales of logits as they are. Left
  alone, vLLM rounds these logits to the model's dtype, in bfloat16 to steps of 1/16 from 8 on and of 1/8 from 16 on; an
  fp32 head for language models came with vLLM 0.26 (pull request 48390), and an older one is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrank.engines.load import load_tokenizer, model_config
from distilrank.errors import UserError
from distilrank.progress import Advance

PLAIN_HEADS = frozenset(f"{name}ForCausalLM" for name in ("Gemma", "Llama", "Mistral", "Qwen2", "Qwen3"))
"""Architectures whose logits are a product of hidden state and head row and nothing else, so that rows make a classifier."""


class VllmEngine:
    """logit(positive) - logit(negative), or logit(positive) alone where there is no `negative`, after each prompt.

    `positive` and `negative` are token ids. `max_length` is the longest prompt. `method` is `pooling` where that is exact
    and else `generate`, unless said. `tensor_parallel_size`, `gpu_memory_utilization`, `enable_prefix_caching` and every
    other setting go to `vllm.LLM` under vLLM's own names. The weights are loaded when the first prompt is scored; vLLM then
    starts processes of its own, so that a script which uses it needs `if __name__ == "__main__":`.

    Raises `UserError` when vLLM is missing or too old, when it does not load the model, or when `pooling` was asked for and
    would not be exact.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        positive: int,
        negative: int | None,
        max_length: int,
        dtype: str,
        method: Literal["auto", "pooling", "generate"] = "auto",
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        enable_prefix_caching: bool = True,
        **settings: Any,
    ) -> None:
        self.folder, self.trust_remote_code = Path(folder), trust_remote_code
        self.answers = [positive] if negative is None else [positive, negative]
        self.settings = settings | {
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
            "enable_prefix_caching": enable_prefix_caching,
            "trust_remote_code": trust_remote_code,
            "dtype": dtype,
        }
        self.max_length, self._asked = max_length, method

    @cached_property
    def method(self) -> Literal["pooling", "generate"]:
        """How the prompts are scored; known without loading the weights."""
        if self._asked == "generate":
            return "generate"
        obstacle = self._obstacle()
        if obstacle and self._asked == "pooling":
            raise UserError(f"{self.folder}: vLLM's pooling is not exact here: {obstacle}; use method generate")
        return "generate" if obstacle else "pooling"

    @cached_property
    def llm(self) -> Any:
        """vLLM's `LLM`, quiet but for warnings."""
        # Read when vLLM is imported, here and in the processes that it starts.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError(f"vLLM is not installed, or not whole ({error}): pip install 'distilrank[vllm]'") from error
        made = self._as_classifier() if self.method == "pooling" else self._as_language_model()
        overrides = {"head_dtype": "float32"} | made.pop("hf_overrides", {})
        try:
            llm = LLM(str(self.folder), hf_overrides=overrides, use_tqdm_on_load=False, **self.settings | made)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{self.folder}: vLLM does not load it: {error}") from error
        if str(llm.llm_engine.model_config.head_dtype) != "torch.float32":
            raise UserError("this vLLM rounds logits to the model's dtype: pip install 'vllm>=0.26'")
        return llm

    def score(self, prompts: Sequence[Sequence[int]], advance: Advance = lambda done: None) -> np.ndarray:
        """Float32 [prompts], in order; all are queued at once, so that vLLM fills its batches and finds shared prefixes."""
        if len(prompts) == 0:
            return np.empty(0, dtype=np.float32)
        queued = [{"prompt_token_ids": np.asarray(prompt).tolist()} for prompt in prompts]
        scores = self._pooled(self.llm, queued) if self.method == "pooling" else self._generated(self.llm, queued)
        advance(len(prompts))
        return np.array(scores, dtype=np.float32)

    def release(self) -> None:
        """Drop the weights from memory and end vLLM's processes; they are started again if asked again."""
        # Left to the garbage collector, the processes would keep the memory until it came round.
        if llm := vars(self).pop("llm", None):
            llm.llm_engine.engine_core.shutdown()

    @cached_property
    def _config(self) -> dict[str, Any]:
        return model_config(self.folder)

    @property
    def _architecture(self) -> str:
        return str((self._config.get("architectures") or ["an unnamed architecture"])[0])

    def _obstacle(self) -> str | None:
        """Why a classifier made of head rows would not give the model's own logits, if so."""
        if self._architecture not in PLAIN_HEADS:
            return f"{self._architecture} may do more to its logits than a product"
        # vLLM looks the rows up in the first device's share of the vocabulary, whichever share they lie in.
        if max(self.answers) >= self._config["vocab_size"] // self.settings["tensor_parallel_size"]:
            return "an answer's row lies on another device than the first"
        return None

    def _as_classifier(self) -> dict[str, Any]:
        tokenizer = load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code)
        overrides = {
            "architectures": [self._architecture.replace("ForCausalLM", "ForSequenceClassification")],
            # Negative first; entries of the vocabulary, not texts: " yes" is "Ġyes" there.
            "classifier_from_token": tokenizer.convert_ids_to_tokens(self.answers[::-1]),
            "method": "from_2_way_softmax" if len(self.answers) == 2 else "no_post_processing",
        }
        return {"runner": "pooling", "max_model_len": self.max_length, "hf_overrides": overrides}

    def _as_language_model(self) -> dict[str, Any]:
        return {"runner": "generate", "max_model_len": self.max_length + 1, "logprobs_mode": "raw_logits"}

    def _pooled(self, llm: Any, prompts: list[Any]) -> list[float]:
        from vllm import PoolingParams

        found = llm.encode(prompts, PoolingParams(use_activation=False), pooling_task="classify", use_tqdm=False)
        return [output.outputs.data.item() for output in found]

    def _generated(self, llm: Any, prompts: list[Any]) -> list[float]:
        from vllm import SamplingParams

        ask = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=self.answers, detokenize=False)
        rows = [output.outputs[0].logprobs[0] for output in llm.generate(prompts, ask, use_tqdm=False)]
        logits = np.array([[row[token].logprob for token in self.answers] for row in rows])
        return list(logits[:, 0] - logits[:, 1:].sum(axis=1))
