"""Margin-MSE over the passages of a group, every margin formed from one forward a passage."""

from __future__ import annotations

from typing import Any


def margin_mse(student: Any, teacher: Any, group: Any, pairs: Any = None) -> Any:
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

    Returns the mean over margins, a float32 scalar. Equal to sentence-transformers' `MarginMSELoss` on the triplets of
    the same margins, which forwards a passage once for every triplet it is in.

    Reference: Hofstätter et al. 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation (arXiv 2010.02666).
    """
    import torch

    difference = student.float() - teacher.float()
    if pairs is not None:
        first, second = pairs.unbind(1)
        return (difference[first] - difference[second]).square().sum() / (first != second).sum().clamp(min=1)
    # As many places as passages, since asking how many groups there are would wait for the device.
    zeros = torch.zeros_like(difference)
    count = zeros.index_add(0, group, torch.ones_like(difference))
    mean = zeros.index_add(0, group, difference) / count.clamp(min=1)
    squares = zeros.index_add(0, group, (difference - mean[group]).square())
    return (count * squares).sum() / (count * (count - 1) / 2).sum()
