"""Whether a teacher has anything to teach, looked at before a training is paid for."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np

from distilrank.engines.load import has_head
from distilrank.metrics import is_judged, measure
from distilrank.pipeline.systems import Student
from distilrank.progress import say
from distilrank.records import Group

FEWEST, MOST, SECONDS = 16, 64, 10.0
"""So many labelled queries are looked at, and no more than the student scores in that time; of fewer nothing is said."""


def compare_with_teacher(student: Student, groups: Sequence[Group], teacher: Sequence[np.ndarray]) -> None:
    """Say so where the teacher's scores order labelled queries no better than the untrained student's.

    `teacher` holds float32 [passages] a group. Without labels nothing can be said, and a student without a head orders
    nothing yet. Labels decide nothing but this line.
    """
    if not has_head(student.folder):
        return
    labelled = islice((pair for pair in zip(groups, teacher, strict=True) if is_judged(pair[0])), MOST)
    model, deadline = student.on(), math.inf
    asked, taught, own = [], [], []
    for group, scores in labelled:
        asked.append(group)
        taught.append(scores)
        own += model.score([group])
        deadline = min(deadline, time.monotonic() + SECONDS)  # loading does not count
        if time.monotonic() > deadline:
            break
    if len(asked) < FEWEST:
        return
    theirs, before = (float(np.mean(measure(asked, scores, ("AP",)).values["AP"])) for scores in (taught, own))
    if theirs <= before:
        say(
            f"  on {len(asked)} labelled test queries the teacher (MAP {theirs:.3f}) is no better than the student before "
            f"training ({before:.3f}): it may have nothing to teach; try another teacher, template or instruction"
        )
