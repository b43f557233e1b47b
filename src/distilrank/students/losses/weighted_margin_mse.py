"""Margin-MSE that cares most for the margins which change the top of the list."""

from __future__ import annotations

from typing import Any

from distilrank.students.losses.within import better, ranks, summed


def gains(teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> Any:
    """The sum of the weights."""
    return summed(_weights, teacher.float(), group, pairs)


def weighted_margin_mse(student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None) -> Any:
    """Weighted mean of squared differences of margins, the weight of a pair |1/log2(1 + r_i) - 1/log2(1 + r_j)|, float32.

    r is the teacher's rank from 1: the weight is what swapping the two would change in a discounted gain, as in LambdaRank.

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher | float [n] | calibrated scores |
    | group | long [n] | which group each passage belongs to |
    | pairs | long [m, 2] or none | the margins that count; none: all within a group |
    | units | scalar or none | the sum of weights to divide by; none: of those given here |

    Takes n^2 comparisons a step. References: arXiv 2010.02666 (Margin-MSE); Burges 2010, From RankNet to LambdaRank to
    LambdaMART (the weights).
    """
    teacher = teacher.float()
    difference = student.float() - teacher
    weights = _weights(teacher, group, pairs)
    units = weights.sum() if units is None else units
    return (weights * (difference[:, None] - difference[None]).square()).sum() / units.clamp(min=1e-12)


def _weights(teacher: Any, group: Any, pairs: Any) -> Any:
    import torch

    discount = 1 / torch.log2(1 + ranks(teacher, group))
    return (discount[:, None] - discount[None]).abs() * better(teacher, group, pairs)
