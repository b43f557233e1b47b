"""A decoder-only language model that reads many token sequences and hands out hidden states: packed, or plain.

`packed` lays the sequences out as prefix tries (engines/trie.py), so that a shared prefix is read once; `plain` is an
ordinary padded batch, the slow and simple way that the packed one is checked against (prompt by prompt for a model whose
positions depend on the longest one of a batch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from distilrank.engines.batches import length_sorted, moved, padded_batch
from distilrank.engines.float8 import to_float8
from distilrank.engines.head import refuse_odd_head
from distilrank.engines.load import device_of, dtype_of, load_model, load_tokenizer
from distilrank.engines.packing import POSITIONS_MADE_BY_LENGTH, hidden_states, make_ready, refuse_unpackable, rotary_kinds
from distilrank.engines.trie import Row, lay_out
from distilrank.errors import UserError
from distilrank.progress import Advance, say

ENGINES = ("packed", "plain")
TOKENS_A_ROW = {"cpu": 2_048, "cuda": 32_768, "mps": 2_048}
TOKENS_A_BATCH = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}

Head = Callable[[Any, Sequence[int]], Any]
"""Hidden states [tokens read, width] of some sequences, and their numbers -> float32 [sequences], on the model's device."""


@dataclass(frozen=True)
class Laid:
    """Sequences ready to be read, and of each how many of its last tokens are asked for."""

    sequences: Sequence[np.ndarray]
    tails: Sequence[int]
    rows: Sequence[Row]


class Computed(TypedDict, total=False):
    """How a decoder is computed; the defaults are `Decoder`'s."""

    engine: str
    dtype: str
    device: str
    keep_layers: int
    trust_remote_code: bool


class Decoder:
    """A causal language model in a folder; weights are loaded when the first sequence is read."""

    def __init__(
        self,
        folder: str | Path,
        *,
        max_length: int,
        engine: str = "packed",
        dtype: str = "auto",
        device: str = "auto",
        keep_layers: int = 2,
        trust_remote_code: bool = False,
    ) -> None:
        if engine not in ENGINES:
            raise UserError(f"no engine {engine!r}: {', '.join(ENGINES)}")
        self.folder, self.engine, self.max_length, self.keep_layers = Path(folder), engine, max_length, keep_layers
        self.device = device_of(device)
        self.dtype = dtype if dtype == "float8" else dtype_of(dtype, self.device)
        self.trust_remote_code = trust_remote_code
        self.budget = TOKENS_A_ROW[self.device.split(":")[0]]

    @property
    def dtype_name(self) -> str:
        """The dtype as part of what a score means."""
        return f"float8, {self.keep_layers} layers at each end in bfloat16" if self.dtype == "float8" else self.dtype

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def model(self) -> Any:
        dtype = "bfloat16" if self.dtype == "float8" else self.dtype
        model = load_model("AutoModelForCausalLM", self.folder, dtype, self.device, trust_remote_code=self.trust_remote_code)
        refuse_odd_head(model)
        if "dynamic" in rotary_kinds(model.config.get_text_config()):
            raise UserError(
                f"{self.folder}: its rotary positions depend on what was read before (dynamic): no score is its own"
            )
        if self.engine == "packed":
            refuse_unpackable(model, self.max_length)
        if self.dtype == "float8":
            to_float8(model, self.keep_layers)
        if self.engine == "packed":
            make_ready(model)
        return model

    @cached_property
    def start(self) -> np.ndarray:
        """The tokens that the tokenizer itself puts before a text."""
        with_specials, without = self.tokenizer("a")["input_ids"], self.tokenise(["a"])[0].tolist()
        return np.array(with_specials[: with_specials.index(without[0])], dtype=np.int32)

    def tokenise(self, texts: list[str]) -> list[np.ndarray]:
        """Token ids of each text, int32, without special tokens of the tokenizer's own."""
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
        return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def lay_out(self, sequences: Sequence[np.ndarray], tails: Sequence[int]) -> Laid:
        """What can be done before the model is asked; needs no weights."""
        rows = list(lay_out(sequences, tails, self.budget)) if self.engine == "packed" else []
        return Laid(sequences, tails, rows)

    def read(self, laid: Laid, head: Head, advance: Advance = lambda done: None) -> np.ndarray:
        """Float32 [sequences]: what `head` makes of the hidden states at the last `tails[i]` tokens of each sequence."""
        import torch

        result = np.empty(len(laid.sequences), dtype=np.float32)
        before: tuple[Sequence[int], Any] | None = None
        with torch.inference_mode():
            # A batch is fetched when the next one has been started, so that the device never waits for the host.
            for numbers, values in self._answers(laid, head):
                if before:
                    _fetch(result, *before, advance)
                before = numbers, values
            if before:
                _fetch(result, *before, advance)
        return result

    def release(self) -> None:
        """Drop the weights from memory; they are loaded again if asked again."""
        vars(self).pop("model", None)

    def _answers(self, laid: Laid, head: Head) -> Iterator[tuple[Sequence[int], Any]]:
        if self.engine == "plain":
            yield from self._plain(laid, head)
            return
        import torch

        rows = list(laid.rows)
        while rows:
            try:
                values = head(hidden_states(self.model, rows[0], self.budget), rows[0].numbers)
            except torch.cuda.OutOfMemoryError:
                rows = self._smaller(laid, rows)
                continue
            yield rows.pop(0).numbers, values

    def _smaller(self, laid: Laid, rows: Sequence[Row]) -> list[Row]:
        """The sequences of the rows that are left, laid out under half the budget, which stays halved."""
        import torch

        torch.cuda.empty_cache()
        left = [number for row in rows for number in row.numbers]
        if len(rows[0].ids) > self.budget and len(rows[0].numbers) > 1:
            return self._again(laid, left)  # laid out before the budget was halved
        if len(rows[0].numbers) == 1:
            raise UserError(
                f"{self.folder}: out of GPU memory with rows of {self.budget} tokens, and a prompt of that order: lower "
                "max_length, or use a smaller model or dtype"
            )
        self.budget //= 2
        say(f"  out of GPU memory: going on with rows of {self.budget:,} tokens")
        return self._again(laid, left)

    def _again(self, laid: Laid, left: Sequence[int]) -> list[Row]:
        again = lay_out([laid.sequences[i] for i in left], [laid.tails[i] for i in left], self.budget)
        return [Row(row.ids, row.positions, row.ends, [left[i] for i in row.numbers], row.places) for row in again]

    def _plain(self, laid: Laid, head: Head) -> Iterator[tuple[Sequence[int], Any]]:
        import torch

        lengths = [len(sequence) for sequence in laid.sequences]
        alone = rotary_kinds(self.model.config.get_text_config()) & set(POSITIONS_MADE_BY_LENGTH)
        budget = 1 if alone else TOKENS_A_BATCH[self.model.device.type]
        batches = [batch.tolist() for batch in length_sorted(lengths, budget)]
        while batches:
            numbers = batches.pop(0)
            try:
                values = self._padded_batch(laid, numbers, head)
            except torch.cuda.OutOfMemoryError:
                if len(numbers) == 1:
                    raise UserError(f"{self.folder}: out of GPU memory with one prompt: lower max_length") from None
                half = len(numbers) // 2
                batches[:0] = [numbers[:half], numbers[half:]]
                torch.cuda.empty_cache()
                continue
            yield numbers, values

    def _padded_batch(self, laid: Laid, numbers: Sequence[int], head: Head) -> Any:
        import torch

        chosen = [laid.sequences[i].tolist() for i in numbers]
        inputs = moved(padded_batch({"input_ids": chosen}, 0), self.model.device)
        hidden = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        ends = [range(len(row) - laid.tails[i], len(row)) for i, row in zip(numbers, chosen, strict=True)]
        rows = torch.tensor([row for row, end in enumerate(ends) for _ in end], device=hidden.device)
        places = torch.tensor([place for end in ends for place in end], device=hidden.device)
        return head(hidden[rows, places], numbers)


def _fetch(result: np.ndarray, numbers: Sequence[int], values: Any, advance: Advance) -> None:
    result[numbers] = values.float().cpu().numpy()
    advance(len(numbers))
