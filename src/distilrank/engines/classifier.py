"""Scoring (query, passage) pairs with a sequence-classification model: raw fp32 logits, whatever the body computes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded, in_order, length_sorted, moved, padded_batch, split_like
from distilrank.engines.flat import flat_batch, is_flat
from distilrank.engines.load import device_of, dtype_of, has_head, load_model, load_tokenizer
from distilrank.engines.windows import encode_windows, largest
from distilrank.errors import UserError
from distilrank.progress import Advance
from distilrank.records import Group

TOKENS_A_BATCH = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}


def encode_pairs(tokenizer: Any, queries: Sequence[str], passages: Sequence[str], max_length: int) -> Encoded:
    """Tokenise pairs as sentence-transformers does: the longer of the two is cut, which is the passage as a rule.

    The tokenizer's own limit holds where it is lower, since the model has no positions beyond it.
    """
    max_length = min(max_length, tokenizer.model_max_length)
    encoded = tokenizer(list(queries), list(passages), truncation="longest_first", max_length=max_length)
    return {key: encoded[key] for key in ("input_ids", "token_type_ids") if key in encoded}


def batches_of(config: Any, encoded: Encoded, pad: int, budget: int) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """All rows in batches under a token budget: (numbers of the rows, the model's inputs); flat where the model is."""
    lengths = [len(ids) for ids in encoded["input_ids"]]
    flat = is_flat(config)
    for rows in in_order(lengths, budget) if flat else length_sorted(lengths, budget):
        chosen = {key: [values[row] for row in rows.tolist()] for key, values in encoded.items()}
        if flat:
            yield rows, flat_batch(chosen["input_ids"], chosen.get("token_type_ids"), config)
        else:
            yield rows, padded_batch(chosen, pad)


def head_of(model: Any) -> Any:
    """The linear layer with one output a label. Raises `UserError` when the model has none: a language model is no
    cross-encoder.
    """
    import torch

    # By its width, not its place: XLM-RoBERTa's modules list the head before the body.
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    fitting = [linear for linear in linears if linear.out_features == model.config.num_labels]
    if not fitting:
        raise UserError(f"{model.name_or_path}: {type(model).__name__} has no head with {model.config.num_labels} output(s)")
    return fitting[-1]


def fp32_head(model: Any) -> Any:
    """Make the head compute in fp32 even under autocast; returns the model.

    A bfloat16 logit has 8 bits: near 10 its steps are 0.06 wide, which makes ties of what the body told apart. Raises
    `UserError` when there is no head.
    """
    import torch

    head = head_of(model)

    def forward(hidden: Any) -> Any:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if head.bias is None else head.bias.float()
            return torch.nn.functional.linear(hidden.float(), head.weight.float(), bias)

    head.forward = forward
    return model


def score_encoded(
    model: Any, encoded: Encoded, pad: int, dtype: str, advance: Advance = lambda done: None, budget: int | None = None
) -> np.ndarray:
    """Raw logits, float32 [pairs], of pairs in any order: length-sorted batches, `dtype` products, an fp32 head.

    `budget`: tokens of a batch, none: the device's usual.
    """
    import torch

    device = next(model.parameters()).device
    result = np.empty(len(encoded["input_ids"]), dtype=np.float32)
    mixed = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")
    with torch.inference_mode(), mixed:
        for rows, inputs in batches_of(model.config, encoded, pad, budget or TOKENS_A_BATCH[device.type]):
            result[rows] = model(**moved(inputs, device)).logits[:, 0].float().cpu().numpy()
            advance(len(rows))
    return result


class Reranker:
    """A sequence-classification model with one output; loaded when the first pair is scored.

    With `fresh_head` an encoder without a head is one, too: what a student is before it has learnt anything. With
    `windows` a passage that does not fit is read in windows that overlap by so many tokens, and the largest logit counts.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_length: int = 512,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        fresh_head: bool = False,
        windows: int | None = None,
    ) -> None:
        self.windows = windows
        self.folder, self.max_length, self.fresh_head = Path(folder), max_length, fresh_head
        self.device = device_of(device)
        self.dtype = dtype_of(dtype, self.device)
        self.trust_remote_code = trust_remote_code

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code)

    @cached_property
    def model(self) -> Any:
        name = "AutoModelForSequenceClassification"
        more: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.fresh_head and not has_head(self.folder):
            more |= {"fresh_head": True, "num_labels": 1}
        model = load_model(name, self.folder, "float32", self.device, **more)
        if model.config.num_labels != 1:
            raise UserError(f"{self.folder}: {model.config.num_labels} outputs; a reranker has one")
        return fp32_head(model)

    def score(self, groups: Sequence[Group], advance: Advance = lambda done: None) -> list[np.ndarray]:
        """Raw logits, float32 [passages] a group, in order."""
        queries = [group.query for group in groups for _ in group.passages]
        passages = [passage.text for group in groups for passage in group.passages]
        if not passages:
            return []
        return split_like(self.score_pairs(queries, passages, advance), [group.passages for group in groups])

    def score_pairs(self, queries: Sequence[str], passages: Sequence[str], advance: Advance) -> np.ndarray:
        """Raw logits, float32 [pairs]."""
        pad = self.tokenizer.pad_token_id or 0
        if self.windows is None:
            encoded = encode_pairs(self.tokenizer, queries, passages, self.max_length)
            return score_encoded(self.model, encoded, pad, self.dtype, advance)
        encoded, pair_of = encode_windows(self.tokenizer, queries, passages, self.max_length, self.windows)
        scores = largest(score_encoded(self.model, encoded, pad, self.dtype), pair_of, len(passages))
        advance(len(passages))
        return scores
