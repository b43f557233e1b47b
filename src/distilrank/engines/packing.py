"""One prefix, many branches: a decoder reads a shared prefix once and each branch after it, under a block mask.

A row is `[prefix][branch 1][branch 2]...`; a branch sees the prefix and itself, and its positions start where the prefix
ends, so that every log-probability is the one of `prefix + branch` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilrank.engines.batches import length_sorted
from distilrank.engines.head import finished
from distilrank.errors import UserError

BRANCHES_A_ROW = 16
TOKENS_A_BATCH = {"cpu": 2_048, "cuda": 32_768}
HEAD_ROWS = 1_024
"""Positions whose logits over the vocabulary are held at a time."""


@dataclass(frozen=True)
class Prefixed:
    """Token ids of a prefix and of the branches that follow it, one after another and not of each other."""

    prefix: list[int]
    branches: list[list[int]]


def branch_log_likelihoods(
    model: Any, items: Sequence[Prefixed], advance: Callable[[int], None] = lambda done: None
) -> list[np.ndarray]:
    """Mean log p(token | prefix, branch so far) of every branch: one float32 array [branches] an item."""
    import torch

    window = _window(model)
    longest = max((len(item.prefix) + max(map(len, item.branches)) for item in items), default=0)
    if longest > window:
        raise UserError(f"{model.name_or_path}: sees {window} tokens at a time, a prompt takes {longest}: lower max_length")
    result = [np.empty(len(item.branches), dtype=np.float32) for item in items]
    rows = [
        (number, start, Prefixed(item.prefix, item.branches[start : start + BRANCHES_A_ROW]))
        for number, item in enumerate(items)
        for start in range(0, len(item.branches), BRANCHES_A_ROW)
    ]
    lengths = [len(row.prefix) + sum(map(len, row.branches)) for _, _, row in rows]
    with torch.inference_mode():
        for batch in length_sorted(lengths, TOKENS_A_BATCH[model.device.type]):
            packed = [rows[i] for i in batch.tolist()]
            means = _forward(model, [row for _, _, row in packed])
            for (number, start, row), values in zip(packed, means, strict=True):
                result[number][start : start + len(row.branches)] = values
                advance(len(row.branches))
    return result


def _window(model: Any) -> float:
    """How far back every layer looks: the block mask knows no sliding window."""
    config = model.config.get_text_config()
    return getattr(config, "sliding_window", None) or math.inf


def _forward(model: Any, rows: Sequence[Prefixed]) -> list[np.ndarray]:
    import torch

    length = max(len(row.prefix) + sum(map(len, row.branches)) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    # 0 is the prefix, 1.. the branches, -1 padding: a token sees the prefix and its own branch, up to itself.
    branch_of = torch.full_like(ids, -1)
    sources: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        end = len(row.prefix)
        ids[number, :end] = torch.tensor(row.prefix)
        positions[number, :end] = torch.arange(end)
        branch_of[number, :end] = 0
        start = end
        for branch, tokens in enumerate(row.branches, start=1):
            stop = start + len(tokens)
            ids[number, start:stop] = torch.tensor(tokens)
            positions[number, start:stop] = torch.arange(end, end + len(tokens))
            branch_of[number, start:stop] = branch
            sources += [number * length + end - 1, *range(number * length + start, number * length + stop - 1)]
            targets += tokens
            start = stop
    own, other = branch_of[:, :, None], branch_of[:, None, :]
    sees = torch.ones(length, length, dtype=torch.bool).tril() & ((own == other) | ((other == 0) & (own >= 0)))
    mask = torch.zeros(sees.shape, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)
    hidden = model.base_model(
        input_ids=ids.to(model.device),
        attention_mask=mask[:, None].to(model.device),
        position_ids=positions.to(model.device),
        use_cache=False,
    ).last_hidden_state.reshape(len(rows) * length, -1)[torch.tensor(sources, device=model.device)]
    head, wanted = model.get_output_embeddings(), torch.tensor(targets, device=model.device)
    log_p = torch.cat(
        [
            -torch.nn.functional.cross_entropy(
                finished(model, head(hidden[i : i + HEAD_ROWS])), wanted[i : i + HEAD_ROWS], reduction="none"
            )
            for i in range(0, len(targets), HEAD_ROWS)
        ]
    )
    counts = [len(tokens) for row in rows for tokens in row.branches]
    means = torch.stack([part.mean() for part in log_p.split(counts)]).cpu().numpy()
    return np.split(means, np.cumsum([len(row.branches) for row in rows])[:-1])
