"""Approximate discounted rank MSE: the student's soft ranks should be the teacher's ranks, at the top most of all."""

from __future__ import annotations

from typing import Any

from distilrank.students.losses.kl import groups
from distilrank.students.losses.within import ranks, sizes

TEMPERATURE = 1.0


def adr_mse(
    student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None, temperature: float = TEMPERATURE
) -> Any:
    """Mean over groups of mean over passages of (r_i - soft_i)^2 / log2(1 + r_i), float32.

    r is the teacher's rank from 1, and soft_i = 1 + sum over j != i of the group of sigmoid((s_j - s_i) / T) the student's.

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher | float [n] | scores: only their order counts |
    | group | long [n] | which group each passage belongs to |
    | pairs | ignored | ranks are within the whole group |
    | units | scalar or none | how many groups to divide by; none: those given here |

    Takes n^2 comparisons a step. Reference: Schlatt et al. 2024, Rank-DistiLLM (arXiv 2405.07920).
    """
    import torch

    units = groups(teacher, group) if units is None else units
    student = student.float()
    same = (group[:, None] == group[None]) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    soft = 1 + (torch.sigmoid((student[None] - student[:, None]) / temperature) * same).sum(1)
    rank = ranks(teacher.float(), group)
    errors = (rank - soft).square() / torch.log2(1 + rank)
    return (errors / sizes(group)).sum() / units.clamp(min=1)
