"""Evaluations that several tests look at: four systems of known strength on labelled groups, and the same without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distilrank.evidence import Evaluation, System, evaluate
from distilrank.records import Group, Passage

STRENGTHS = {"bm25": 0.2, "before": 0.3, "after": 2.5, "teacher": 4.0}
ROLES = {"bm25": "baseline", "before": "before", "after": "after", "teacher": "teacher"}


def groups(queries: int = 40, passages: int = 8) -> list[Group]:
    """One or two positives a query; the last two queries have none, or nothing else."""
    rows = [[int(p == q % passages or (p == 3 and q % 4 == 0)) for p in range(passages)] for q in range(queries)]
    rows += [[0] * passages, [1] * passages]
    return [
        Group(f"q{n}", f"query {n} 问", tuple(Passage(f"passage {n}.{p} 🙂", f"d{p}", label) for p, label in enumerate(row)))
        for n, row in enumerate(rows)
    ]


def scores(of: Sequence[Group], strength: float, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = [[passage.label or 0 for passage in group.passages] for group in of]
    return [(strength * np.asarray(row) + rng.normal(size=len(row))).astype(np.float32) for row in rows]


def systems(of: Sequence[Group], names: Sequence[str] = tuple(STRENGTHS)) -> list[System]:
    places = list(STRENGTHS)
    return [System(n, ROLES[n], scores(of, STRENGTHS[n], places.index(n))) for n in names]  # type: ignore[arg-type]


def evaluation(names: Sequence[str] = tuple(STRENGTHS), **more: Any) -> Evaluation:
    of = groups()
    return evaluate(of, systems(of, names), settings={"title": "t"}, **more)


def unlabelled(of: Sequence[Group]) -> list[Group]:
    return [replace(group, passages=tuple(replace(p, label=None) for p in group.passages)) for group in of]
