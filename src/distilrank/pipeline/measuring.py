"""How long evaluation will time the systems that it compares (`evidence/cost.py`, `pipeline/costs.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from distilrank.evidence.cost import FEWEST, MOST, WARM_UPS
from distilrank.pipeline.costs import GPU_ROUNDS
from distilrank.pipeline.hardware import Hardware, beside


def timings(student: float, students: int, teacher: Sequence[tuple[str, float]], wanted: float, on: Hardware) -> float:
    """Seconds in all. `student` is the FLOPs of a test query, and `teacher` those of its members with their kinds of work
    (empty: it is not timed).

    Students are timed on the CPU and, where there is one, on the GPU; the teacher where it scores.
    """
    rounds = GPU_ROUNDS if on.device == "cuda" else 1
    total = students * timed(student / on.rates["encoder"], wanted, rounds)
    if on.device == "cuda":
        total += students * timed(student / beside(on).rates["encoder"], wanted, 1)
    if teacher:
        total += timed(sum(flops / on.rates[kind] for kind, flops in teacher), wanted, rounds)
    return total


def timed(query: float, wanted: float, rounds: int) -> float:
    """Seconds that `time_system` takes for a system that takes `query` seconds a query."""
    once = min(max(wanted, FEWEST * query), MOST * query)
    again = rounds if once <= wanted else 0  # what takes no longer is timed again at once
    return WARM_UPS * query + (rounds + 1 + again) * once
