"""Binary cross-entropy on labels, for data that have them: the label, not the teacher, is the target."""

from __future__ import annotations

from typing import Any


def labelled(teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> Any:
    """How many passages have a label."""
    return (labels >= 0).sum()


def bce(student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None, labels: Any = None) -> Any:
    """Mean over labelled passages of log(1 + exp(student)) - [label > 0] * student, float32.

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher, group, pairs | ignored | a label says everything |
    | units | scalar or none | how many labels to divide by; none: those given here |
    | labels | long [n] | the grade of each passage; negative: it has none |

    Of use as a small part of a sum: it says where between two queries' passages zero lies, which margins cannot.
    """
    import torch

    units = labelled(teacher, group, pairs, labels) if units is None else units
    student = student.float()
    costs = torch.nn.functional.softplus(student) - student * (labels > 0)
    return (costs * (labels >= 0)).sum() / units.clamp(min=1)
