"""Sums, maxima and comparisons within groups, without asking the device how many groups there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PORTION = 96
"""Passages whose comparisons are counted at a time: so few that a CPU does it on one core, without waking the others."""


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


def summed(of: Callable[..., Any], teacher: Any, group: Any, pairs: Any = None) -> Any:
    """The sum of `of(teacher, group, pairs)`, [n, n] numbers that are 0 between groups, without all n^2 of them at once.

    For groups that lie one after another, on a CPU: the collator counts units there while the device computes.
    """
    ends = [*(group.diff().nonzero()[:, 0] + 1).tolist(), len(group)]
    total, start = teacher.new_zeros(()), 0
    for number, end in enumerate(ends):
        if number + 1 < len(ends) and ends[number + 1] - start <= PORTION:
            continue
        inside = None if pairs is None else pairs[(pairs[:, 0] >= start) & (pairs[:, 0] < end)] - start
        if end > start:
            total = total + of(teacher[start:end], group[start:end] - group[start], inside).sum()
        start = end
    return total


def ranks(teacher: Any, group: Any) -> Any:
    """The teacher's rank of each passage in its group, from 1; equal scores share the mean of their ranks, [n]."""
    same = group[:, None] == group[None]
    above = ((teacher[None] > teacher[:, None]) & same).sum(1)
    equal = ((teacher[None] == teacher[:, None]) & same).sum(1)
    return above + (equal + 1) / 2
