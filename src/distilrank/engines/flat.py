"""An encoder over a flat row: pairs one after another without padding, through transformers' own model code.

A batch is one row of tokens with explicit positions; attention knows where each pair begins and ends, and everything else
in an encoder is a matter of each token alone. The pair's first token goes to the model's own head, so that a flat forward
gives the logits of a padded one.

    flatten(model)                              # once
    logits = model(**flat_batch(rows, ...)).logits    # [pairs, 1]
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from distilrank.engines.kernels import FLAT, NAME, use_flat_attention

AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
"""Encoders whose positions begin after the padding token's, as RoBERTa's do."""
LAID_FLAT = ("bert", "electra", "gte", "modernbert", "nomic_bert", *AFTER_PADDING)
"""Encoders that can be laid flat."""
LIKE_ROBERTA = ("data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta-prelayernorm", "xmod")
"""Encoders that are not laid flat here, whose positions begin there, too."""


def first_position(config: Any) -> int:
    """Where an encoder's positions begin: for so many tokens less there is room in its table than that is long."""
    return int(config.pad_token_id) + 1 if config.model_type in (*AFTER_PADDING, *LIKE_ROBERTA) else 0


def can_be_flat(model: Any) -> bool:
    """Whether we know how this encoder counts positions, and its head reads the first token alone."""
    config = model.config
    return config.model_type in LAID_FLAT and getattr(config, "classifier_pooling", "cls") == "cls"


def is_flat(config: Any) -> bool:
    """Whether the model of this configuration takes flat batches."""
    return bool(config._attn_implementation == NAME)


def flatten(model: Any) -> Any:
    """Make a sequence-classification encoder take flat batches beside padded ones; returns the model."""
    use_flat_attention(model)
    last = _layers(model)[-1]
    early = hasattr(getattr(last, "attention", None), "output")  # which adds what went into the layer, as BERT's does
    if early:
        last.attention.register_forward_hook(_firsts_go_on, with_kwargs=True)
    model.base_model.register_forward_hook(partial(_first_tokens, early), with_kwargs=True)
    return model


def compile_layers(model: Any, *, any_size: bool) -> None:
    """Compile the encoder's layers one by one, at their first use, for one size of batch or for any.

    The last one stays as it is: it is the only one with a hook, which the compiler would not notice.
    """
    for layer in _layers(model)[:-1]:
        layer.compile(dynamic=any_size)


def can_compile() -> bool:
    """Whether there is a C compiler, which torch's needs."""
    return bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))


def _layers(model: Any) -> Any:
    body = model.base_model
    return getattr(body, "layers", None) or body.encoder.layer


def _firsts_go_on(attention: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> Any:
    """After the last attention nothing but each pair's first token is read, so the rest is computed for these alone."""
    return (output[0][:, kwargs["firsts"]], *output[1:]) if "firsts" in kwargs else output


def _first_tokens(early: bool, body: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> Any:
    """Hand the head what it would see of a padded batch: the first token of each pair, [pairs, 1, width]."""
    if "firsts" not in kwargs:
        return output  # a padded batch
    hidden = output.last_hidden_state[0]
    output.last_hidden_state = (hidden if early else hidden[kwargs["firsts"]])[:, None]
    if getattr(body, "pooler", None) is not None:
        output.pooler_output = body.pooler(output.last_hidden_state)
    return output


@dataclass(frozen=True)
class Size:
    """A fixed size of flat batches: so many tokens, so many pairs, and no pair longer than so many tokens."""

    tokens: int
    pairs: int
    longest: int

    def holds(self, lengths: np.ndarray) -> bool:
        """Whether pairs of these lengths fit."""
        return bool(lengths.sum() <= self.tokens and len(lengths) <= self.pairs and lengths.max() <= self.longest)


def flat_batch(
    ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None, config: Any, *, size: Size | None = None
) -> dict[str, Any]:
    """The model's inputs for some pairs; `types` are their segment ids, where the model has them.

    With a size the row is filled up to it by padding, as pairs of its own, so that shapes are constant and every token
    belongs to some pair; the logits of the pairs that are missing are those of padding. Raises `ValueError` when the pairs
    do not fit: a pair longer than the declared longest would silently not be computed.
    """
    import torch

    lengths = np.array([len(row) for row in ids])
    pairs, used, longest = len(lengths), int(lengths.sum()), int(lengths.max())
    flat = np.fromiter(chain.from_iterable(ids), np.int64, used)
    if size is not None:
        if not size.holds(lengths):
            raise ValueError(f"{pairs} pairs of {used} tokens, at most {longest} each, do not fit into {size}")
        pairs, longest = size.pairs, size.longest
        lengths = np.concatenate([lengths, _slack(size.tokens - used, size, len(lengths))])
        flat = np.concatenate([flat, np.full(size.tokens - used, config.pad_token_id or 0)])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    offset = np.arange(len(flat)) - np.repeat(starts[:-1], lengths)
    batch = {
        "input_ids": torch.from_numpy(flat)[None],
        "position_ids": torch.from_numpy(offset + first_position(config))[None],
        "firsts": torch.from_numpy(np.minimum(starts[:pairs], len(flat) - 1)),
        FLAT: {
            "bounds": torch.from_numpy(starts.astype(np.int32)),
            "places": torch.from_numpy(np.repeat(np.arange(len(lengths)) * longest, lengths) + offset),
            "longest": longest,
        },
    }
    if types is not None:
        segments = np.zeros(len(flat), dtype=np.int64)
        segments[:used] = np.fromiter(chain.from_iterable(types), np.int64, used)
        batch["token_type_ids"] = torch.from_numpy(segments)[None]
    return batch


def _slack(tokens: int, size: Size, pairs: int) -> np.ndarray:
    """Lengths of a fixed number of padding pairs that add up to so many tokens, none over the longest; some may be empty."""
    count = size.pairs - pairs + -(-size.tokens // size.longest)
    whole, rest = divmod(tokens, count)
    return np.array([whole + 1] * rest + [whole] * (count - rest), dtype=np.int64)
