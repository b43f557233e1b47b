"""Generating a line of text with a causal language model, each line drawn with a seed of its own.

A token is drawn by adding Gumbel noise to the logits and taking the largest (Maddison et al. 2014, arXiv 1411.0030), with
noise that depends on the line's seed alone: what is drawn does not depend on the other lines of a batch, apart from the
rounding of the batch's products. What all prompts begin with (a system message, examples) is read once.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.batches import length_sorted
from distilrank.engines.load import device_of, dtype_of, load_model, load_tokenizer
from distilrank.errors import UserError

TOKENS_A_BATCH = {"cpu": 8_192, "cuda": 65_536, "mps": 8_192}
FEWEST_SHARED = 32
"""Tokens that prompts must share to be read once."""
LIKELIEST = 1_024
"""Tokens that are sorted first, among which those of `top_p` nearly always are."""
PROMPTS_A_WINDOW = {"cpu": 256, "cuda": 4_096, "mps": 256}
"""Among so many prompts, those of like length are brought together."""

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`, as chat templates and OpenAI's API have it."""


class Generator:
    """A causal language model in a folder that answers chats; weights are loaded when the first one is asked."""

    def __init__(
        self, folder: str | Path, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False
    ) -> None:
        self.folder, self.trust_remote_code = Path(folder), trust_remote_code
        self.device = device_of(device)
        self.dtype = dtype_of(dtype, self.device)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def model(self) -> Any:
        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        return load_model("AutoModelForCausalLM", self.folder, self.dtype, self.device, **options)

    def prompt(self, messages: Sequence[Message]) -> str:
        """A chat as the model's own template has it; a model without one reads the contents, a blank line between them."""
        if self.tokenizer.chat_template:
            # Qwen3 thinks unless it is told not to; a template that knows nothing of it ignores it.
            how: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": False}
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, **how))
        return "\n\n".join(message["content"] for message in messages) + "\n"

    def lines(
        self,
        chats: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        most_tokens: int,
        temperature: float,
        top_p: float,
        done: Container[int] = (),
    ) -> Iterator[list[tuple[int, str]]]:
        """The number of each chat and the line that answers it, a batch at a time; those in `done` are left out.

        The batches do not depend on what is done, so that what is left of a killed run comes out as it would have.
        Temperature 0 takes the likeliest token. Raises `UserError` when a prompt does not fit the model.
        """
        kind = self.device.split(":")[0]
        room = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 0)
        for start in range(0, len(chats), PROMPTS_A_WINDOW[kind]):
            prompts = [self.prompt(chat) for chat in chats[start : start + PROMPTS_A_WINDOW[kind]]]
            rows = self.tokenizer(prompts, add_special_tokens=not self.tokenizer.chat_template)["input_ids"]
            if room and (longest := max(map(len, rows))) + most_tokens > room:
                raise UserError(f"{self.folder}: a prompt of {longest:,} tokens does not fit: the model reads {room:,}")
            shared = self._read_once(rows)
            for batch in length_sorted([len(row) + most_tokens for row in rows], TOKENS_A_BATCH[kind]):
                if numbers := [number for number in batch.tolist() if start + number not in done]:
                    drawn = _Draw([seeds[start + number] for number in numbers], temperature, top_p, self.device)
                    lines = self._batch([rows[number] for number in numbers], shared, drawn, most_tokens)
                    yield [(start + number, line) for number, line in zip(numbers, lines, strict=True)]

    def release(self) -> None:
        """Drop the weights from memory."""
        vars(self).pop("model", None)

    def _read_once(self, rows: Sequence[list[int]]) -> tuple[int, dict[str, Any]]:
        """How many tokens all rows begin with, and the model's keys and values of these, under the name that this version of
        transformers gives them; 0 where it is not worth it.
        """
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        first, last = min(rows), max(rows)
        differs = next(
            (place for place, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first)
        )
        many = min(differs, min(map(len, rows)) - 1)  # at least one token of each row is left to be read
        if len(rows) < 2 or many < FEWEST_SHARED:
            return 0, {}
        with torch.inference_mode():
            ids = torch.tensor([rows[0][:many]], device=self.device)
            output = self.model.base_model(input_ids=ids, use_cache=True)
        name = "cache" if hasattr(output, "cache") else "past_key_values"  # the newer one first
        read = getattr(output, name)
        # A layer with a window or a state of its own is not continued after a gap.
        plain = isinstance(read, DynamicCache) and all(type(layer) is DynamicLayer for layer in read.layers)
        return (many, {name: read}) if plain else (0, {})

    def _batch(
        self, rows: Sequence[Sequence[int]], shared: tuple[int, dict[str, Any]], drawn: _Draw, most_tokens: int
    ) -> list[str]:
        import torch
        from transformers import GenerationConfig

        from distilrank.engines.quiet import quiet_transformers

        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        many, read = shared
        # Padded on the left of what is a row's own, so that all prompts end where the answers begin.
        gaps = [[pad] * (longest - len(row)) for row in rows]
        ids = torch.tensor([[*row[:many], *gap, *row[many:]] for row, gap in zip(rows, gaps, strict=True)])
        mask = torch.ones_like(ids)
        for row, gap in enumerate(gaps):
            mask[row, many : many + len(gap)] = 0
        read = copy.deepcopy(read)  # generating goes on with it
        for cache in read.values():
            cache.batch_repeat_interleave(len(rows))
        ends = {self.tokenizer.eos_token_id, self.model.generation_config.eos_token_id}
        flat = {end for some in ends for end in (some if isinstance(some, list) else [some]) if end is not None}
        config = GenerationConfig(
            max_new_tokens=most_tokens, do_sample=False, eos_token_id=sorted(flat) or None, pad_token_id=pad
        )
        with torch.inference_mode(), quiet_transformers():
            made = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=config,
                logits_processor=[drawn],
                stopping_criteria=[_LineEnds(self._line_ends, longest)],
                **read,
            )
        answers = self.tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)
        return [next((line.strip() for line in answer.splitlines() if line.strip()), "") for answer in answers]

    @cached_property
    def _line_ends(self) -> Any:
        """Of each token, whether its text ends a line that holds something, or could: [vocabulary], bool."""
        import torch

        many = self.model.get_output_embeddings().weight.shape[0]
        known = len(self.tokenizer)
        texts = self.tokenizer.batch_decode([[number] for number in range(min(many, known))])
        found = np.zeros(many, dtype=bool)
        found[: len(texts)] = ["\n" in text for text in texts]
        return torch.from_numpy(found).to(self.device)


class _Draw:
    """A logits processor that makes the largest logit a draw at a temperature from the likeliest `top_p`."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, device: str) -> None:
        import torch

        self.seeds = torch.tensor(np.asarray(seeds, dtype=np.uint64).view(np.int64), device=device)
        self.temperature, self.top_p, self.step = temperature, top_p, 0

    def __call__(self, ids: Any, logits: Any) -> Any:
        import torch

        if not self.temperature:
            return logits
        logits = logits.float() / self.temperature
        chances = logits.softmax(-1)
        ordered, order = chances.topk(min(LIKELIEST, chances.shape[-1]))
        if float(ordered.sum(-1).min()) < self.top_p:  # seldom: a vocabulary takes long to sort
            ordered, order = chances.sort(dim=-1, descending=True)
        likely = logits.gather(-1, order).masked_fill(ordered.cumsum(-1) - ordered >= self.top_p, -torch.inf)
        noisy = likely + _gumbel(self.seeds, order + self.step * logits.shape[-1])
        self.step += 1
        return torch.full_like(logits, -torch.inf).scatter(-1, order, noisy)


def _gumbel(seeds: Any, places: Any) -> Any:
    """Gumbel noise, float32 [rows, tokens], a row's from the stream that begins at its seed (int64 [rows]), each number by
    its place in it (int64 [rows, tokens], from 0). Made where the seeds lie, and for no more tokens than need be: a whole
    vocabulary's is slow to draw on a CPU. The bits are SplitMix64's (Steele et al. 2014, doi 10.1145/2660193.2660195).
    """
    import torch

    bits = seeds[:, None] + (places + 1) * _signed(0x9E3779B97F4A7C15)  # int64 wraps around, as modulo 2^64 does
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ ((bits >> shift) & ((1 << 64 - shift) - 1))) * _signed(factor)
    bits ^= (bits >> 31) & ((1 << 33) - 1)
    # 23 bits and a half lie above 0 and below 1 in float32 too, and are densest where the largest noise comes from.
    uniform = (((bits >> 41) & ((1 << 23) - 1)).float() + 0.5) / (1 << 23)
    return -torch.log(-torch.log1p(-uniform))


def _signed(value: int) -> int:
    return value - (1 << 64)


class _LineEnds:
    """A stopping criterion: a row is done when a line end comes after something was written."""

    def __init__(self, line_ends: Any, prompt: int) -> None:
        self.line_ends, self.prompt = line_ends, prompt

    def __call__(self, ids: Any, scores: Any, **more: Any) -> Any:
        written = (~self.line_ends[ids[:, self.prompt :]]).any(-1)
        return self.line_ends[ids[:, -1]] & written
