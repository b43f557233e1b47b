"""Sums, maxima and comparisons within groups, without asking the device how many groups there are."""

from __future__ import annotations

from typing import Any


def sums(values: Any, group: Any) -> Any:
    """The sum over each passage's group, [n]."""
    return values.new_zeros(len(values)).index_add(0, group, values)[group]


def maxima(values: Any, group: Any) -> Any:
    """The largest value of each passage's group, [n]."""
    return values.new_full((len(values),), float("-inf")).scatter_reduce(0, group, values, "amax")[group]


def log_softmax(values: Any, group: Any) -> Any:
    """The logarithm of the softmax within each group, [n]."""
    shifted = values - maxima(values.detach(), group)
    return shifted - sums(shifted.exp(), group).log()


def sizes(group: Any) -> Any:
    """How many passages each passage's group has, float [n]."""
    import torch

    return sums(torch.ones_like(group, dtype=torch.float32), group)


def companied(group: Any) -> Any:
    """1 for a passage of a group of several, 0 for one alone: a step of fixed size is filled up by such. Float [n]."""
    return (sizes(group) > 1).float()


def better(teacher: Any, group: Any, pairs: Any = None) -> Any:
    """Bool [n, n]: passage i stands above passage j of the same group for the teacher, and the pair counts."""
    import torch

    above = (teacher[:, None] > teacher[None]) & (group[:, None] == group[None])
    if pairs is None:
        return above
    counts = torch.zeros_like(above)
    # A Python True would be copied from the CPU, which a CUDA graph does not allow.
    counts[pairs[:, 0], pairs[:, 1]] = torch.ones((), dtype=torch.bool, device=pairs.device)
    return above & (counts | counts.T)


def ranks(teacher: Any, group: Any) -> Any:
    """The teacher's rank of each passage in its group, from 1; equal scores share the mean of their ranks, [n]."""
    same = group[:, None] == group[None]
    above = ((teacher[None] > teacher[:, None]) & same).sum(1)
    equal = ((teacher[None] == teacher[:, None]) & same).sum(1)
    return above + (equal + 1) / 2
