"""Batches of like length under a token budget, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np

Encoded = dict[str, list[list[int]]]
"""Token ids of each row, and segment ids where the model has them, under the model's own names."""


def length_sorted(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Indices of rows, longest first, cut so that rows x longest row <= `budget` (a longer row goes alone).

    The longest come first, so that a batch that does not fit shows at once.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def in_order(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Indices of rows as they come, cut so that their tokens add up to at most `budget` (a longer row goes alone)."""
    start, total = 0, 0
    for place, length in enumerate(lengths):
        if place > start and total + length > budget:
            yield np.arange(start, place)
            start, total = place, 0
        total += length
    if start < len(lengths):
        yield np.arange(start, len(lengths))


def padded(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """Token lists as int64 [rows, longest], padded on the right with `value`."""
    result = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row
    return result


def split_like(flat: np.ndarray, groups: Sequence[Sized]) -> list[np.ndarray]:
    """Values of all passages in order, as one array a group; `groups` are anything with the groups' lengths."""
    return np.split(flat, np.cumsum([len(group) for group in groups])[:-1]) if groups else []


def padded_arrays(encoded: Encoded, pad: int) -> dict[str, np.ndarray]:
    """The inputs of some rows, int64 [rows, longest]: padded ids, mask and, where the model has them, segment ids."""
    ids = encoded["input_ids"]
    arrays = {"input_ids": padded(ids, pad), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
    if "token_type_ids" in encoded:
        arrays["token_type_ids"] = padded(encoded["token_type_ids"], 0)
    return arrays


def padded_batch(encoded: Encoded, pad: int) -> dict[str, Any]:
    """The same as tensors."""
    import torch

    return {key: torch.from_numpy(array) for key, array in padded_arrays(encoded, pad).items()}


def moved(inputs: Any, device: Any) -> Any:
    """The tensors of a batch on a device."""
    if isinstance(inputs, dict):
        return {key: moved(value, device) for key, value in inputs.items()}
    if not hasattr(inputs, "to"):
        return inputs
    return (pinned(inputs) if "cuda" in str(device) else inputs).to(device, non_blocking=True)


def pinned(inputs: Any) -> Any:
    """The tensors of a batch in memory that a GPU copies from by itself: for other memory, whoever copies waits until the
    GPU has done all that it was given before.
    """
    if isinstance(inputs, dict):
        return {key: pinned(value) for key, value in inputs.items()}
    return inputs.pin_memory() if hasattr(inputs, "pin_memory") and not inputs.is_cuda else inputs


def fill(static: Any, fresh: Any) -> None:
    """Copy the tensors of a batch into those that a CUDA graph reads."""
    if isinstance(static, dict):
        for key, one in static.items():
            fill(one, fresh[key])
    elif isinstance(static, list):
        for one, other in zip(static, fresh, strict=True):
            fill(one, other)
    elif hasattr(static, "copy_"):
        static.copy_(fresh, non_blocking=True)
