"""Margin-MSE over the passages of a group, every margin formed from one forward a passage."""

from __future__ import annotations

from typing import Any

from distilrank.students.losses.within import sizes, sums


def margins(teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> Any:
    """How many margins there are."""
    return ((sizes(group) - 1) / 2).sum() if pairs is None else (pairs[:, 0] != pairs[:, 1]).sum()


def margin_mse(student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None) -> Any:
    """Mean squared difference between the student's margins and the teacher's.

    With d = student - teacher, the error of a pair is (d_i - d_j)^2, so the sum over all pairs of a group of n is
    n * sum((d - mean d)^2) and costs n, not n^2.

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits of all passages of the step |
    | teacher | float [n] | raw (calibrated) scores of the same passages |
    | group | long [n] | which group each passage belongs to, 0 .. groups - 1 |
    | pairs | long [m, 2] or none | the margins that count, as indices of passages (one of a passage with itself does not);
      none: all within a group |
    | units | scalar or none | how many margins to divide by; none: those given here |

    Returns the mean over margins, a float32 scalar. Equal to sentence-transformers' `MarginMSELoss` on the triplets of
    the same margins, which forwards a passage once for every triplet it is in.

    Reference: Hofstätter et al. 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation (arXiv 2010.02666).
    """
    units = margins(teacher, group, pairs) if units is None else units
    difference = student.float() - teacher.float()
    if pairs is not None:
        first, second = pairs.unbind(1)
        return (difference[first] - difference[second]).square().sum() / units.clamp(min=1)
    count = sizes(group)
    mean = sums(difference, group) / count
    return (count * (difference - mean).square()).sum() / units.clamp(min=1)
