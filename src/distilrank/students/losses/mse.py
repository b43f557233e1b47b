"""Pointwise squared error: the student should give the teacher's own (calibrated) score."""

from __future__ import annotations

from typing import Any


def mse(student: Any, teacher: Any, group: Any, pairs: Any = None) -> Any:
    """mean((student - teacher)^2) over passages, float32; `group` and `pairs` change nothing.

    Unlike the losses of margins it teaches the level of a score, too, so the teacher's scores are first mapped by scale
    and shift to the student's own spread and mean (`calibrate: auto`).

    | input | shape | meaning |
    |---|---|---|
    | student | float [n] | raw logits |
    | teacher | float [n] | calibrated scores |
    """
    return (student.float() - teacher.float()).square().mean()
