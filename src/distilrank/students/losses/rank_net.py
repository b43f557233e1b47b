"""RankNet: of two passages, the one the teacher prefers should have the higher logit."""

from __future__ import annotations

from typing import Any

from distilrank.students.losses.within import better, summed


def preferences(teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> Any:
    """How many pairs there are in which the teacher prefers one."""
    return summed(better, teacher.float(), group, pairs)


def rank_net(student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None) -> Any:
    """Mean over pairs with teacher_i > teacher_j of log(1 + exp(student_j - student_i)), float32.

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher | float [n] | scores: only their order counts |
    | group | long [n] | which group each passage belongs to |
    | pairs | long [m, 2] or none | the pairs that count; none: all within a group |
    | units | scalar or none | how many pairs to divide by; none: those given here |

    Takes n^2 comparisons a step. Reference: Burges et al. 2005, Learning to Rank using Gradient Descent.
    """
    import torch

    counts = better(teacher.float(), group, pairs)
    student = student.float()
    costs = torch.nn.functional.softplus(student[None] - student[:, None])
    units = counts.sum() if units is None else units
    return (costs * counts).sum() / units.clamp(min=1)
