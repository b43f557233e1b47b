"""Pointwise squared error: the student should give the teacher's own (calibrated) score."""

from __future__ import annotations

from typing import Any

from distilrank.students.losses.within import companied


def passages(teacher: Any, group: Any, pairs: Any = None, labels: Any = None) -> Any:
    """How many passages there are, those alone in their group left out."""
    return companied(group).sum()


def mse(student: Any, teacher: Any, group: Any, pairs: Any = None, *, units: Any = None) -> Any:
    """mean((student - teacher)^2) over passages that are not alone in their group, float32; `pairs` change nothing.

    Unlike the losses of margins it teaches the level of a score, too, so the teacher's scores are first mapped by scale
    and shift to the student's own spread and mean (`calibrate: auto`).

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher | float [n] | calibrated scores |
    | group | long [n] | which group each passage belongs to |
    | units | scalar or none | how many passages to divide by; none: those given here |
    """
    units = passages(teacher, group) if units is None else units
    return ((student.float() - teacher.float()).square() * companied(group)).sum() / units.clamp(min=1)
