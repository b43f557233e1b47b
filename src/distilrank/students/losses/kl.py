"""Kullback-Leibler divergence between the teacher's and the student's distribution over a group's passages."""

from __future__ import annotations

from typing import Any

from distilrank.students.losses.within import companied, log_softmax, sizes

TEMPERATURE = 1.0


def groups(teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> Any:
    """How many groups of several passages there are."""
    return (companied(group) / sizes(group)).sum()


def kl(
    student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None, temperature: float = TEMPERATURE
) -> Any:
    """T^2 * mean over groups of sum_i p_i (log p_i - log q_i), with p and q the softmax of scores / T within the group.

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher | float [n] | scores |
    | group | long [n] | which group each passage belongs to |
    | pairs | ignored | a distribution is over the whole group |
    | units | scalar or none | how many groups to divide by; none: those given here |

    Returns a float32 scalar. The factor T^2 keeps the size of the gradient (Hinton et al. 2015, arXiv 1503.02531). Related
    to ListNet (Cao et al. 2007), whose target it is.
    """
    units = groups(teacher, group) if units is None else units
    log_p = log_softmax(teacher.float() / temperature, group)
    log_q = log_softmax(student.float() / temperature, group)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum() / units.clamp(min=1)
